"""Backlog: a bounded queue of event rows."""

from __future__ import annotations

from collections import deque
from typing import Any

from numpy.typing import NDArray

from tcpwatch.arrays.opaque_rows import concat_rows

Chunk = tuple[NDArray[Any], ...]
"""Aligned columns: arrays of equal length."""


class Backlog:
    """Chunks in order of arrival. When there are too many rows, the oldest ones are dropped and counted."""

    def __init__(self, limit: int, nothing: Chunk) -> None:
        """Keep the newest `limit` rows; `nothing` is a chunk without rows."""
        self._limit = limit
        self._nothing = nothing
        self._chunks: deque[Chunk] = deque()
        self._rows = 0
        self._dropped = 0

    def add(self, *chunk: NDArray[Any]) -> None:
        """Add columns of the same dtypes as `nothing`; the backlog owns them from now on."""
        self._chunks.append(chunk)
        self._rows += len(chunk[0])
        while (excess := self._rows - self._limit) > 0:
            oldest = self._chunks.popleft()
            dropped = min(excess, len(oldest[0]))
            self._rows -= dropped
            self._dropped += dropped
            if dropped < len(oldest[0]):
                self._chunks.appendleft(tuple(column[dropped:].copy() for column in oldest))

    def take(self) -> tuple[Chunk, int]:
        """Remove and return all rows, concatenated, and the number of rows dropped since the last call."""
        chunks, dropped = list(self._chunks) or [self._nothing], self._dropped
        self._chunks, self._rows, self._dropped = deque(), 0, 0
        columns = [list(column) for column in zip(*chunks, strict=True)]
        del chunks
        taken = []
        while columns:  # each column's parts are freed before the next one is made
            taken.append(concat_rows(columns.pop(0)))
        return tuple(taken), dropped
