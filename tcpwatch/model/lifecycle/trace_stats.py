"""TraceState: what the trace and the destroy events tell, and what they could not."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tcpwatch.kernel.trace.trace_events import Kind
from tcpwatch.model.lifecycle.transitions import What
from tcpwatch.sample import Sample


@dataclass(frozen=True, slots=True, eq=False)
class TraceState:
    """Counts since the start, unless said otherwise."""

    on: bool = False
    why_not: str = ""
    """Why there is no trace, in words: `needs root`, `switched off`; empty where it is on."""
    lost: int = 0
    """Events of the trace that were overwritten before they were read."""
    ends_lost: int = 0
    """Destroy events that the kernel could not queue."""
    lost_lately: int = 0
    ends_lost_lately: int = 0
    """The same in the last step."""
    foreign: int = 0
    """Sockets of other network namespaces, which have ended."""
    unsure: int = 0
    """Sockets that live and that no poll has told of: another namespace's, or it is not known whose they are."""
    retransmitted_per_s: float = 0.0
    resets_sent_per_s: float = 0.0
    resets_received_per_s: float = 0.0
    """In the last step; of all namespaces."""
    drops_per_s: Mapping[str, float] = field(default_factory=dict)
    """The kernel's reason → TCP segments dropped per second in the last step, of all namespaces."""
    reset_reasons: Mapping[int, str] = field(default_factory=dict)
    drop_reasons: Mapping[int, str] = field(default_factory=dict)
    """The kernel's number → its name, as `TCP_ABORT_ON_CLOSE`, `TCP_LISTEN_OVERFLOW`; absent where it has none."""

    def reasons(self, what: What) -> Mapping[int, str]:
        """The same for what happened to a flow: of an error, `ECONNREFUSED`."""
        return {What.DROPPED: self.drop_reasons, What.ERROR: errno.errorcode}.get(what, self.reset_reasons)


class Trace:
    """Adds up."""

    def __init__(self) -> None:
        self._lost = self._ends_lost = 0

    def step(self, sample: Sample, elapsed_s: float | None, foreign: int, unsure: int) -> TraceState:
        """After one more sample."""
        traced, destroyed = sample.traced, sample.destroyed
        lost, ends_lost = traced.lost if traced else 0, destroyed.lost if destroyed else 0
        self._lost += lost
        self._ends_lost += ends_lost
        state = TraceState(
            on=traced is not None,
            why_not=sample.source.no_trace,
            lost=self._lost,
            ends_lost=self._ends_lost,
            lost_lately=lost,
            ends_lost_lately=ends_lost,
            foreign=foreign,
            unsure=unsure,
        )
        if traced is None or not elapsed_s:
            return state
        events = traced.events
        kinds = np.bincount(events["kind"], minlength=max(Kind) + 1) / elapsed_s
        reasons = np.bincount(events["reason"][events["kind"] == Kind.DROP]) / elapsed_s
        return replace(
            state,
            retransmitted_per_s=float(kinds[Kind.RETRANSMIT] + kinds[Kind.SYNACK_RETRANSMIT]),
            resets_sent_per_s=float(kinds[Kind.RESET_SENT]),
            resets_received_per_s=float(kinds[Kind.RESET_RECEIVED]),
            drops_per_s={
                traced.drop_reasons.get(number, f"reason {number}"): float(reasons[number])
                for number in np.flatnonzero(reasons).tolist()
            },
            reset_reasons=traced.reset_reasons,
            drop_reasons=traced.drop_reasons,
        )
