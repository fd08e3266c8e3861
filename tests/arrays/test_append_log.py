"""The log of rows: what a View holds of it is part of its memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.append_log import AppendLog

ROW = np.dtype([("number", "=u4")])
CAPACITY = 96


def rows(first: int, count: int) -> NDArray[np.void]:
    return np.arange(first, first + count, dtype=np.uint32).view(ROW)


def memory(*held: tuple[NDArray[np.void], ...]) -> int:
    """Return the rows that these chunks take, each once, with the unused part of the newest."""
    bases = [chunk.base for part in held for chunk in part if chunk.base is not None]
    return sum(map(len, {id(base): base for base in bases}.values()))


def test_chunks_that_a_paused_view_holds_are_part_of_the_memory() -> None:
    log = AppendLog(ROW, CAPACITY)
    log.add(rows(0, CAPACITY))
    paused = log.chunks
    for number in range(CAPACITY, 10 * CAPACITY):
        log.add(rows(number, 1))
        assert memory(paused, log.chunks) <= CAPACITY * 4 / 3
    assert log.chunks[-1]["number"][-1] == 10 * CAPACITY - 1
    assert np.concatenate(paused)["number"].tolist() == list(range(CAPACITY))
    del paused
    log.add(rows(10 * CAPACITY, CAPACITY))
    assert len(log) > CAPACITY * 3 / 4, "there is room again"


def test_the_previous_view_does_not_shorten_what_is_kept() -> None:
    log = AppendLog(ROW, CAPACITY)
    view = log.chunks
    for step in range(50):
        log.add(rows(step * 10, 10))
        assert memory(view, log.chunks) <= CAPACITY * 4 / 3
        view = log.chunks
    assert len(log) >= CAPACITY * 3 / 4
