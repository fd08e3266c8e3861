"""Equal numbers brought together."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.arrays.group_by import group_by, mix_bits

NUMBERS = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1), st.integers(0, 5).map(lambda n: n << 48))


@given(st.lists(NUMBERS, max_size=60))
def test_same_groups_as_a_dictionary(numbers: list[int]) -> None:
    array = np.array(numbers, np.uint64)
    groups = group_by(array)
    assert dict(zip(array[groups.first].tolist(), groups.size.tolist(), strict=True)) == Counter(numbers)
    assert sorted(groups.order.tolist()) == list(range(len(numbers)))
    values = np.arange(len(numbers))
    sums, least = groups.sums(values), groups.least(values)
    for at, number in enumerate(array[groups.first].tolist()):
        members = [place for place, other in enumerate(numbers) if other == number]
        assert (sums[at], least[at]) == (sum(members), members[0])


def test_many_numbers_that_share_their_sixteen_bits() -> None:
    numbers = np.random.default_rng(1).permutation(np.repeat(np.arange(200_000, dtype=np.uint64), 2))
    groups = group_by(numbers)
    assert len(groups) == 200_000
    assert (groups.size == 2).all()
    assert np.array_equal(np.sort(numbers[groups.first]), np.arange(200_000))


@given(st.lists(NUMBERS, max_size=60, unique=True))
def test_mixing_is_one_to_one(numbers: list[int]) -> None:
    assert len(set(mix_bits(np.array(numbers, np.uint64)).tolist())) == len(numbers)
