"""QueueHistory: depths of every listener's queues in the last two minutes, one value per second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.trends import TREND_S

_ACCEPT, _SYN = 0, 1


@dataclass(frozen=True, slots=True, eq=False)
class QueueTrend:
    """Peak depth of each queue in each second, oldest first; NaN for seconds without a poll."""

    _row: Mapping[int, int] = field(default_factory=dict)
    _values: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, TREND_S, 2), np.float32))

    def accept_queue(self, cookie: int) -> tuple[float, ...]:
        """Return the accept queue's peaks of the listener with this cookie; empty if there is none."""
        return self._peaks(cookie, _ACCEPT)

    def syn_queue(self, cookie: int) -> tuple[float, ...]:
        """Return the SYN queue's peaks; members of a SO_REUSEPORT group share them."""
        return self._peaks(cookie, _SYN)

    def _peaks(self, cookie: int, queue: int) -> tuple[float, ...]:
        row = self._row.get(cookie)
        return () if row is None else tuple(self._values[row, :, queue].tolist())


class QueueHistory:
    """One ring of TREND_S slots per present listener, 960 bytes each."""

    def __init__(self) -> None:
        self._row: dict[int, int] = {}
        self._values = np.full((0, TREND_S, 2), np.nan, np.float32)
        self._head = 0  # absolute number of the newest slot

    def add(self, time: float, cookies: Sequence[int], accept: Sequence[float], syn: Sequence[float]) -> None:
        """Add the depths of the present listeners at `time`, in seconds of a monotonic clock."""
        self._align(cookies)
        slot = int(time)
        new_slots = min(max(slot - self._head, 0), TREND_S)
        self._values[:, np.arange(slot - new_slots + 1, slot + 1) % TREND_S] = np.nan
        self._head = max(slot, self._head)
        current = self._values[:, slot % TREND_S]
        current[:] = np.fmax(current, np.array([accept, syn], np.float32).T)

    def _align(self, cookies: Sequence[int]) -> None:
        """Rearrange the rows so that they belong to these listeners in this order."""
        if list(self._row) == list(cookies):
            return
        values = np.full((len(cookies), TREND_S, 2), np.nan, np.float32)
        for at, cookie in enumerate(cookies):
            if cookie in self._row:
                values[at] = self._values[self._row[cookie]]
        self._row, self._values = {cookie: at for at, cookie in enumerate(cookies)}, values

    def syn_peaks(self, seconds: int) -> NDArray[np.intp]:
        """Return the SYN queue's peak in the last `seconds` for each listener of the last `add`."""
        recent = self._values[:, np.arange(self._head - seconds + 1, self._head + 1) % TREND_S, _SYN]
        peaks: NDArray[np.float32] = np.fmax.reduce(recent, axis=1, initial=0)  # a number wins against NaN
        return peaks.astype(np.intp)

    def trend(self) -> QueueTrend:
        """Return a copy of the whole history."""
        order = np.arange(self._head - TREND_S + 1, self._head + 1) % TREND_S
        return QueueTrend(self._row, self._values[:, order])
