"""Series: rings of three resolutions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.arrays.time_series import TIERS, TimeSeries


def values(series: TimeSeries, seconds: float) -> list[float | None]:
    """One figure's window, None where nothing is known."""
    _, window = series.window(seconds)
    return [None if np.isnan(value) else float(value) for value in window[:, 0]]


def series_of(points: dict[float, float]) -> TimeSeries:
    series = TimeSeries(["n"])
    for time, value in points.items():
        series.add(time, {"n": value})
    return series


@pytest.mark.parametrize(
    ("points", "seconds", "expected"),
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
def test_the_last_seconds(points: dict[float, float], seconds: float, expected: list[float | None]) -> None:
    assert values(series_of(points), seconds) == expected


@pytest.mark.parametrize(("seconds", "slot_s"), [(120, 1), (600, 1), (601, 10), (7200, 10), (7201, 60), (10**6, 60)])
def test_the_finest_ring_that_reaches_so_far(seconds: float, slot_s: float) -> None:
    assert series_of({0: 1}).window(seconds)[0] == slot_s


def test_an_absent_figure_is_not_zero() -> None:
    series = TimeSeries(["a", "b"])
    series.add(5, {"b": 7})
    _, window = series.window(10)
    assert window.shape == (1, 2)
    assert np.isnan(window[0, 0])
    assert window[0, 1] == 7


def test_a_day_fits_and_never_grows() -> None:
    series = TimeSeries([str(number) for number in range(11)])
    before = series.nbytes
    assert before < 2**20
    assert before == sum(slots for _, slots in TIERS) * 11 * 4
    figures = dict.fromkeys(series.names, 1.0)
    for time in range(0, 86_400 * 3, 30):
        series.add(time, figures)
    assert series.nbytes == before
    slot_s, window = series.window(86_400)
    assert (slot_s, len(window)) == (60, 1440)
    assert (window == 1).all()


TIMES = st.lists(st.floats(0.01, 400), min_size=1, max_size=60)


@given(TIMES, st.sampled_from([3, 50, 600, 3000, 86_400]))
def test_any_pace_gives_the_last_value_of_each_slot(pauses: list[float], seconds: int) -> None:
    times = np.cumsum(pauses).tolist()
    slots: dict[int, dict[int, float]] = {1: {}, 10: {}, 60: {}}
    for number, time in enumerate(times):
        for slot_s, kept in slots.items():
            kept[int(time // slot_s)] = number
    series = series_of(dict(zip(times, map(float, range(len(times))), strict=True)))
    slot_s = int(series.window(seconds)[0])
    kept = slots[slot_s]
    newest, oldest = max(kept), min(kept)
    begin = max(oldest, newest - round(seconds / slot_s) + 1)
    assert values(series, seconds) == [kept.get(slot) for slot in range(begin, newest + 1)]
