"""Aliases: two cookies of one flow, where the kernel gave it two.

A socket gets its cookie when somebody asks for it first: a poll, or its destroy event. One that went to TIME_WAIT
before any poll saw it leaves a small socket without a cookie, which gets another one from the next poll (Linux 6.18:
inet_twsk_alloc copies sk_cookie, whatever it is). Both have the same ends.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted, is_in_sorted
from tcpwatch.model.sockets.endpoint_hashes import endpoint_pair_hashes
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import State
from tcpwatch.sample import take_rows


class CookieAliases:
    """Finds the small socket's cookie, by which the flow goes on."""

    def __init__(self) -> None:
        self._ends = np.empty(0, np.uint64)
        self._cookies = self._ends
        """Of small sockets whose full one no event has told of."""

    def step(
        self, rows: Rows, new: NDArray[np.intp], events: NDArray[np.void], when: NDArray[np.float64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """For some cookies of `events` (uapi.SOCKET) those of the same flows in `rows`; the former ascending.

        `new` are the rows that were not there before, `when` is the time of each event. Of several flows with the same
        ends, one after the other, the first is that of a small socket that has gone, the last of one that is there.
        """
        order = np.argsort(when, kind="stable")
        cookies, ends = events["idiag_cookie"][order].astype(np.uint64), endpoint_pair_hashes(events)[order]
        there = is_in_sorted(rows.cookie, self._cookies)
        old, told_old = _matched(ends, self._ends[~there], self._cookies[~there])
        left = np.setdiff1d(np.arange(len(ends)), old)
        self._add(rows, new, there)
        last = left[::-1]  # of equal ones the first is found
        young, told_young = _matched(ends[last], self._ends, self._cookies)
        stays = ~np.isin(self._cookies, told_young)
        self._ends, self._cookies = self._ends[stays], self._cookies[stays]
        found = np.concatenate((old, last[young]))
        back = np.argsort(cookies[found])
        return cookies[found][back], np.concatenate((told_old, told_young))[back]

    def _add(self, rows: Rows, new: NDArray[np.intp], there: NDArray[np.bool_]) -> None:
        """Small sockets that came, beside those that are there still."""
        small = new[np.isin(rows.state[new], (State.TIME_WAIT, State.FIN_WAIT_2))]
        table = take_rows(rows.table, small)
        nobody_s = table["idiag_inode"] == 0
        self._ends = np.concatenate((self._ends[there], endpoint_pair_hashes(table)[nobody_s]))
        self._cookies = np.concatenate((self._cookies[there], rows.cookie[small[nobody_s]]))


def _matched(
    ends: NDArray[np.uint64], wanted: NDArray[np.uint64], cookies: NDArray[np.uint64]
) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """Where each of `wanted` is first among `ends`, and its cookie; without those that are not there."""
    distinct, first = np.unique(ends, return_index=True)
    at = find_sorted(distinct, wanted)
    found = at != NOT_FOUND
    return first[at[found]], cookies[found]


def resolve_aliases(
    cookies: NDArray[np.uint64], aliases: tuple[NDArray[np.uint64], NDArray[np.uint64]]
) -> NDArray[np.uint64]:
    """The cookies by which these flows go on."""
    at = find_sorted(aliases[0], cookies)
    return np.where(at != NOT_FOUND, aliases[1][at], cookies) if len(aliases[0]) else cookies
