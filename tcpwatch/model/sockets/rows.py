"""Rows: sockets with what is known of their flows, as columns of equal length."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.model.sockets.throughput import Throughput


class Mark(enum.IntEnum):
    """What happened to a row since the step before; fits a uint8 column."""

    NONE = 0
    NEW = 1
    CHANGED = 2
    CLOSED = 3


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Aligned, read-only columns: row i of each is the same socket."""

    time: float
    """Unix seconds of the sample; ages count back from here."""
    table: NDArray[np.void]
    """uapi.SOCKET"""
    cookie: NDArray[np.uint64]
    state: NDArray[np.uint8]
    first_seen: NDArray[np.float64]
    """Unix seconds of the first sample that had the flow."""
    since: NDArray[np.float64]
    """Unix seconds of the first sample that had it in its present state."""
    begin_seen: NDArray[np.bool_]
    """We saw it appear, so that `first_seen` is its beginning and not ours."""
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
    """ending.Ending or ending.ALIVE; None: nobody has asked."""
    throughput: Throughput = field(default_factory=Throughput)
    """Of all flows, by cookie, whichever of them are rows here."""

    def __len__(self) -> int:
        return len(self.cookie)

    def take(self, where: NDArray[np.intp] | slice) -> Rows:
        """The rows at these indices, in that order."""
        picked = {name: getattr(self, name)[where] for name in _COLUMNS}
        return replace(self, **picked, ending=None if self.ending is None else self.ending[where])

    def find(self, cookie: int) -> int | None:
        """Index of the row with this cookie; rows must be sorted by cookie, as in a View."""
        at = int(np.searchsorted(self.cookie, np.uint64(cookie)))
        return at if at < len(self) and int(self.cookie[at]) == cookie else None


_COLUMNS = (
    "table", "cookie", "state", "first_seen", "since", "begin_seen", "role", "closer", "mark", "owner",
)  # fmt: skip
