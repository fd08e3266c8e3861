"""TimeSeries: a ring of one slot per second."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.arrays.time_series import TimeSeries


def values(points: dict[float, float], slots: int) -> list[float | None]:
    """Add these values to a series; return what it has then, None where nothing is known."""
    series = TimeSeries(["n"], slots)
    for time, value in points.items():
        series.add(time, {"n": value})
    return [None if np.isnan(value) else value for value in series.values()["n"]]


@pytest.mark.parametrize(
    ("points", "slots", "expected"),
    [
        ({}, 10, []),
        ({100.5: 1}, 10, [1]),
        ({100: 1, 101: 2, 102: 3}, 10, [1, 2, 3]),
        ({100: 1, 101: 2, 102: 3}, 2, [2, 3]),
        ({100.1: 1, 100.9: 2}, 10, [2]),  # the last value of a slot counts
        ({100: 1, 104: 2}, 10, [1, None, None, None, 2]),
        ({100: 1, 104: 2}, 3, [None, None, 2]),
        ({100: 1, 700: 2}, 3, [None, None, 2]),
        ({100: 1, 100_000: 2}, 3, [None, None, 2]),  # so long a gap empties the whole ring
    ],
)
def test_the_last_seconds(points: dict[float, float], slots: int, expected: list[float | None]) -> None:
    assert values(points, slots) == expected


def test_an_absent_figure_is_not_zero() -> None:
    series = TimeSeries(["a", "b"], 10)
    series.add(5, {"b": 7})
    kept = series.values()
    assert np.isnan(kept["a"]).tolist() == [True]
    assert kept["b"] == (7,)


TIMES = st.lists(st.floats(0.01, 400), min_size=1, max_size=60)


@given(TIMES, st.sampled_from([1, 3, 50, 600]))
def test_any_pace_gives_the_last_value_of_each_slot(pauses: list[float], slots: int) -> None:
    times = np.cumsum(pauses).tolist()
    kept = {int(time): number for number, time in enumerate(times)}
    begin = max(min(kept), max(kept) - slots + 1)
    points = {time: float(number) for number, time in enumerate(times)}
    assert values(points, slots) == [kept.get(slot) for slot in range(begin, max(kept) + 1)]
