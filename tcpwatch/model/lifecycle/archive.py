"""Past: what a View knows of flows that were, frozen: what happened to each, and the last facts of the closed ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import is_in_sorted
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.model.lifecycle.transitions import Transition, TransitionIndex

RECORD = np.dtype(
    [
        ("cookie", "=u8"),
        ("begin", "=f8"),
        ("end", "=f8"),
        ("begin_slack", "=f4"),
        ("end_slack", "=f4"),
        ("owner", "=i4"),
        ("info_bytes", "=u2"),
        ("role", "u1"),
        ("closer", "u1"),
        ("state", "u1"),
        ("ending", "u1"),
        ("origin", "u1"),
        ("seen", "?"),
        ("row", uapi.SOCKET),
        ("info", uapi.TCP_INFO),
    ]
)
"""A flow whose full socket has ended. The same cookie may come twice, when more was told of it later: the last counts.

begin, end: Unix seconds at which both were known; begin_slack, end_slack: so much earlier they may have been (NaN:
nobody knows how much); owner: for `Past.owner`; told: bytes of `info` that the kernel told, 0 for none; role, closer:
as in states; state: the last one that is known, 0 for none; ending: Ending; origin: transitions.Origin of the end;
seen: a poll had it; row: as it was last seen, in whatever state.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Archive:
    """Frozen; may be held while the monitor goes on."""

    records: tuple[NDArray[np.void], ...] = ()
    """CLOSED, oldest first."""
    transitions: tuple[NDArray[np.void], ...] = ()
    """transitions.TRANSITION, in the order in which they became known."""
    owners: Sequence[Owner] = ()
    """The meaning of codes from `owners_from` on."""
    owners_from: int = 0
    records_total: int = 0
    transitions_total: int = 0
    """Rows that were ever added to `closed` and to `transitions`, kept or not."""
    ended_ever: int = 0
    """Flows whose end was told, each counted once."""
    transition_index: TransitionIndex = field(default_factory=TransitionIndex)
    """Shared by the Pasts of one monitor, since it remembers."""

    def transitions_of(self, cookies: Collection[int]) -> dict[int, tuple[Transition, ...]]:
        """What is known of each of these flows, in the order of time; some ms for a million transitions."""
        return self.transition_index.find(self.transitions, cookies)

    def owner(self, code: int) -> Owner | None:
        """Who held it; None where that is not known (any more)."""
        at = code - self.owners_from
        return self.owners[at] if code >= 0 and 0 <= at < len(self.owners) else None

    def last_record(self, cookie: int) -> np.void | None:
        """Return the last record of this connection, or None where none is kept."""
        found = self.last_records(np.array([cookie], np.uint64))
        return found[0] if len(found) else None

    def last_records(self, cookies: NDArray[np.uint64]) -> NDArray[np.void]:
        """Return the last record of each of these connections that has one; both ascending by cookie."""
        low = np.zeros(1 << 16, np.bool_)  # a quick test of the low bits leaves few records to search for
        low[cookies.astype(np.uint16)] = True
        parts = [np.empty(0, RECORD)]
        for chunk in self.records if len(cookies) else ():
            cookie = np.ascontiguousarray(chunk["cookie"])
            near = np.flatnonzero(low[cookie.astype(np.uint16)])
            parts.append(chunk[near[is_in_sorted(cookies, cookie[near])]])
        records = np.concatenate(parts)
        _, first = np.unique(records["cookie"][::-1], return_index=True)
        return records[len(records) - 1 - first]
