"""CookieAliases: which two cookies belong to one connection.

The kernel gives a socket its cookie when it is first needed: by a poll, or by its destroy event. If a socket enters
TIME_WAIT before any poll saw it, its small socket has no cookie yet and gets another one from the next poll (Linux
6.18: inet_twsk_alloc copies sk_cookie, even if it is 0). Both have the same endpoints.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted, is_in_sorted
from tcpwatch.arrays.opaque_rows import take_rows
from tcpwatch.model.sockets.endpoint_hashes import endpoint_pair_hashes
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import SMALL_SOCKET_STATES

NO_ALIASES = np.empty(0, np.uint64), np.empty(0, np.uint64)


class CookieAliases:
    """Finds the cookie of the small socket that continues a connection."""

    def __init__(self) -> None:
        self._endpoints = np.empty(0, np.uint64)
        self._cookies = self._endpoints
        """Small sockets without a destroy event of their full socket."""

    def step(
        self, rows: Rows, new: NDArray[np.intp], events: NDArray[np.void], when: NDArray[np.float64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return cookies of destroy events (uapi.SOCKET) with their aliases in `rows`, ascending by the former.

        `new` are the rows that appeared in this poll, `when` is the time of each event. If several connections in
        succession had the same endpoints, a small socket that vanished belongs to the first event, and one that exists
        to the last.
        """
        order = np.argsort(when, kind="stable")
        cookies, endpoints = events["idiag_cookie"][order].astype(np.uint64), endpoint_pair_hashes(events)[order]
        present = is_in_sorted(rows.cookie, self._cookies)
        old, old_aliases = _matched(endpoints, self._endpoints[~present], self._cookies[~present])
        left = np.setdiff1d(np.arange(len(endpoints)), old)
        self._add(rows, new, present)
        latest = left[::-1]  # _matched returns the first of equal ones
        young, young_aliases = _matched(endpoints[latest], self._endpoints, self._cookies)
        unmatched = ~np.isin(self._cookies, young_aliases)
        self._endpoints, self._cookies = self._endpoints[unmatched], self._cookies[unmatched]
        aliased = cookies[np.concatenate((old, latest[young]))]
        order = np.argsort(aliased)
        return aliased[order], np.concatenate((old_aliases, young_aliases))[order]

    def _add(self, rows: Rows, new: NDArray[np.intp], present: NDArray[np.bool_]) -> None:
        """Keep the small sockets that are `present`, and add the new ones."""
        small = new[np.isin(rows.state[new], SMALL_SOCKET_STATES)]
        table = take_rows(rows.table, small)
        orphans = table["idiag_inode"] == 0
        self._endpoints = np.concatenate((self._endpoints[present], endpoint_pair_hashes(table)[orphans]))
        self._cookies = np.concatenate((self._cookies[present], rows.cookie[small[orphans]]))


def _matched(
    endpoints: NDArray[np.uint64], wanted: NDArray[np.uint64], cookies: NDArray[np.uint64]
) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """Return the first index in `endpoints` of each of `wanted` that it contains, and its cookie."""
    distinct, first = np.unique(endpoints, return_index=True)
    at = find_sorted(distinct, wanted)
    present = at != NOT_FOUND
    return first[at[present]], cookies[present]


def resolve_aliases(
    cookies: NDArray[np.uint64], aliases: tuple[NDArray[np.uint64], NDArray[np.uint64]]
) -> NDArray[np.uint64]:
    """Return the cookies with aliases replaced."""
    at = find_sorted(aliases[0], cookies)
    return np.where(at != NOT_FOUND, aliases[1][at], cookies) if len(aliases[0]) else cookies
