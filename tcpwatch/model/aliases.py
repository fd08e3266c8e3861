"""Aliases: two cookies of one flow, where the kernel gave it two.

A socket gets its cookie when somebody asks for it first: a poll, or its destroy event. One that went to TIME_WAIT
before any poll saw it leaves a small socket without a cookie, which gets another one from the next poll (Linux 6.18:
inet_twsk_alloc copies sk_cookie, whatever it is). Both have the same ends.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.ends import both_ends
from tcpwatch.model.lookup import NOWHERE, among, places
from tcpwatch.model.rows import Rows
from tcpwatch.model.sample import gathered
from tcpwatch.model.states import State


class Aliases:
    """Finds the small socket's cookie, by which the flow goes on."""

    def __init__(self) -> None:
        self._ends = np.empty(0, np.uint64)
        self._cookies = self._ends
        """Of small sockets whose full one no event has told of."""

    def step(
        self, rows: Rows, new: NDArray[np.intp], events: NDArray[np.void], when: NDArray[np.float64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """For some cookies of `events` (uapi.SOCKET) those of the same flows in `rows`; the former ascending.

        `new` are the rows that were not there before, `when` is the time of each event.
        """
        small = new[np.isin(rows.state[new], (State.TIME_WAIT, State.FIN_WAIT_2))]
        table = gathered(rows.table, small)
        nobody_s = table["idiag_inode"] == 0
        ends = np.concatenate((self._ends, both_ends(table)[nobody_s]))
        cookies = np.concatenate((self._cookies, rows.cookie[small[nobody_s]]))
        alive = among(rows.cookie, cookies)
        order = np.flatnonzero(alive)[np.argsort(ends[alive], kind="stable")]
        ends, cookies = ends[order], cookies[order]
        last = np.append(ends[1:] != ends[:-1], True)[: len(ends)]
        self._ends, self._cookies = ends[last], cookies[last]
        if not len(self._ends) or not len(events):
            return np.empty(0, np.uint64), np.empty(0, np.uint64)
        of_event = events["idiag_cookie"].astype(np.uint64)
        at = places(self._ends, both_ends(events))
        found = np.flatnonzero(at != NOWHERE)
        # Of several flows with the same ends, one after the other, it is the last one that is there still.
        found = found[np.lexsort((when[found], at[found]))]
        found = found[np.append(np.diff(at[found]) != 0, True)] if len(found) else found
        found = found[np.argsort(of_event[found])]
        there = self._cookies[at[found]]
        self._ends, self._cookies = np.delete(self._ends, at[found]), np.delete(self._cookies, at[found])
        return of_event[found], there


def renamed(cookies: NDArray[np.uint64], aliases: tuple[NDArray[np.uint64], NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """The cookies by which these flows go on."""
    at = places(aliases[0], cookies)
    return np.where(at != NOWHERE, aliases[1][at], cookies) if len(aliases[0]) else cookies
