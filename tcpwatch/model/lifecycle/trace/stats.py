"""TraceStats: counts of trace events and destroy events, and of lost ones."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tcpwatch import units
from tcpwatch.kernel.trace.trace_events import TraceEventKind
from tcpwatch.model.lifecycle.tracker import LifecycleStep
from tcpwatch.model.lifecycle.transitions import TransitionKind
from tcpwatch.model.poll import Poll


@dataclass(frozen=True, slots=True, eq=False)
class TraceStats:
    """Counts since the start, unless stated otherwise."""

    on: bool = False
    why_no_trace: str = ""
    """Reason why there is no trace: `needs root`, `switched off`; empty if it is on."""
    events_lost: int = 0
    """Trace events that were overwritten before they were read, or did not fit into memory."""
    destroy_events_lost: int = 0
    """Destroy events that the kernel could not queue, or that did not fit into memory."""
    events_lost_in_step: int = 0
    destroy_events_lost_in_step: int = 0
    """The same in the last step."""
    foreign_sockets: int = 0
    """Destroyed sockets of other network namespaces."""
    unmatched_sockets: int = 0
    """Open sockets of the trace that match no polled socket: of another namespace, or ambiguous."""
    retransmitted_per_s: float = 0.0
    resets_sent_per_s: float = 0.0
    resets_received_per_s: float = 0.0
    """In the last step, in all namespaces."""
    drops_per_s: Mapping[str, float] = field(default_factory=dict)
    """Drop reason → TCP segments dropped per second in the last step, in all namespaces."""
    reset_reasons: Mapping[int, str] = field(default_factory=dict)
    drop_reasons: Mapping[int, str] = field(default_factory=dict)
    """Number → name, as `TCP_ABORT_ON_CLOSE`, `TCP_LISTEN_OVERFLOW`; empty if the kernel has no names."""

    def reasons(self, kind: TransitionKind) -> Mapping[int, str]:
        """Return the names of Transition.reason for this kind; for errors, as `ECONNREFUSED`."""
        names = {TransitionKind.DROPPED: self.drop_reasons, TransitionKind.ERROR: errno.errorcode}
        return names.get(kind, self.reset_reasons)


def lost_events(trace: int, destroy: int) -> tuple[str, ...]:
    """Return these numbers of lost events in words; empty if none are lost."""
    lost = ((trace, "trace event"), (destroy, "destroy event"))
    return tuple(f"{units.plural(number, kind)} lost" for number, kind in lost if number)


class TraceStatsCounter:
    """Adds up lost events."""

    def __init__(self) -> None:
        self._events_lost = self._destroy_events_lost = 0

    def step(self, poll: Poll, lifecycle: LifecycleStep) -> TraceStats:
        """Return the counts after this poll."""
        traced, destroyed, elapsed_s = poll.sample.trace_events, poll.sample.destroyed, poll.elapsed_s
        events_lost = (traced.lost if traced else 0) + lifecycle.trace_events_dropped
        destroy_events_lost = destroyed.lost if destroyed else 0
        self._events_lost += events_lost
        self._destroy_events_lost += destroy_events_lost
        stats = TraceStats(
            on=traced is not None,
            why_no_trace=poll.sample.source.why_no_trace,
            events_lost=self._events_lost,
            destroy_events_lost=self._destroy_events_lost,
            events_lost_in_step=events_lost,
            destroy_events_lost_in_step=destroy_events_lost,
            foreign_sockets=lifecycle.foreign_sockets,
            unmatched_sockets=lifecycle.unmatched_sockets,
        )
        if traced is None or not elapsed_s:
            return stats
        events = traced.events
        kinds = np.bincount(events["kind"], minlength=max(TraceEventKind) + 1) / elapsed_s
        reasons = np.bincount(events["reason"][events["kind"] == TraceEventKind.DROP]) / elapsed_s
        return replace(
            stats,
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
