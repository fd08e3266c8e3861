"""QueueHistory against a slow copy that keeps every value."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.model.listeners.queue_history import QueueHistory
from tcpwatch.model.trends import TREND_S

DEPTHS = st.sampled_from((0, 0, 0, 1, 7))
POLLS = st.tuples(
    st.sampled_from((0.5, 1.0, 3.0, 119.0, 130.0)),
    st.dictionaries(st.integers(1, 4), st.tuples(DEPTHS, DEPTHS), max_size=4),
)


@given(st.lists(POLLS, min_size=1, max_size=8))
def test_the_history_has_every_peak(steps: list[tuple[float, dict[int, tuple[int, int]]]]) -> None:
    history, kept, time = QueueHistory(), dict[int, dict[int, list[int]]](), 1_000.0
    for elapsed_s, depths in steps:
        time += elapsed_s
        kept = {cookie: kept.get(cookie, {}) for cookie in sorted(depths)}
        for cookie, pair in depths.items():
            before = kept[cookie].get(int(time), (0, 0))
            kept[cookie][int(time)] = [max(values) for values in zip(before, pair, strict=True)]
        columns = np.array([depths[cookie] for cookie in kept], np.float64).reshape(-1, 2)
        history.add(time, np.array(list(kept), np.uint64), columns[:, 0], columns[:, 1])
        trend, slots = history.trend(), range(int(time) - TREND_S + 1, int(time) + 1)
        for cookie, values in kept.items():
            for queue, shown in enumerate((trend.accept_queue(cookie), trend.syn_queue(cookie))):
                wanted = [values[slot][queue] if slot in values else math.nan for slot in slots]
                np.testing.assert_array_equal(shown, wanted)
        recent = [max(values.get(slot, (0, 0))[1] for slot in slots[-10:]) for values in kept.values()]
        assert history.syn_peaks(10).tolist() == recent
    assert history.trend().accept_queue(99) == ()
