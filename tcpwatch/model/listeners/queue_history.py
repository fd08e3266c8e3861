"""QueueHistory: depths of every listener's queues in the last two minutes, one value per second.

Most queues are always empty: only those that held something have memory of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.model.trends import TREND_S

_ACCEPT, _SYN = 0, 1


@dataclass(frozen=True, slots=True, eq=False)
class QueueTrend:
    """Peak depth of each queue in each second, oldest first; NaN for seconds without a poll."""

    _row: Mapping[int, int] = field(default_factory=dict)
    _values: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, TREND_S, 2), np.float32))
    _cookie: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    """All listeners, ascending."""
    _begin: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    """The first second of each of them."""
    _empty: NDArray[np.float32] = field(default_factory=lambda: np.empty((TREND_S, 2), np.float32))
    """The values of queues that were always empty."""

    def accept_queue(self, cookie: int) -> tuple[float, ...]:
        """Return the accept queue's peaks of the listener with this cookie; empty if there is none."""
        return self._peaks(cookie, _ACCEPT)

    def syn_queue(self, cookie: int) -> tuple[float, ...]:
        """Return the SYN queue's peaks; members of a SO_REUSEPORT group share them."""
        return self._peaks(cookie, _SYN)

    def _peaks(self, cookie: int, queue: int) -> tuple[float, ...]:
        if (row := self._row.get(cookie)) is not None:
            return tuple(self._values[row, :, queue].tolist())
        at = int(find_sorted(self._cookie, np.array([cookie], np.uint64))[0])
        if at == NOT_FOUND:
            return ()
        begin = int(self._begin[at])
        return (math.nan,) * begin + tuple(self._empty[begin:, queue].tolist())


class QueueHistory:
    """One ring of TREND_S slots, 960 bytes, per listener whose queues were not empty all the time."""

    def __init__(self) -> None:
        self._cookie = np.empty(0, np.uint64)
        self._first, self._ring = np.empty(0, np.int64), np.empty(0, np.intp)
        """Of each listener: the absolute number of its first slot, and the index of its ring, or NOT_FOUND."""
        self._rings = np.empty((0, TREND_S, 2), np.float32)
        self._empty = np.full((TREND_S, 2), np.nan, np.float32)
        """The ring of a listener whose queues are always empty."""
        self._head = 0  # absolute number of the newest slot
        self._swept = 0

    def add(self, time: float, cookies: NDArray[np.uint64], accept: NDArray[Any], syn: NDArray[Any]) -> None:
        """Add the depths of the present listeners, ascending, at `time`, in seconds of a monotonic clock.

        An accept queue whose depth is not known is NaN.
        """
        slot = int(time)
        self._align(cookies, slot)
        new_slots = np.arange(slot - min(max(slot - self._head, 0), TREND_S) + 1, slot + 1) % TREND_S
        self._empty[new_slots] = self._rings[:, new_slots] = np.nan
        self._head = max(slot, self._head)
        self._empty[slot % TREND_S] = math.nan if np.isnan(accept).all() else 0, 0
        self._add_rings(np.flatnonzero(((accept > 0) | (syn > 0)) & (self._ring == NOT_FOUND)))
        has_ring = np.flatnonzero(self._ring != NOT_FOUND)
        current, depths = self._rings[:, slot % TREND_S], np.stack((accept[has_ring], syn[has_ring]), axis=1)
        current[self._ring[has_ring]] = np.fmax(current[self._ring[has_ring]], depths.astype(np.float32))
        if slot >= self._swept + TREND_S:
            self._swept = slot
            self._keep_rings(np.fmax.reduce(self._rings, axis=(1, 2), initial=0) > 0)

    def _align(self, cookies: NDArray[np.uint64], slot: int) -> None:
        """Rearrange the columns so that they belong to these listeners in this order."""
        if np.array_equal(self._cookie, cookies):
            return
        at = find_sorted(self._cookie, cookies)
        known = at != NOT_FOUND
        first, ring = np.full(len(cookies), slot, np.int64), np.full(len(cookies), NOT_FOUND, np.intp)
        first[known], ring[known] = self._first[at[known]], self._ring[at[known]]
        self._cookie, self._first, self._ring = cookies, first, ring
        present = np.zeros(len(self._rings), np.bool_)
        present[ring[ring != NOT_FOUND]] = True
        self._keep_rings(present)

    def _add_rings(self, at: NDArray[np.intp]) -> None:
        if not len(at):
            return
        rings = np.repeat(self._empty[None], len(at), axis=0)
        slots = np.arange(self._head - TREND_S + 1, self._head + 1)
        before = slots[None] < self._first[at, None]
        rings[:, slots % TREND_S] = np.where(before[:, :, None], np.float32(np.nan), rings[:, slots % TREND_S])
        self._ring[at] = np.arange(len(self._rings), len(self._rings) + len(at))
        self._rings = np.concatenate((self._rings, rings))

    def _keep_rings(self, wanted: NDArray[np.bool_]) -> None:
        if wanted.all():
            return
        place = np.append(np.where(wanted, np.cumsum(wanted) - 1, NOT_FOUND), NOT_FOUND)
        self._ring, self._rings = place[self._ring], self._rings[wanted]

    def syn_peaks(self, seconds: int) -> NDArray[np.intp]:
        """Return the SYN queue's peak in the last `seconds` for each listener of the last `add`."""
        recent = self._rings[:, np.arange(self._head - seconds + 1, self._head + 1) % TREND_S, _SYN]
        of_rings = np.fmax.reduce(recent, axis=1, initial=0)  # a number wins against NaN
        return np.append(of_rings, np.float32(0))[self._ring].astype(np.intp)

    def trend(self) -> QueueTrend:
        """Return a copy of the whole history."""
        order = np.arange(self._head - TREND_S + 1, self._head + 1) % TREND_S
        at = np.flatnonzero(self._ring != NOT_FOUND)
        rows = dict(zip(self._cookie[at].tolist(), self._ring[at].tolist(), strict=True))
        begin = np.maximum(self._first - (self._head - TREND_S + 1), 0)
        return QueueTrend(rows, self._rings[:, order], self._cookie, begin, self._empty[order])
