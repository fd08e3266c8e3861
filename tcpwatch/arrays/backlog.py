"""Backlog: rows of events that wait to be taken, the newest so many of them."""

from __future__ import annotations

from collections import deque
from typing import Any

from numpy.typing import NDArray

from tcpwatch.arrays.opaque_rows import concat_rows

Chunk = tuple[NDArray[Any], ...]
"""Aligned columns: arrays of equal length."""


class Backlog:
    """Chunks in the order in which they came. Where nobody takes them, the oldest make room, and are counted."""

    def __init__(self, limit: int, nothing: Chunk) -> None:
        """Keeps `limit` rows, or as many as its newest chunk has; `nothing` is a chunk without a row."""
        self._limit = limit
        self._nothing = nothing
        self._chunks: deque[Chunk] = deque()
        self._rows = 0
        self._dropped = 0

    def add(self, *chunk: NDArray[Any]) -> None:
        """Columns of the dtypes of `nothing`; they belong to the backlog from now on."""
        self._chunks.append(chunk)
        self._rows += len(chunk[0])
        while self._rows > self._limit and len(self._chunks) > 1:
            size = len(self._chunks.popleft()[0])
            self._rows -= size
            self._dropped += size

    def take(self) -> tuple[Chunk, int]:
        """All that waits, joined, and how many rows made room since the last time."""
        chunks, dropped = list(self._chunks) or [self._nothing], self._dropped
        self._chunks, self._rows, self._dropped = deque(), 0, 0
        return tuple(concat_rows(parts) for parts in zip(*chunks, strict=True)), dropped
