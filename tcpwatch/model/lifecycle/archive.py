"""Archive: the transitions of connections and the records of the closed ones, as an immutable snapshot."""

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
        ("control_received", "u1"),
        ("control_acked", "u1"),
        ("row", uapi.SOCKET),
        ("info", uapi.TCP_INFO),
    ]
)
"""One row per connection whose full socket ended. If a cookie has several rows, the last is the most complete.

begin, end: Unix seconds at which both were known.
begin_slack, end_slack: uncertainty in seconds: it happened in [time - slack, time]; NaN if there is no lower limit.
owner: code for `Archive.owner`.
info_bytes: bytes of `info` that the kernel sent; 0 for none.
role, closer: states.Role, states.Closer.
state: the last known state; 0 for unknown.
ending: Ending.
origin: transitions.Origin of the end.
seen: whether any poll saw the connection.
control_received, control_acked: FINs and SYNs that tcpi_bytes_received and tcpi_bytes_acked in `info` count as bytes.
row: the socket as it was last seen, in whatever state.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Archive:
    """An immutable snapshot of what the Tracker keeps."""

    records: tuple[NDArray[np.void], ...] = ()
    """RECORD, oldest first."""
    transitions: tuple[NDArray[np.void], ...] = ()
    """transitions.TRANSITION, in the order in which they were reported."""
    owners: Sequence[Owner] = ()
    """Owners of the codes from `owners_from` on."""
    owners_from: int = 0
    records_total: int = 0
    transitions_total: int = 0
    """Rows ever added to `records` and to `transitions`, kept or not."""
    ended_ever: int = 0
    """Connections that ended since the start, each counted once."""
    transition_index: TransitionIndex = field(default_factory=TransitionIndex)
    """Shared by all Archives of one Tracker, since it caches."""

    def transitions_of(self, cookies: Collection[int]) -> dict[int, tuple[Transition, ...]]:
        """Return the transitions of each connection in the order of time; takes some ms for a million transitions."""
        return self.transition_index.find(self.transitions, cookies)

    def owner(self, code: int) -> Owner | None:
        """Return the owner with this code, or None where it is not known, or not any more."""
        at = code - self.owners_from
        return self.owners[at] if code >= 0 and 0 <= at < len(self.owners) else None

    def last_record(self, cookie: int) -> np.void | None:
        """Return the last record of this connection, or None where none is kept."""
        records = self.last_records(np.array([cookie], np.uint64))
        return records[0] if len(records) else None

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
