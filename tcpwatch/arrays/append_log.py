"""Log: a bounded store to which rows are appended and that never changes what it has.

Rows lie in chunks. A chunk's written part is never touched again, so that a View may hold it while the log goes on;
the oldest chunk goes as a whole when there are too many.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 4_096
"""Rows of a chunk; those of small logs are smaller."""


class AppendLog:
    """The last `capacity` rows of one dtype, and up to a chunk less."""

    def __init__(self, dtype: np.dtype[Any], capacity: int) -> None:
        self._dtype = dtype
        self._size = max(1, min(CHUNK, capacity // 4))
        self._most = max(2, capacity // self._size)
        self._chunks: deque[NDArray[np.void]] = deque()
        self._used = self._size
        """Rows written to the newest chunk."""
        self.written = 0
        """Rows that were ever added."""

    def __len__(self) -> int:
        return sum(map(len, self.chunks))

    def add(self, rows: NDArray[np.void]) -> None:
        """Append these rows; of more than fit, the last ones stay."""
        self.written += len(rows)
        rows = rows[max(0, len(rows) - self._size * self._most) :]
        while len(rows):
            if self._used == self._size:
                if len(self._chunks) == self._most:
                    self._chunks.popleft()
                self._chunks.append(np.empty(self._size, self._dtype))
                self._used = 0
            part = rows[: self._size - self._used]
            self._chunks[-1][self._used : self._used + len(part)] = part
            self._used += len(part)
            rows = rows[len(part) :]

    @property
    def chunks(self) -> tuple[NDArray[np.void], ...]:
        """What is kept, oldest first: views that stay as they are."""
        views = [chunk[: self._used if at == len(self._chunks) - 1 else None] for at, chunk in enumerate(self._chunks)]
        for view in views:
            view.flags.writeable = False
        return tuple(views)
