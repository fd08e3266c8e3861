"""The sockets of error events: their tracepoint has the endpoints of the socket, but not its kernel address.

The kernel reports the error that the application will see next to the change to CLOSE that it causes: just after it
(tcp_done_with_error since Linux 6.10), or just before it (tcp_reset and tcp_v4_err of older kernels).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.opaque_rows import take_rows
from tcpwatch.kernel.trace.trace_events import TraceEventKind
from tcpwatch.model.sockets.endpoint_hashes import endpoint_pair_hashes
from tcpwatch.model.states import State

MAX_DISTANCE_S = 0.001
"""Largest time between an error and its change to CLOSE."""


def event_sockets(events: NDArray[np.void]) -> NDArray[np.uint64]:
    """Return the kernel address of the socket of each TRACE_EVENT, 0 for unknown; events are in the order of time."""
    socket: NDArray[np.uint64] = events["socket"].copy()
    errors = np.flatnonzero((events["kind"] == TraceEventKind.ERROR) & (socket == 0))
    if not len(errors):
        return socket
    closed = np.flatnonzero((events["kind"] == TraceEventKind.STATE) & (events["new"] == State.CLOSED))
    both = np.concatenate((errors, closed))
    endpoints = np.unique(
        endpoint_pair_hashes(take_rows(events, both), "sport", "dport", "src", "dst"), return_inverse=True
    )[1]
    # One number for endpoints and place: sorted, an error lies next to the nearest changes with the same endpoints.
    number = endpoints * len(events) + both
    wanted, present = number[: len(errors)], number[len(errors) :]
    order = np.argsort(present)
    at = np.searchsorted(present[order], wanted)
    for neighbour in (at, at - 1):  # the change before the error is preferred
        valid = np.flatnonzero((neighbour >= 0) & (neighbour < len(present)))
        close = closed[order[neighbour[valid]]]
        same = endpoints[len(errors) :][order[neighbour[valid]]] == endpoints[valid]
        same &= np.abs(events["time"][close] - events["time"][errors[valid]]) < MAX_DISTANCE_S
        socket[errors[valid[same]]] = events["socket"][close[same]]
    return socket
