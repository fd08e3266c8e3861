"""Large tables whose memory is used again, because fresh pages cost as much as all the decoding does.

A million sockets fill 82 MB: to take it anew each poll costs 20,000 page faults, 0.05 s of 0.3 s (Linux 6.18, in a VM).
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KEPT = 4
"""Tables in use at once: one that is being filled, the one that it is sorted into, the newest sample's, and the one
that the screen still shows in a pause."""


class ArrayPool:
    """Arrays of one dtype. What `take` gives belongs to the caller for as long as it, or a view of it, is held."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._arrays: list[NDArray[Any]] = []

    def take(self, size: int) -> NDArray[Any]:
        """An array of at least `size` items, of any content, which nobody else holds."""
        idle = [at for at in range(len(self._arrays)) if sys.getrefcount(self._arrays[at]) == _IDLE]
        for at in idle:
            # One that is far too large goes: after a flood its memory is given back.
            if size <= len(self._arrays[at]) <= 4 * size + 65_536:
                return self._arrays[at]
        for at in reversed(idle):
            del self._arrays[at]
        # With room to spare, so that each serves for the next poll's table too, which is a little larger.
        array = np.empty(size + size // 4, self._dtype)
        if len(self._arrays) < _KEPT:
            self._arrays.append(array)
        return array


class GrowingTable:
    """A growing table, made of pooled arrays."""

    def __init__(self, pool: ArrayPool, expected: int) -> None:
        self._pool = pool
        self._length = 0
        self._table = pool.take(expected)

    def reserve(self, count: int) -> NDArray[Any]:
        """The next `count` rows, to be written to."""
        begin, end = self._length, self._length + count
        if end > len(self._table):
            larger = self._pool.take(end + end // 4)
            larger[:begin] = self._table[:begin]
            self._table = larger
        self._length = end
        return self._table[begin:end]

    def written_rows(self) -> NDArray[Any]:
        """What was written."""
        return self._table[: self._length]


def _references_when_idle() -> int:
    """What getrefcount says of an array that only a list holds: a view counts, as its `base` is the array."""
    held = [np.empty(1)]
    return min(sys.getrefcount(held[at]) for at in range(1))


_IDLE = _references_when_idle()
