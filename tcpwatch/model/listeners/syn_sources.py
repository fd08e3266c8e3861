"""SynSources: remote addresses of connections, counted by address and by prefix; fast enough for a million."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.address_words import address_halves, are_mapped, hash_addresses
from tcpwatch.arrays.group_by import run_starts

PrefixKind = Literal["address", "/24", "/16", "/64", "/48"]
PREFIX_KINDS: tuple[PrefixKind, ...] = ("address", "/24", "/16", "/64", "/48")
TOP = 10
"""Largest groups of each kind in SynSources."""


@dataclass(frozen=True, slots=True)
class SynSource:
    """One address or network."""

    prefix: str
    """`192.0.2.7`, `192.0.2.0/24`, `2001:db8::/64`."""
    count: int
    share: float
    """Share of all connections."""

    @property
    def term(self) -> str:
        """Filter term: `raddr:192.0.2.0/24`; `2001:db8::` gets `/128`, as without it the term is a prefix."""
        return f"raddr:{self.prefix}" + ("/128" if self.prefix.endswith("::") else "")


@dataclass(frozen=True, slots=True, eq=False)
class SynSources:
    """The sources of a set of connections."""

    count: int
    """Connections."""
    distinct: int
    """Distinct addresses."""
    entropy: float
    """Entropy of the addresses' shares in bits: 0 for one address, log2(distinct) if all shares are equal."""
    top: Mapping[PrefixKind, tuple[SynSource, ...]]
    """The largest groups, largest first: IPv4 by address, /24 and /16, IPv6 by address, /64 and /48."""

    @property
    def distinct_share(self) -> float:
        """Distinct addresses per connection, 1 if all addresses differ; 0 without connections."""
        return self.distinct / self.count if self.count else 0.0

    def largest(self, grouping: PrefixKind) -> SynSource | None:
        """Return the largest group, None if there is none."""
        return next(iter(self.top[grouping]), None)


@dataclass(frozen=True, slots=True, eq=False)
class RemoteAddresses:
    """Remote addresses of connections, IPv4 and IPv6 in columns of their own."""

    v4: NDArray[np.uint32]
    """One number per connection; undefined for IPv6."""
    v6: NDArray[np.intp]
    """Indices of the connections with an IPv6 address, ascending."""
    halves: NDArray[np.uint64]
    """Their addresses as two host-order halves; shape (n, 2)."""

    @classmethod
    def of(cls, words: NDArray[np.uint32], v6: NDArray[np.intp], raw: NDArray[np.uint8]) -> RemoteAddresses:
        """Build from `words`, the first four bytes of each address, and `raw`, the 16 bytes of those at `v6`.

        Addresses in `raw` may be IPv4-mapped.
        """
        halves = address_halves(raw)
        mapped = are_mapped(halves)
        words[v6[mapped]] = halves[mapped, 1] & np.uint64(0xFFFFFFFF)
        return cls(words, v6[~mapped], halves[~mapped])

    def take(self, wanted: NDArray[np.bool_]) -> RemoteAddresses:
        """Return the addresses of the wanted connections."""
        kept = wanted[self.v6]
        place = np.cumsum(wanted) - 1
        return RemoteAddresses(self.v4[wanted], place[self.v6[kept]], self.halves[kept])


def syn_sources(remote: RemoteAddresses) -> SynSources:
    """Return the sources of connections with these addresses."""
    total = len(remote.v4)
    if not total:
        return SynSources(0, 0, 0.0, dict.fromkeys(PREFIX_KINDS, ()))
    four = _counted(remote.v4 if not len(remote.v6) else np.delete(remote.v4, remote.v6))
    hashes = hash_addresses(remote.halves)  # sorting pairs takes ten times as long
    six, networks = _sorted_and_counted(hashes), _sorted_and_counted(remote.halves[:, 0])
    addresses = (*_largest(four, 0, 32, total), *_largest6(hashes, remote.halves, six, total))
    top: dict[PrefixKind, tuple[SynSource, ...]] = {
        "address": tuple(sorted(addresses, key=lambda source: -source.count)[:TOP]),
        "/24": _largest(four, 8, 24, total),
        "/16": _largest(four, 16, 16, total),
        "/64": _largest(networks, 0, 64, total),
        "/48": _largest(networks, 16, 48, total),
    }
    counts = np.concatenate((four[1], six[1]))
    return SynSources(total, len(counts), _entropy(counts), top)


Counted = tuple[NDArray[np.unsignedinteger], NDArray[np.intp]]
"""Ascending distinct numbers, and how often each occurs."""


def _counted(numbers: NDArray[np.uint32]) -> Counted:
    low = numbers.min(initial=0xFFFFFFFF)
    span = int(numbers.max(initial=0)) - int(low) + 1
    if 0 < span <= _DENSE * len(numbers):  # all from one network: counting in a table is fast
        counts = np.bincount((numbers - low).astype(np.intp))
        present = np.flatnonzero(counts)
        return present.astype(np.uint32) + low, counts[present]
    return _sorted_and_counted(numbers)


_DENSE = 4
"""Up to so many table entries per connection, counting in a table costs less than sorting."""


def _sorted_and_counted(numbers: NDArray[Any]) -> Counted:
    ordered = np.sort(numbers)
    edges = run_starts(ordered)
    return ordered[edges], np.diff(np.append(edges, len(ordered)))


def _summed(ordered: NDArray[np.unsignedinteger], counts: NDArray[np.intp]) -> Counted:
    edges = run_starts(ordered)
    return ordered[edges], np.add.reduceat(counts, edges) if len(edges) else counts[:0]


def _largest(counted: Counted, dropped_bits: int, prefix: int, total: int) -> tuple[SynSource, ...]:
    numbers, counts = counted
    width = numbers.dtype.itemsize * 8
    if dropped_bits:
        numbers, counts = _summed(numbers >> numbers.dtype.type(dropped_bits), counts)
    return tuple(
        SynSource(_prefix(int(numbers[at]) << dropped_bits, width, prefix), int(counts[at]), int(counts[at]) / total)
        for at in _top(counts)
    )


def _largest6(hashes: NDArray[np.uint64], halves: NDArray[np.uint64], counted: Counted, total: int) -> list[SynSource]:
    sources = []
    for at in _top(counted[1]):
        high, low = halves[int(np.argmax(hashes == counted[0][at]))].tolist()
        count = int(counted[1][at])
        sources.append(SynSource(str(ipaddress.IPv6Address(high << 64 | low)), count, count / total))
    return sources


def _top(counts: NDArray[np.intp]) -> list[int]:
    """Return the indices of the TOP largest counts, largest first; among equal counts the first ones."""
    if len(counts) > TOP:
        # Find the largest count that TOP entries reach; numpy's partition takes 0.15 s for a million equal counts.
        low, high = 1, int(counts.max())
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if np.count_nonzero(counts >= middle) >= TOP else (low, middle - 1)
        above = np.flatnonzero(counts > low)
        places = np.sort(np.append(above, np.flatnonzero(counts == low)[: TOP - len(above)]))
    else:
        places = np.arange(len(counts))
    return [int(at) for at in places[np.argsort(-counts[places], kind="stable")]]


def _prefix(number: int, width: int, prefix: int) -> str:
    if width == 32:
        address = str(ipaddress.IPv4Address(number))
        return address if prefix == 32 else f"{address}/{prefix}"
    return f"{ipaddress.IPv6Address(number << 64)}/{prefix}"


def _entropy(counts: NDArray[np.intp]) -> float:
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0
