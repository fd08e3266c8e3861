"""Rows: sockets and what is remembered of them, as columns of equal length."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.model.sockets.throughput import Throughput


class Mark(enum.IntEnum):
    """The change of a row since the previous step; fits a uint8 column."""

    NONE = 0
    NEW = 1
    CHANGED = 2
    CLOSED = 3


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Aligned, read-only columns: row i of each is the same socket."""

    time: float
    """Unix seconds of the sample; ages are relative to it."""
    table: NDArray[np.void]
    """uapi.SOCKET"""
    cookie: NDArray[np.uint64]
    state: NDArray[np.uint8]
    first_seen: NDArray[np.float64]
    """Unix seconds of the first sample with the socket."""
    since: NDArray[np.float64]
    """Unix seconds of the first sample with the socket in its present state."""
    begin_seen: NDArray[np.bool_]
    """Whether the socket opened after the first sample; else it is older than `first_seen`."""
    role: NDArray[np.uint8]
    """states.Role"""
    closer: NDArray[np.uint8]
    """states.Closer: who sent the first FIN."""
    mark: NDArray[np.uint8]
    """Mark"""
    owner: NDArray[np.int32]
    owners: Sequence[Owner]
    users: Mapping[int, str]
    interfaces: Mapping[int, str]
    ending: NDArray[np.uint8] | None = None
    """ending.Ending or ending.ALIVE; None where it was not computed."""
    throughput: Throughput = field(default_factory=Throughput)
    """Throughput of all connections, by cookie."""

    def __len__(self) -> int:
        return len(self.cookie)

    def take(self, where: NDArray[np.intp] | slice) -> Rows:
        """Return the rows at these indices, in that order."""
        picked = {name: getattr(self, name)[where] for name in COLUMNS}
        return replace(self, **picked, ending=None if self.ending is None else self.ending[where])

    def find(self, cookie: int) -> int | None:
        """Return the index of the row with this cookie. The rows must be sorted by cookie, as in a View."""
        at = int(np.searchsorted(self.cookie, np.uint64(cookie)))
        return at if at < len(self) and int(self.cookie[at]) == cookie else None


COLUMNS = (
    "table", "cookie", "state", "first_seen", "since", "begin_seen", "role", "closer", "mark", "owner",
)  # fmt: skip
"""Names of the columns that every Rows has."""
