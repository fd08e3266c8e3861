"""Backlog: a bounded queue of event rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from tcpwatch.arrays.opaque_rows import concat_rows

Chunk = tuple[NDArray[Any], ...]
"""Aligned columns: arrays of equal length."""


Thin = Callable[[Sequence[Chunk]], Sequence[Chunk]]
"""Returns the chunks without rows that nobody needs."""


class Backlog:
    """Chunks in order of arrival. When there are too many rows, the oldest ones are dropped and counted."""

    def __init__(self, limit: int, nothing: Chunk, thin: Thin = list) -> None:
        """Keep the newest `limit` rows; `nothing` is a chunk without rows; `thin` is applied before any are dropped."""
        self._limit = limit
        self._nothing = nothing
        self._thin = thin
        self._added = limit
        """Rows added since `thin` was applied: it costs something, and may find nothing."""
        self._chunks: deque[Chunk] = deque()
        self._rows = 0
        self._dropped = 0

    def add(self, *chunk: NDArray[Any]) -> None:
        """Add columns of the same dtypes as `nothing`; the backlog owns them from now on."""
        self._chunks.append(chunk)
        self._rows += len(chunk[0])
        self._added += len(chunk[0])
        if self._rows > self._limit and self._added > self._limit // 4:
            self._chunks, self._added = deque(self._thin(self._chunks)), 0
            self._rows = sum(len(one[0]) for one in self._chunks)
        while (excess := self._rows - self._limit) > 0:
            oldest = self._chunks.popleft()
            dropped = min(excess, len(oldest[0]))
            self._rows -= dropped
            self._dropped += dropped
            if dropped < len(oldest[0]):
                self._chunks.appendleft(tuple(column[dropped:].copy() for column in oldest))

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """What the next take() returns, in parts."""
        return tuple(self._chunks)

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
