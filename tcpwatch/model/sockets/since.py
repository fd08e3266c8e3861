"""Lasting: since when something has held of sockets, for what the table tells of the moment only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Since:
    """Remembers the sockets of the last step alone; what ceased and came back begins anew."""

    def __init__(self) -> None:
        self._cookie = np.empty(0, np.uint64)
        self._since = np.empty(0, np.float64)

    def step(
        self, time: float, cookie: NDArray[np.uint64], least_s: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Since when it has held of these, ascending cookies of which it holds at `time`; aligned with them.

        `least_s` is how long it has held at least, where something else than our own steps tells.
        """
        since = np.full(len(cookie), time)
        if least_s is not None:
            since -= least_s
        if len(self._cookie) and len(cookie):
            at = np.minimum(np.searchsorted(self._cookie, cookie), len(self._cookie) - 1)
            known = self._cookie[at] == cookie
            since[known] = np.minimum(since[known], self._since[at[known]])
        self._cookie, self._since = cookie, since
        return since
