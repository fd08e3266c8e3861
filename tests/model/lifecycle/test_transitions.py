"""Transitions in a bounded log whose chunks never change."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.arrays.append_log import CHUNK, AppendLog
from tcpwatch.model.lifecycle.transitions import (
    TRANSITION,
    Origin,
    Transition,
    TransitionIndex,
    transition_rows,
)
from tcpwatch.model.states import State

Change = tuple[int, int, int]
"""Cookie, old state, new state; 0 for none."""


def add(log: AppendLog, time: float, changes: list[Change]) -> None:
    cookie, old, new = zip(*changes, strict=True) if changes else ((), (), ())
    log.add(
        transition_rows(
            time, np.array(cookie, np.uint64), np.array(old, np.uint8), np.array(new, np.uint8), Origin.POLL
        )
    )


def transition(time: float, old: int, new: int) -> Transition:
    return Transition(time, State(old) if old else None, State(new) if new else None, Origin.POLL)


def test_transitions_of_a_connection() -> None:
    log = AppendLog(TRANSITION, 1000)
    add(log, 1.0, [(7, 0, 3), (9, 0, 1)])
    add(log, 2.0, [(7, 3, 1)])
    add(log, 3.0, [])
    add(log, 4.5, [(9, 1, 0), (7, 1, 8)])
    found = TransitionIndex().find(log.chunks, [7, 9, 8, 7 + (1 << 16)])
    assert found[7] == (transition(1.0, 0, 3), transition(2.0, 3, 1), transition(4.5, 1, 8))
    assert found[9] == (transition(1.0, 0, 1), transition(4.5, 1, 0))
    assert found[8] == found[7 + (1 << 16)] == ()
    assert len(log) == log.written == 5


def test_late_transitions_are_in_the_order_of_time() -> None:
    log = AppendLog(TRANSITION, 1000)
    add(log, 2.0, [(7, 1, 8)])
    add(log, 1.0, [(7, 0, 1)])
    assert [one.time for one in TransitionIndex().find(log.chunks, [7])[7]] == [1.0, 2.0]


def test_an_empty_log() -> None:
    assert TransitionIndex().find(AppendLog(TRANSITION, 10).chunks, [0]) == {0: ()}


def test_memory_is_bounded() -> None:
    log = AppendLog(TRANSITION, 100)
    for time in range(50):
        add(log, float(time), [(cookie, 1, 8) for cookie in range(7)])
    assert 75 <= len(log) <= 100
    assert log.written == 350
    assert TransitionIndex().find(log.chunks, [6])[6][-1].time == 49.0


def test_an_index_finds_new_transitions() -> None:
    log, index = AppendLog(TRANSITION, 4 * CHUNK), TransitionIndex()
    for time in range(5):
        add(log, float(time), [(cookie, 0, 1) for cookie in range(time * CHUNK, (time + 1) * CHUNK)] + [(3, 1, 8)])
        found = index.find(log.chunks, [3, time * CHUNK + 7])
        assert [one.time for one in found[3]][-1] == time
        assert [one.time for one in found[time * CHUNK + 7]] == [time]


def test_chunks_do_not_change() -> None:
    log = AppendLog(TRANSITION, 4 * CHUNK)
    add(log, 1.0, [(1, 0, 1)])
    held = log.chunks
    add(log, 2.0, [(cookie, 0, 1) for cookie in range(6 * CHUNK)])
    assert TransitionIndex().find(held, [1])[1] == (transition(1.0, 0, 1),)
    assert not held[0].flags.writeable
    assert len(log) <= 4 * CHUNK


CHANGES = st.tuples(st.sampled_from([1, 2, 2**64 - 1]), st.integers(0, 11), st.integers(0, 11))


@given(st.integers(4, 40), st.lists(st.lists(CHANGES, max_size=30), max_size=8))
def test_the_last_transitions_are_kept(capacity: int, rounds: list[list[Change]]) -> None:
    log = AppendLog(TRANSITION, capacity)
    everything = []
    for time, changes in enumerate(rounds):
        add(log, float(time), changes)
        everything += [(float(time), *change) for change in changes]
    kept = len(log)
    assert min(len(everything), capacity // 2) <= kept <= capacity
    last = everything[len(everything) - kept :]
    for cookie in (1, 2, 2**64 - 1):
        expected = tuple(transition(time, old, new) for time, who, old, new in last if who == cookie)
        assert TransitionIndex().find(log.chunks, [cookie])[cookie] == expected
