"""OpenedOwners: the owners of connections that a poll saw without one.

A connection in an accept queue has no process yet, and one that no poll saw before TIME_WAIT has none any more; an
orphan has lost its own. Each connection counts as opened and as ended for the same process.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.model.sockets.join import Join
from tcpwatch.model.sockets.owner_registry import OwnerRegistry

KEPT = 4_096
"""Connections without an owner, and orphans, that are remembered."""

Codes = NDArray[np.int32]
"""Codes of the OwnerRegistry."""


class OpenedOwners:
    """Follows connections from step to step."""

    def __init__(self, owners: OwnerRegistry) -> None:
        self._owners = owners
        self._without = np.empty(0, np.uint64)
        """Cookies of connections that opened and had no owner so far, the latest last."""
        self._orphans, self._orphans_owner = np.empty(0, np.uint64), np.empty(0, np.int32)
        """Cookies of orphans, the latest last, and their previous owners."""

    def add_orphans(self, joined: Join, previous: Join) -> None:
        """Remember the owners of sockets that have none any more since the previous poll."""
        now, before = joined.rows.owner[joined.changed], previous.rows.owner[joined.changed_previous]
        lost = np.flatnonzero((now < 0) & (before >= 0))
        if len(lost):
            owner = self._owners.register(before[lost], previous.rows.owners)
            self._orphans = np.append(self._orphans, joined.rows.cookie[joined.changed[lost]])[-KEPT:]
            self._orphans_owner = np.append(self._orphans_owner, owner)[-KEPT:]

    def fill(self, records: NDArray[np.void]) -> None:
        """Fill the owners of archive.RECORDs of orphans."""
        bare = np.flatnonzero(records["owner"] < 0)
        if not len(bare) or not len(self._orphans):
            return
        found = _owners_of(records["cookie"][bare], self._orphans, self._orphans_owner)
        records["owner"][bare] = np.where(found >= 0, found, records["owner"][bare])

    def step(self, opened: NDArray[np.uint64], owner: Codes, ended: NDArray[np.void], joined: Join) -> Codes:
        """Return the owners, known now, of connections that opened earlier or now without one.

        `opened` are the cookies of connections that opened in this step, with their `owner`; `ended` are the
        archive.RECORDs of this step.
        """
        without = np.concatenate((self._without, opened[owner < 0]))
        if not len(without):
            return np.empty(0, np.int32)
        owners = _owners_of(without, ended["cookie"], ended["owner"])
        rows = joined.rows
        at = find_sorted(rows.cookie, without)
        live = np.flatnonzero((at != NOT_FOUND) & (owners < 0))
        owners[live] = self._owners.register(rows.owner[at[live]], rows.owners)
        self._without = without[(owners < 0) & (at != NOT_FOUND)][-KEPT:]
        return owners[owners >= 0]


def _owners_of(cookies: NDArray[np.uint64], known: NDArray[np.uint64], owner: Codes) -> Codes:
    """Return the owner of each of `cookies` that is `known`, -1 for the others."""
    order = np.argsort(known, kind="stable")
    at = find_sorted(known[order], cookies)
    owners = np.full(len(cookies), -1, np.int32)
    owners[at != NOT_FOUND] = owner[order[at[at != NOT_FOUND]]]
    return owners
