"""Pools of large arrays whose memory is used again.

A million sockets fill 82 MB. Allocating that for each poll costs 20,000 page faults: 0.05 s of 0.3 s (Linux 6.18, in a
VM), as much as the decoding.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KEPT = 4
"""Tables in use at once: the one that is filled, the one that it is sorted into, the newest sample's, and the one that
the screen shows during a pause."""


class ArrayPool:
    """Arrays of one dtype. An array from take() belongs to the caller while the array or a view of it is referenced."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._arrays: list[NDArray[Any]] = []

    def take(self, size: int) -> NDArray[Any]:
        """Return an array of at least `size` items, with arbitrary content, that is not in use."""
        idle = [at for at in range(len(self._arrays)) if sys.getrefcount(self._arrays[at]) == _IDLE]
        for at in idle:
            # An array that is far too large is dropped: after a flood its memory is freed.
            if size <= len(self._arrays[at]) <= 4 * size + 65_536:
                return self._arrays[at]
        for at in reversed(idle):
            del self._arrays[at]
        # With spare room, so that the array also fits the next poll's table, which may be a little larger.
        array = np.empty(size + size // 4, self._dtype)
        if len(self._arrays) < _KEPT:
            self._arrays.append(array)
        return array


class GrowingTable:
    """A table that grows; its arrays come from a pool."""

    def __init__(self, pool: ArrayPool, expected: int) -> None:
        self._pool = pool
        self._length = 0
        self._table = pool.take(expected)

    def reserve(self, count: int) -> NDArray[Any]:
        """Return the next `count` rows, for the caller to fill."""
        begin, end = self._length, self._length + count
        if end > len(self._table):
            larger = self._pool.take(end + end // 4)
            larger[:begin] = self._table[:begin]
            self._table = larger
        self._length = end
        return self._table[begin:end]

    def written_rows(self) -> NDArray[Any]:
        """Return the rows reserved so far."""
        return self._table[: self._length]


def _references_when_idle() -> int:
    """Return getrefcount() of an array that only a list references; a view adds one, as its `base` is the array."""
    held = [np.empty(1)]
    return min(sys.getrefcount(held[at]) for at in range(1))


_IDLE = _references_when_idle()
