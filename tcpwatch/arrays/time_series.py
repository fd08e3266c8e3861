"""TimeSeries: values over time in rings of three resolutions, so that a day fits into a megabyte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

TIERS = ((1.0, 600), (10.0, 720), (60.0, 1440))
"""(seconds per slot, slots): ten minutes in steps of 1 s, two hours of 10 s, a day of 1 min."""


class TimeSeries:
    """Named values over time. Each slot of a tier keeps the last value added to it, or NaN."""

    def __init__(self, names: Sequence[str], tiers: Sequence[tuple[float, int]] = TIERS) -> None:
        self.names = tuple(names)
        self._tiers = [_Tier(slot_s, slots, len(self.names)) for slot_s, slots in tiers]

    @property
    def nbytes(self) -> int:
        """Memory of all rings in bytes; it is constant."""
        return sum(tier.values.nbytes for tier in self._tiers)

    def add(self, time: float, figures: Mapping[str, float]) -> None:
        """Add values at `time` (seconds on a monotonic clock); a missing name becomes NaN."""
        row = np.array([figures.get(name, np.nan) for name in self.names], np.float32)
        for tier in self._tiers:
            tier.put(time, row)

    def window(self, seconds: float) -> tuple[float, NDArray[np.float32]]:
        """Return the slot length in seconds and the values of the last `seconds`: shape (slots, names), oldest first.

        They come from the finest tier that covers `seconds`. Slots before the first call of add() are left out.
        """
        tier = next((t for t in self._tiers if t.slot_s * t.slots >= seconds), self._tiers[-1])
        return tier.slot_s, tier.last(round(seconds / tier.slot_s))


class _Tier:
    def __init__(self, slot_s: float, slots: int, names: int) -> None:
        self.slot_s, self.slots = slot_s, slots
        self.values = np.full((slots, names), np.nan, np.float32)
        self._first: int | None = None
        self._head = 0  # absolute number of the newest slot

    def put(self, time: float, row: NDArray[np.float32]) -> None:
        slot = int(time // self.slot_s)
        if self._first is None:
            self._first = self._head = slot
        skipped = min(max(slot - self._head - 1, 0), self.slots)
        for empty in range(slot - skipped, slot):
            self.values[empty % self.slots] = np.nan
        self._head = max(slot, self._head)
        self.values[slot % self.slots] = row

    def last(self, slots: int) -> NDArray[np.float32]:
        if self._first is None:
            return self.values[:0]
        begin = max(self._first, self._head - min(slots, self.slots) + 1)
        return self.values[np.arange(begin, self._head + 1) % self.slots]
