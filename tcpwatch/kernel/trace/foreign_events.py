"""Which trace events belong to sockets of other network namespaces, found without the polls.

The trace has all namespaces, and its last event of a socket has the cookie. Destroy events are those of this namespace:
a socket whose cookie none of them has is of another one, once there was time for its destroy event.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted, is_in_sorted
from tcpwatch.arrays.opaque_rows import take_rows
from tcpwatch.kernel.trace.trace_events import TraceEventKind

LATE_S = 0.4
"""How long after tcp_destroy_sock its destroy event may come; a work queue sends it mostly some milliseconds later."""
_TIME_BITS = 40
"""Nanoseconds since the first event: 18 minutes."""


def without_foreign(
    chunks: Sequence[NDArray[np.void]], own: NDArray[np.uint64], until: float
) -> tuple[list[NDArray[np.void]], int]:
    """Return chunks of TRACE_EVENTs without the changes of state of foreign sockets, and the number of these sockets.

    `own` are the cookies of the destroy events since the first of the trace events, ascending, which were read at
    `until` (monotonic seconds). Other events of foreign sockets stay, as they are counted for all namespaces together,
    but as those of no connection: without a socket, or a reset without a state.
    """
    ends = [np.flatnonzero(chunk["kind"] == TraceEventKind.DESTROYED) for chunk in chunks]
    address, cookie, time = (
        np.concatenate([chunk[name][at] for chunk, at in zip(chunks, ends, strict=True)])
        for name in ("socket", "cookie", "time")
    )
    if not len(address):
        return list(chunks), 0
    first, distinct = min(chunk["time"].min() for chunk in chunks if len(chunk)), np.unique(address)

    def keys(number: NDArray[np.intp], time: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return numbers in the order of sockets, then of time; negative for unknown sockets."""
        passed_ns = np.minimum((time - first) * 1e9, (1 << _TIME_BITS) - 1).astype(np.int64)
        key: NDArray[np.int64] = number.astype(np.int64) << _TIME_BITS | passed_ns
        return key

    end = keys(np.searchsorted(distinct, address), time)
    order = np.argsort(end)
    end, foreign = end[order], ~is_in_sorted(own, cookie[order]) & (time[order] < until - LATE_S)
    kept = []
    for chunk in chunks:
        number = find_sorted(distinct, chunk["socket"])
        following = np.minimum(np.searchsorted(end, keys(number, chunk["time"])), len(end) - 1)
        found = (number != NOT_FOUND) & (end[following] >> _TIME_BITS == number)
        found &= (end[following] >= keys(number, chunk["time"])) & foreign[following]
        needed = ~found | ~np.isin(chunk["kind"], (TraceEventKind.STATE, TraceEventKind.DESTROYED))
        left, found = take_rows(chunk, np.flatnonzero(needed)), found[needed]
        sent = left["kind"] == TraceEventKind.RESET_SENT  # one without a socket would be from a closed port
        left["socket"][found & ~sent], left["old"][found & sent] = 0, 0
        kept.append(left)
    return kept, int(np.count_nonzero(foreign))
