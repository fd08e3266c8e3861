"""The ring of changes of state."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.model.states import State
from tcpwatch.model.transitions import Origin, Transition, Transitions

Change = tuple[int, int, int]
"""Cookie, old state, new state; 0 for none."""


def add(ring: Transitions, time: float, changes: list[Change]) -> None:
    cookie, old, new = zip(*changes, strict=True) if changes else ((), (), ())
    columns = np.array(cookie, np.uint64), np.array(old, np.uint8), np.array(new, np.uint8)
    ring.add(time, *columns, Origin.POLL)


def transition(time: float, old: int, new: int) -> Transition:
    return Transition(time, State(old) if old else None, State(new) if new else None, Origin.POLL)


def test_a_flow_s_story() -> None:
    ring = Transitions()
    add(ring, 1.0, [(7, 0, 3), (9, 0, 1)])
    add(ring, 2.0, [(7, 3, 1)])
    add(ring, 3.0, [])
    add(ring, 4.5, [(9, 1, 0), (7, 1, 8)])
    assert ring.of(7) == (transition(1.0, 0, 3), transition(2.0, 3, 1), transition(4.5, 1, 8))
    assert ring.of(9) == (transition(1.0, 0, 1), transition(4.5, 1, 0))
    assert ring.of(8) == ()
    assert len(ring) == 5


def test_an_empty_ring_knows_no_flow() -> None:
    assert Transitions().of(0) == ()


def test_memory_is_bounded() -> None:
    ring = Transitions(100)
    for time in range(50):
        add(ring, float(time), [(cookie, 1, 8) for cookie in range(7)])
    assert len(ring) == 100
    assert ring.of(6)[-1].time == 49.0
    assert 19 * (1 << 18) < 5_000_000  # the usual ring: 5 MB


CHANGES = st.tuples(st.sampled_from([1, 2, 2**64 - 1]), st.integers(0, 11), st.integers(0, 11))


@given(st.integers(1, 12), st.lists(st.lists(CHANGES, max_size=30), max_size=8))
def test_the_last_ones_stay_whatever_came(capacity: int, rounds: list[list[Change]]) -> None:
    ring = Transitions(capacity)
    everything = []
    for time, changes in enumerate(rounds):
        add(ring, float(time), changes)
        everything += [(float(time), *change) for change in changes]
    kept = everything[-capacity:]
    assert len(ring) == len(kept)
    for cookie in (1, 2, 2**64 - 1):
        expected = [transition(time, old, new) for time, of, old, new in kept if of == cookie]
        assert ring.of(cookie) == tuple(expected)
