"""Errors of the trace: of which socket each tells. The tracepoint names its ends, and not its kernel address.

The kernel reports an error, as the application will see it, beside the change to CLOSE that it leads to: just after it
(tcp_done_with_error of Linux 6.10), or just before (tcp_reset and tcp_v4_err of older ones).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.trace.trace_events import TraceEventKind
from tcpwatch.model.sockets.endpoint_hashes import endpoint_pair_hashes
from tcpwatch.model.states import State
from tcpwatch.sample import take_rows

BESIDE_S = 0.001


def event_sockets(events: NDArray[np.void]) -> NDArray[np.uint64]:
    """The kernel address of each event's socket: TRACE_EVENT in the order of time in; 0 where nothing tells it."""
    socket: NDArray[np.uint64] = events["socket"].copy()
    errors = np.flatnonzero(events["kind"] == TraceEventKind.ERROR)
    if not len(errors):
        return socket
    closed = np.flatnonzero((events["kind"] == TraceEventKind.STATE) & (events["new"] == State.CLOSED))
    both = np.concatenate((errors, closed))
    of_ends = np.unique(
        endpoint_pair_hashes(take_rows(events, both), "sport", "dport", "src", "dst"), return_inverse=True
    )[1]
    # One number for ends and place: that of an error lies beside those of the same ends that are next to it.
    number = of_ends * len(events) + both
    wanted, there = number[: len(errors)], number[len(errors) :]
    order = np.argsort(there)
    at = np.searchsorted(there[order], wanted)
    for beside in (at, at - 1):  # the one before counts most
        found = np.flatnonzero((beside >= 0) & (beside < len(there)))
        close = closed[order[beside[found]]]
        same = of_ends[len(errors) :][order[beside[found]]] == of_ends[found]
        same &= np.abs(events["time"][close] - events["time"][errors[found]]) < BESIDE_S
        socket[errors[found[same]]] = events["socket"][close[same]]
    return socket
