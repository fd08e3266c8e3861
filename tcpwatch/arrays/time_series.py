"""History: the numbers that sparklines draw, in rings of three resolutions, so that a day fits into a megabyte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

TIERS = ((1.0, 600), (10.0, 720), (60.0, 1440))
"""(seconds a slot, slots): ten minutes by the second, two hours by ten seconds, a day by the minute."""


class TimeSeries:
    """Named figures over time. Each slot of a tier keeps the last value that fell into it; NaN where none did."""

    def __init__(self, names: Sequence[str], tiers: Sequence[tuple[float, int]] = TIERS) -> None:
        self.names = tuple(names)
        self._tiers = [_Tier(slot_s, slots, len(self.names)) for slot_s, slots in tiers]

    @property
    def nbytes(self) -> int:
        """Memory of all rings; it never grows."""
        return sum(tier.values.nbytes for tier in self._tiers)

    def add(self, time: float, figures: Mapping[str, float]) -> None:
        """Figures at `time` (seconds of a clock that does not go back); a name that is absent becomes NaN."""
        row = np.array([figures.get(name, np.nan) for name in self.names], np.float32)
        for tier in self._tiers:
            tier.put(time, row)

    def window(self, seconds: float) -> tuple[float, NDArray[np.float32]]:
        """The last `seconds`: slot length in seconds, and values of shape (slots, names), oldest first.

        From the finest tier that reaches so far; slots before the first `add` are left out.
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
