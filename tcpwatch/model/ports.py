"""Ephemeral ports: how many of the range are in use toward one destination."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.rows import Rows
from tcpwatch.model.sample import gathered
from tcpwatch.model.states import Role


def fullest(rows: Rows, low: int, high: int) -> int:
    """Ports of `low`..`high` in use toward the (local address, remote address, remote port) that takes most."""
    client = np.flatnonzero(rows.role == Role.CLIENT)
    port = rows.table["idiag_sport"][client]
    client = client[(port >= low) & (port <= high)]
    if not len(client):
        return 0
    groups = np.sort(_mixed(gathered(rows.table, client)))
    edges = np.flatnonzero(np.append(True, groups[1:] != groups[:-1]))
    return int(np.diff(np.append(edges, len(groups))).max())


def _mixed(table: NDArray[np.void]) -> NDArray[np.uint64]:
    """One 64-bit number for each (local address, remote address, remote port): sorting five columns costs ten times it.

    Two destinations that share a number by chance would be counted as one; at 64 bits that does not happen in practice.
    """
    mixed = table["idiag_dport"].astype(np.uint64)
    for name in ("idiag_src", "idiag_dst"):
        for half in np.ascontiguousarray(table[name]).view("=u8").T:
            mixed = (mixed ^ half) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
    return mixed
