"""The backlog of events: bounded, and in the order of arrival."""

from __future__ import annotations

import numpy as np
import pytest

from tcpwatch.arrays.backlog import Backlog


@pytest.mark.parametrize("chunks", [[3, 4, 5], [12], [1] * 12, [0, 11, 1], [5, 7]])
def test_the_newest_rows_are_kept_and_the_others_are_counted(chunks: list[int]) -> None:
    backlog = Backlog(10, (np.empty(0, np.int64), np.empty(0, np.float32)))
    numbers = np.arange(12)
    for part in np.split(numbers, np.cumsum(chunks)[:-1]):
        backlog.add(part, part.astype(np.float32))
    (number, figure), dropped = backlog.take()
    assert number.tolist() == figure.tolist() == list(range(2, 12))
    assert dropped == 2
    (number, _), dropped = backlog.take()
    assert (len(number), dropped) == (0, 0)
