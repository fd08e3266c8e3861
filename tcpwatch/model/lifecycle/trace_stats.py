"""TraceState: what the trace and the destroy events tell, and what they could not."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tcpwatch.kernel.trace.trace_events import TraceEventKind
from tcpwatch.model.lifecycle.tracker import LifecycleStep
from tcpwatch.model.lifecycle.transitions import TransitionKind
from tcpwatch.model.poll import Poll


@dataclass(frozen=True, slots=True, eq=False)
class TraceStats:
    """Counts since the start, unless said otherwise."""

    on: bool = False
    why_no_trace: str = ""
    """Why there is no trace, in words: `needs root`, `switched off`; empty where it is on."""
    events_lost: int = 0
    """Events of the trace that were overwritten before they were read."""
    destroy_events_lost: int = 0
    """Destroy events that the kernel could not queue."""
    events_lost_in_step: int = 0
    destroy_events_lost_in_step: int = 0
    """The same in the last step."""
    foreign_sockets: int = 0
    """Sockets of other network namespaces, which have ended."""
    unmatched_sockets: int = 0
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

    def reasons(self, what: TransitionKind) -> Mapping[int, str]:
        """The same for what happened to a flow: of an error, `ECONNREFUSED`."""
        return {TransitionKind.DROPPED: self.drop_reasons, TransitionKind.ERROR: errno.errorcode}.get(
            what, self.reset_reasons
        )


class TraceStatsCounter:
    """Adds up."""

    def __init__(self) -> None:
        self._lost = self._ends_lost = 0

    def step(self, poll: Poll, lifecycle: LifecycleStep) -> TraceStats:
        """Return the counts after this poll."""
        traced, destroyed, elapsed_s = poll.sample.trace_events, poll.sample.destroyed, poll.elapsed_s
        lost, ends_lost = traced.lost if traced else 0, destroyed.lost if destroyed else 0
        self._lost += lost
        self._ends_lost += ends_lost
        state = TraceStats(
            on=traced is not None,
            why_no_trace=poll.sample.source.why_no_trace,
            events_lost=self._lost,
            destroy_events_lost=self._ends_lost,
            events_lost_in_step=lost,
            destroy_events_lost_in_step=ends_lost,
            foreign_sockets=lifecycle.foreign_sockets,
            unmatched_sockets=lifecycle.unmatched_sockets,
        )
        if traced is None or not elapsed_s:
            return state
        events = traced.events
        kinds = np.bincount(events["kind"], minlength=max(TraceEventKind) + 1) / elapsed_s
        reasons = np.bincount(events["reason"][events["kind"] == TraceEventKind.DROP]) / elapsed_s
        return replace(
            state,
            retransmitted_per_s=float(kinds[TraceEventKind.RETRANSMIT] + kinds[TraceEventKind.SYNACK_RETRANSMIT]),
            resets_sent_per_s=float(kinds[TraceEventKind.RESET_SENT]),
            resets_received_per_s=float(kinds[TraceEventKind.RESET_RECEIVED]),
            drops_per_s={
                traced.drop_reasons.get(number, f"reason {number}"): float(reasons[number])
                for number in np.flatnonzero(reasons).tolist()
            },
            reset_reasons=traced.reset_reasons,
            drop_reasons=traced.drop_reasons,
        )
