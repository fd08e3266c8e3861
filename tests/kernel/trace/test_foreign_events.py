"""Trace events of other namespaces' sockets, which are left out where there are too many."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tcpwatch.arrays.backlog import Backlog
from tcpwatch.kernel.trace.foreign_events import LATE_S, without_foreign
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind

K = TraceEventKind
OURS, FOREIGN, NO_SOCKET = 0xFFFF_8880_0000_1000, 0xFFFF_8880_0000_2000, 0
OWN = np.array([7, 9], np.uint64)

Event = tuple[float, int, TraceEventKind, int]
"""Time, kernel address, kind, cookie."""


def table(*events: Event) -> NDArray[np.void]:
    made = np.zeros(len(events), TRACE_EVENT)
    for row, values in zip(made, events, strict=True):
        row["time"], row["socket"], row["kind"], row["cookie"] = values
    return made


def left(*chunks: NDArray[np.void], until: float = 100.0) -> tuple[list[float], int]:
    """The times of the events that are left, and the number of foreign sockets."""
    kept, foreign = without_foreign(chunks, OWN, until)
    return [time for chunk in kept for time in chunk["time"].tolist()], foreign


def test_sockets_that_no_destroy_event_has_are_left_out() -> None:
    ours = table((1.0, OURS, K.STATE, 0), (1.2, OURS, K.STATE, 0), (1.4, OURS, K.DESTROYED, 7))
    other = table((1.1, FOREIGN, K.STATE, 0), (1.3, FOREIGN, K.STATE, 0), (1.5, FOREIGN, K.DESTROYED, 8))
    assert left(np.sort(np.concatenate((ours, other)), order="time")) == ([1.0, 1.2, 1.4], 1)
    assert left(other[:1], ours, other[1:]) == ([1.0, 1.2, 1.4], 1), "its events are in two chunks"


def test_an_address_may_be_used_by_several_sockets() -> None:
    first = table((1.0, OURS, K.STATE, 0), (1.1, OURS, K.DESTROYED, 8))
    second = table((1.2, OURS, K.STATE, 0), (1.3, OURS, K.DESTROYED, 9))
    third = table((1.4, OURS, K.STATE, 0))
    assert left(np.concatenate((first, second, third))) == ([1.2, 1.3, 1.4], 1)


@pytest.mark.parametrize(
    "events",
    [
        table((1.0, FOREIGN, K.STATE, 0)),
        table((1.0, NO_SOCKET, K.RESET_SENT, 0), (1.1, NO_SOCKET, K.ERROR, 0)),
        table((1.0, FOREIGN, K.STATE, 0), (99.7, FOREIGN, K.DESTROYED, 8)),
        table(),
    ],
    ids=["open", "without a socket", "its destroy event may be late", "nothing"],
)
def test_what_stays(events: NDArray[np.void]) -> None:
    assert left(events) == (events["time"].tolist(), 0)


def test_what_is_counted_for_all_namespaces_stays_as_that_of_no_connection() -> None:
    kinds = K.STATE, K.RETRANSMIT, K.RESET_RECEIVED, K.RESET_SENT, K.DROP
    events = table(*((1.0 + at, FOREIGN, kind, 0) for at, kind in enumerate(kinds)), (9.0, FOREIGN, K.DESTROYED, 8))
    events["old"] = events["new"] = 1
    (kept,), foreign = without_foreign([events], OWN, 100.0)
    assert foreign == 1
    assert kept["kind"].tolist() == list(kinds[1:])
    assert [bool(one["socket"]) for one in kept] == [one["kind"] == K.RESET_SENT for one in kept]
    assert not kept["old"][kept["kind"] == K.RESET_SENT].any()


def test_a_backlog_that_is_full_has_room_again() -> None:
    """Events of ours are not dropped while there are others that nobody needs."""
    found = 0

    def thin(chunks: object) -> list[tuple[NDArray[np.void]]]:
        nonlocal found
        kept, foreign = without_foreign([chunk[0] for chunk in chunks], OWN, 1e9)  # type: ignore[attr-defined]
        found += foreign
        return [(chunk,) for chunk in kept]

    backlog = Backlog(100, (table(),), thin)
    backlog.add(table((0.0, OURS, K.STATE, 0), (0.1, OURS, K.DESTROYED, 7)))
    for at in range(1_000):
        backlog.add(table((1.0 + at, FOREIGN, K.STATE, 0), (1.0 + at + LATE_S, FOREIGN, K.DESTROYED, 1_000 + at)))
    (events,), dropped = backlog.take()
    assert events["time"][:2].tolist() == [0.0, 0.1]
    assert dropped == 0
    assert found + int(np.count_nonzero(events["socket"] == FOREIGN)) // 2 == 1_000
