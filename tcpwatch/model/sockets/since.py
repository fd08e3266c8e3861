"""Since: for how long a condition has held, where a sample shows only whether it holds now."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.sample import Sample

_MAX_WANTED = 256
"""Sockets whose tcp_info is asked for in one step; each costs the kernel 0.05 ms."""


class Since:
    """Remembers when the condition began for the sockets of the last step.

    Where the condition held at the first step, its beginning is unknown: tcp_info is requested once for that socket,
    and its ages give a minimum. A condition that ended and holds again has a new beginning.
    """

    def __init__(self, *age_fields: str) -> None:
        """`age_fields` of tcp_info, in ms: the condition has held at least as long as the longest of them."""
        self._age_fields = age_fields
        self._cookie = np.empty(0, np.uint64)
        self._since = np.empty(0, np.float64)
        self._unknown: list[int] | None = None
        self.begin_seen = np.empty(0, np.bool_)
        """For each row of the last step whether the condition began after the first step."""

    @property
    def wanted_tcp_info(self) -> frozenset[int]:
        """Cookies whose tcp_info the next sample should contain."""
        return frozenset((self._unknown or [])[:_MAX_WANTED])

    def step(
        self, sample: Sample, row: NDArray[np.intp], at_latest: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Return for each of these rows, ascending, the Unix seconds since when the condition has held.

        It holds for these rows in this sample, and began at `at_latest` or before, where that is known.
        """
        if not len(row) and not len(self._cookie):  # as in most steps
            self._unknown = self._unknown or []
            del self._unknown[:_MAX_WANTED]
            return np.empty(0, np.float64)
        cookie = sample.cookie[row]
        begin_seen = np.full(len(row), self._unknown is not None)
        if self._unknown is None:
            self._unknown = cookie.tolist()
        else:
            del self._unknown[:_MAX_WANTED]
        since = np.full(len(row), sample.time) if at_latest is None else at_latest.copy()
        before = find_sorted(self._cookie, cookie)
        known = np.flatnonzero(before != NOT_FOUND)
        since[known] = np.minimum(since[known], self._since[before[known]])
        begin_seen[known] = self.begin_seen[before[known]]
        for at in np.flatnonzero(np.isin(cookie, np.array(list(sample.watched_tcp_info), np.uint64))).tolist():
            info = sample.watched_tcp_info[int(cookie[at])]
            age_s = max(info.get(name, 0) for name in self._age_fields) / 1000
            since[at] = min(since[at], sample.time - age_s)
        self._cookie, self._since, self.begin_seen = cookie, since, begin_seen
        return since
