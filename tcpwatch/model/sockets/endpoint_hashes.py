"""Hashes of addresses and ports of many sockets, for grouping. IPv4-mapped addresses are grouped with IPv4 ones.

Two endpoints with the same hash are counted as one; with 64 bits this does not happen in practice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.arrays.address_words import address_halves, are_mapped, first_words, hash_addresses, mapped_halves
from tcpwatch.kernel.netlink import uapi
from tcpwatch.model.sockets.endpoint import Endpoint
from tcpwatch.sample import Sample

_BLOCK = 16_384


def remote_endpoint_hashes(sample: Sample, row: NDArray[np.intp]) -> NDArray[np.uint64]:
    """Return a hash of each remote address and port."""
    number = address_hashes(sample, row, "idiag_dst")
    number <<= np.uint64(16)
    number |= sample.table["idiag_dport"][row].astype(np.uint64)
    return number


def address_hashes(sample: Sample, row: NDArray[np.intp], name: str) -> NDArray[np.uint64]:
    """Return a hash below 2^48 of each address in the column `idiag_src` or `idiag_dst`.

    The hash of an IPv4-mapped address is that of the IPv4 address: both are the same host.
    """
    number = np.empty(len(row), np.uint64)
    for first in range(0, len(row), _BLOCK):  # a fancy index on all of a large table costs three times as much
        part = row[first : first + _BLOCK]
        block = sample.table[part[0] : part[-1] + 1]
        wanted = slice(None) if len(part) == len(block) else part - part[0]
        number[first : first + _BLOCK] = first_words(block, name)[wanted]
    v6 = np.flatnonzero(sample.family[row] != uapi.AF_INET)
    if len(v6):
        halves = address_halves(sample.table[name][row[v6]])
        as_v4 = halves[:, 1] & np.uint64(0xFFFFFFFF)
        number[v6] = np.where(are_mapped(halves), as_v4, hash_addresses(halves) >> np.uint64(16))
    return number


def table_remote_hashes(table: NDArray[np.void]) -> NDArray[np.uint64]:
    """Return a hash of the remote address and port of each row of a table with the fields of uapi.SOCKET."""
    halves = mapped_halves(table["idiag_dst"], table["idiag_family"] == uapi.AF_INET)
    return hash_addresses(halves, table["idiag_dport"].astype(np.uint64))


def endpoint_pair_hashes(
    rows: NDArray[np.void],
    sport: str = "idiag_sport",
    dport: str = "idiag_dport",
    src: str = "idiag_src",
    dst: str = "idiag_dst",
) -> NDArray[np.uint64]:
    """Return a hash of the local and the remote endpoint of each row of uapi.SOCKET, or of a table with other names."""
    number = rows[sport].astype(np.uint64) << np.uint64(16) | rows[dport].astype(np.uint64)
    for name in (src, dst):
        number = hash_addresses(address_halves(rows[name]), number)
    return number


def remote_endpoint(row: np.void, port: bool = True) -> Endpoint:
    """Return the remote end of one row of uapi.SOCKET, or its address alone."""
    address = units.address(row["idiag_dst"].tobytes(), int(row["idiag_family"]))
    return Endpoint(address, int(row["idiag_dport"]) if port else None)
