"""IP addresses as numbers.

Addresses are 16 bytes in network order, as in `struct inet_diag_sockid`; IPv4 is in the first four. An IPv6 socket
has an IPv4 peer's address in IPv4-mapped form, ::ffff:192.0.2.1 (RFC 4291, section 2.5.5.2). Halves are the high and
the low 64 bits of an address, shape (n, 2).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.group_by import mix_bits

Halves = NDArray[np.uint64]
Mask = NDArray[np.bool_]

_NO_SEED = np.uint64(0)

MAPPED_LOW = 0xFFFF << 32
"""The low half of ::ffff:0.0.0.0; the high half of a mapped address is 0."""
ANY4, ANY6 = (0, MAPPED_LOW), (0, 0)
"""The halves of 0.0.0.0 in its mapped form, and of ::."""


def first_words(table: NDArray[np.void], name: str) -> NDArray[np.uint32]:
    """Return a view of the first four bytes of every address in a column, as big-endian numbers."""
    if not len(table):
        return np.empty(0, np.uint32)
    at = table.dtype.fields[name][1]  # type: ignore[index]  # it has fields
    return np.ndarray(len(table), ">u4", table, at, table.strides)


def address_halves(addresses: NDArray[Any]) -> Halves:
    """Return the halves of addresses, shape (n, 16), in the host's byte order."""
    return np.ascontiguousarray(addresses).view(">u8").reshape(-1, 2).astype(np.uint64)


def mapped_halves(addresses: NDArray[Any], is_v4: Mask) -> Halves:
    """Return the halves of addresses of both families, IPv4 as IPv4-mapped IPv6."""
    halves = address_halves(addresses)
    halves[is_v4, 1] = (halves[is_v4, 0] >> np.uint64(32)) | np.uint64(MAPPED_LOW)
    halves[is_v4, 0] = 0
    return halves


def are_mapped(halves: Halves) -> Mask:
    """Return which IPv6 addresses are IPv4-mapped."""
    mapped: Mask = (halves[:, 0] == 0) & (halves[:, 1] >> np.uint64(32) == 0xFFFF)
    return mapped


def are_loopback(halves: Halves) -> Mask:
    """Return which IPv6 addresses are ::1 or in ::ffff:127.0.0.0/104."""
    high, low = halves.T
    loopback: Mask = (high == 0) & ((low >> np.uint64(24) == 0xFFFF7F) | (low == 1))
    return loopback


def ipv4_numbers(addresses: NDArray[Any], is_v4: Mask) -> tuple[NDArray[np.uint32], Mask]:
    """Return IPv4 addresses as numbers, and a mask of where they are valid: IPv4 and IPv4-mapped addresses."""
    words = addresses.view(">u4")
    numbers = words[:, 0].astype(np.uint32)
    if not is_v4.all():
        mapped = ~is_v4 & (numbers == 0) & (words[:, 1] == 0) & (words[:, 2] == 0xFFFF)
        numbers[mapped] = words[mapped, 3]
        is_v4 = is_v4 | mapped
    return numbers, is_v4


def hash_addresses(halves: Halves, seed: NDArray[np.uint64] | np.uint64 = _NO_SEED) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each address and its seed: collisions among a few million do not occur in practice."""
    return mix_bits(mix_bits(halves[:, 0] ^ seed) ^ halves[:, 1])
