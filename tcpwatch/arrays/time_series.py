"""TimeSeries: values of the last seconds, one slot per second."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

K = TypeVar("K", bound=Hashable)


class TimeSeries(Generic[K]):
    """A ring of slots for some keys. Each slot keeps the last value added to it, or NaN."""

    def __init__(self, keys: Sequence[K], slots: int) -> None:
        self._keys = keys
        self._slots = slots
        self._values = np.full((slots, len(keys)), np.nan, np.float32)
        self._first: int | None = None
        self._head = 0  # absolute number of the newest slot

    def add(self, time: float, figures: Mapping[K, float]) -> None:
        """Add values at `time` (seconds on a monotonic clock); a missing key becomes NaN."""
        slot = int(time)
        if self._first is None:
            self._first = self._head = slot
        skipped = min(max(slot - self._head - 1, 0), self._slots)
        self._values[np.arange(slot - skipped, slot) % self._slots] = np.nan
        self._head = max(slot, self._head)
        self._values[slot % self._slots] = [figures.get(key, np.nan) for key in self._keys]

    def values(self) -> dict[K, tuple[float, ...]]:
        """Return key → its values, oldest first. Slots before the first call of add() are left out."""
        if self._first is None:
            return dict.fromkeys(self._keys, ())
        begin = max(self._first, self._head - self._slots + 1)
        columns = self._values[np.arange(begin, self._head + 1) % self._slots].T.tolist()
        return dict(zip(self._keys, map(tuple, columns), strict=True))
