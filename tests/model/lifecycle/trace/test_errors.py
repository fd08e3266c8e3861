"""Errors of the trace find their sockets."""

from __future__ import annotations

import errno
from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind
from tcpwatch.model.lifecycle.trace.errors import MAX_DISTANCE_S, event_sockets
from tcpwatch.model.states import State


class Event(NamedTuple):
    """An error where `socket` is 0, else a change of this socket to `new`."""

    ms: float
    port: int
    socket: int = 0
    new: State = State.CLOSED


def found(*events: Event) -> list[int]:
    table = np.zeros(len(events), TRACE_EVENT)
    for row, event in zip(table, events, strict=True):
        row["time"], row["sport"], row["dport"], row["socket"] = 5.0 + event.ms / 1000, event.port, 80, event.socket
        row["kind"] = TraceEventKind.STATE if event.socket else TraceEventKind.ERROR
        row["old"], row["new"] = (State.SYN_SENT, event.new) if event.socket else (0, 0)
        row["reason"] = 0 if event.socket else errno.EHOSTUNREACH
    table.flags.writeable = False
    return [int(socket) for socket in event_sockets(table)]


def test_an_error_is_of_the_socket_that_closed_just_before_it() -> None:
    assert found(Event(0, 1, 7), Event(0.004, 2, 8), Event(0.005, 1), Event(0.006, 2)) == [7, 8, 7, 8]


def test_an_error_just_before_its_change_as_of_older_kernels() -> None:
    assert found(Event(0, 1), Event(0.005, 1, 7), Event(0.006, 2, 8)) == [7, 7, 8]


def test_of_two_with_the_same_ends_it_is_the_one_before() -> None:
    assert found(Event(0, 1, 7), Event(0.1, 1), Event(0.15, 1, 8)) == [7, 7, 8]


def test_one_alone_is_nobody_s() -> None:
    assert found(Event(0, 1)) == [0]
    assert found(Event(0, 1, 7, State.ESTABLISHED), Event(0.005, 1)) == [7, 0]  # it stays open
    assert found(Event(0, 1, 7), Event(1.5, 1)) == [7, 0]  # too long ago
    assert found(Event(0, 1, 7), Event(0.1, 2)) == [7, 0]  # other ends
    assert found() == []


TIMES = st.integers(0, 15).map(lambda number: 0.3 * number)  # ms, of which no two are exactly MAX_DISTANCE_S apart
CHANGES = st.sampled_from([State.CLOSED, State.LISTEN])
EVENTS = st.lists(st.builds(Event, TIMES, st.integers(1, 3), st.integers(0, 4), CHANGES))


@given(EVENTS)
def test_as_one_by_one(events: list[Event]) -> None:
    events = sorted(events, key=lambda it: it.ms)
    expected = []
    for at, event in enumerate(events):
        beside = [
            (other < at, other if other < at else -other, one.socket)
            for other, one in enumerate(events)
            if one.port == event.port and one.socket and one.new is State.CLOSED
        ]
        # The nearest before, else the nearest after, if that is near enough.
        before = max((it for it in beside if it[0]), default=None)
        after = max((it for it in beside if not it[0]), default=None)
        near = [it for it in (before, after) if it and abs(events[abs(it[1])].ms - event.ms) < 1000 * MAX_DISTANCE_S]
        expected.append(event.socket or (near[0][2] if near else 0))
    assert found(*events) == expected
