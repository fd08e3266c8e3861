"""The last two minutes of every listener's queues, by the second, for sparklines and for rules that look back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SLOT_S = 1.0
SLOTS = 120
_ACCEPT, _SYN = 0, 1


@dataclass(frozen=True, slots=True, eq=False)
class QueueTrend:
    """The deepest that each queue was seen in each slot, oldest first; NaN where nothing was polled."""

    slot_s: float = SLOT_S
    _row: Mapping[int, int] = field(default_factory=dict)
    _values: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, SLOTS, 2), np.float32))

    def accept_queue(self, cookie: int) -> tuple[float, ...]:
        """Of the listener with this cookie; empty where it is not known."""
        return self._of(cookie, _ACCEPT)

    def syn_queue(self, cookie: int) -> tuple[float, ...]:
        """The same of its SYN queue, which it shares with its SO_REUSEPORT group."""
        return self._of(cookie, _SYN)

    def _of(self, cookie: int, queue: int) -> tuple[float, ...]:
        row = self._row.get(cookie)
        return () if row is None else tuple(self._values[row, :, queue].tolist())


class QueueHistory:
    """Rings of SLOTS for as many listeners as there are now: 960 bytes each."""

    def __init__(self) -> None:
        self._row: dict[int, int] = {}
        self._values = np.full((0, SLOTS, 2), np.nan, np.float32)
        self._head = 0  # absolute number of the newest slot

    def add(self, time: float, cookies: Sequence[int], accept: Sequence[float], syn: Sequence[float]) -> None:
        """The depths at `time` (seconds of a clock that does not go back) of the listeners that there are now."""
        self._align(cookies)
        slot = int(time // SLOT_S)
        fresh = min(max(slot - self._head, 0), SLOTS)
        self._values[:, np.arange(slot - fresh + 1, slot + 1) % SLOTS] = np.nan
        self._head = max(slot, self._head)
        here = self._values[:, slot % SLOTS]
        here[:] = np.fmax(here, np.array([accept, syn], np.float32).T)

    def _align(self, cookies: Sequence[int]) -> None:
        """Rows for these listeners in this order, with what is known of them."""
        if list(self._row) == list(cookies):
            return
        values = np.full((len(cookies), SLOTS, 2), np.nan, np.float32)
        for at, cookie in enumerate(cookies):
            if cookie in self._row:
                values[at] = self._values[self._row[cookie]]
        self._row, self._values = {cookie: at for at, cookie in enumerate(cookies)}, values

    def syn_peaks(self, seconds: int) -> NDArray[np.intp]:
        """The deepest SYN queue of the last `seconds`, for each listener of the last `add`."""
        recent = self._values[:, np.arange(self._head - seconds + 1, self._head + 1) % SLOTS, _SYN]
        deepest: NDArray[np.float32] = np.fmax.reduce(recent, axis=1, initial=0)  # NaN loses against 0
        return deepest.astype(np.intp)

    def trend(self) -> QueueTrend:
        """All of it, as it is now."""
        order = np.arange(self._head - SLOTS + 1, self._head + 1) % SLOTS
        return QueueTrend(SLOT_S, self._row, self._values[:, order])
