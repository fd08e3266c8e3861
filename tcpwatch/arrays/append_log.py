"""AppendLog: a bounded, append-only store of rows.

Rows are kept in chunks. The written part of a chunk never changes, so that a View may hold it while rows are added.
When there are too many chunks, the oldest one is dropped as a whole. As long as a View holds it, it takes memory
nevertheless: if there are many such chunks, during a pause or in a step that adds many rows, fewer are kept.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.opaque_rows import make_read_only

CHUNK = 4_096
"""Rows of a chunk; small logs have smaller chunks."""


class AppendLog:
    """The last `capacity` rows of one dtype, or up to a chunk fewer; memory is bounded to 4/3 of that."""

    def __init__(self, dtype: np.dtype[Any], capacity: int) -> None:
        self._dtype = dtype
        self._size = max(1, min(CHUNK, capacity // 4))
        self._most = max(2, capacity // self._size)
        self._chunks: deque[NDArray[np.void]] = deque()
        self._dropped: list[weakref.ref[NDArray[np.void]]] = []
        """Chunks that are not kept; some may still be held by others."""
        self._used = self._size
        """Rows written to the newest chunk."""
        self.written = 0
        """Rows added since the log was made."""

    def __len__(self) -> int:
        return sum(map(len, self.chunks))

    def add(self, rows: NDArray[np.void]) -> None:
        """Append rows; if they do not all fit, keep the last ones."""
        self.written += len(rows)
        rows = rows[max(0, len(rows) - self._size * self._most) :]
        while len(rows):
            if self._used == self._size:
                self._make_room()
                self._chunks.append(np.empty(self._size, self._dtype))
                self._used = 0
            part = rows[: self._size - self._used]
            self._chunks[-1][self._used : self._used + len(part)] = part
            self._used += len(part)
            rows = rows[len(part) :]

    def _make_room(self) -> None:
        """Drop the oldest chunks, until there is room for one more, together with those that others hold."""
        spare = max(1, self._most // 3)
        while self._chunks:
            self._dropped = [chunk for chunk in self._dropped if chunk() is not None]
            if len(self._chunks) < max(spare, self._most - max(0, len(self._dropped) - spare)):
                return
            self._dropped.append(weakref.ref(self._chunks.popleft()))

    @property
    def chunks(self) -> tuple[NDArray[np.void], ...]:
        """Read-only views of the rows that are kept, oldest chunk first."""
        views = [chunk[: self._used if at == len(self._chunks) - 1 else None] for at, chunk in enumerate(self._chunks)]
        make_read_only(*views)
        return tuple(views)
