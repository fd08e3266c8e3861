"""Sources: where connections come from, by address and by prefix, a million of them within a step."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Grouping = Literal["address", "/24", "/16", "/64", "/48"]
GROUPINGS: tuple[Grouping, ...] = ("address", "/24", "/16", "/64", "/48")
TOP = 10
"""Groups that are named."""


@dataclass(frozen=True, slots=True)
class Source:
    """One address or network."""

    prefix: str
    """`192.0.2.7`, `192.0.2.0/24`, `2001:db8::/64`; as the filter's `raddr:` takes it."""
    count: int
    share: float
    """Of all."""


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """The sources of some connections."""

    count: int
    """Connections."""
    distinct: int
    """Addresses."""
    entropy: float
    """Of the addresses' shares, in bits: 0 where all come from one, log2(distinct) where all are alike."""
    top: Mapping[Grouping, tuple[Source, ...]]
    """The largest groups, largest first: of IPv4 by address, /24 and /16, of IPv6 by address, /64 and /48."""

    @property
    def distinct_share(self) -> float:
        """Addresses per connection: near 1, hardly any address came twice; 0 where there are none."""
        return self.distinct / self.count if self.count else 0.0

    def largest(self, grouping: Grouping) -> Source | None:
        """The largest group, None where there is none."""
        return next(iter(self.top[grouping]), None)


def sources(v4: NDArray[np.bool_], halves: NDArray[np.uint64]) -> Sources:
    """Of connections with these remote addresses: shape (n, 2), host-order halves, IPv4 in the second (where `v4`)."""
    total = len(v4)
    every = bool(v4.all())
    four = _counted((halves[:, 1] if every else halves[v4, 1]).astype(np.uint32))
    none = np.empty((0, 2), np.uint64)
    six = _counted_pairs(none if every else halves[~v4])
    addresses = (*_largest(four, 0, 32, total), *_largest_pairs(*six, total))
    networks = _counted_again(six[0][:, 0], six[1])
    top: dict[Grouping, tuple[Source, ...]] = {
        "address": tuple(sorted(addresses, key=lambda source: -source.count)[:TOP]),
        "/24": _largest(four, 8, 24, total),
        "/16": _largest(four, 16, 16, total),
        "/64": _largest(networks, 0, 64, total),
        "/48": _largest(networks, 16, 48, total),
    }
    counts = np.concatenate((four[1], six[1]))
    return Sources(total, len(counts), _entropy(counts), top)


Counted = tuple[NDArray[np.unsignedinteger], NDArray[np.intp]]
"""Ascending distinct numbers, and how often each came."""


def _counted(numbers: NDArray[np.unsignedinteger]) -> Counted:
    ordered = np.sort(numbers)
    edges = _edges(ordered)
    return ordered[edges], np.diff(np.append(edges, len(ordered)))


def _counted_again(numbers: NDArray[np.unsignedinteger], counts: NDArray[np.intp]) -> Counted:
    """The same for numbers that each stand for so many."""
    order = np.argsort(numbers)
    return _summed(numbers[order], counts[order])


def _summed(ordered: NDArray[np.unsignedinteger], counts: NDArray[np.intp]) -> Counted:
    edges = _edges(ordered)
    return ordered[edges], np.add.reduceat(counts, edges) if len(edges) else counts[:0]


def _edges(ordered: NDArray[np.unsignedinteger]) -> NDArray[np.intp]:
    """Where a new number begins."""
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))[: len(ordered)]


def _counted_pairs(halves: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """Distinct IPv6 addresses, shape (n, 2), and how often each came.

    They are told apart by a number mixed of both halves: to sort pairs takes ten times as long, and that two of a
    million share one by chance does not happen in practice.
    """
    mixed = (halves[:, 0] * np.uint64(0x9E3779B97F4A7C15)) ^ halves[:, 1]
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    order = np.argsort(mixed)
    edges = _edges(mixed[order])
    return halves[order[edges]], np.diff(np.append(edges, len(order)))


def _largest(counted: Counted, dropped_bits: int, prefix: int, total: int) -> tuple[Source, ...]:
    numbers, counts = counted
    width = numbers.dtype.itemsize * 8
    if dropped_bits:
        numbers, counts = _summed(numbers >> numbers.dtype.type(dropped_bits), counts)
    return tuple(
        Source(_prefix(int(numbers[at]) << dropped_bits, width, prefix), int(counts[at]), int(counts[at]) / total)
        for at in _top(counts)
    )


def _largest_pairs(halves: NDArray[np.uint64], counts: NDArray[np.intp], total: int) -> tuple[Source, ...]:
    return tuple(
        Source(
            str(ipaddress.IPv6Address(int(halves[at, 0]) << 64 | int(halves[at, 1]))),
            int(counts[at]),
            int(counts[at]) / total,
        )
        for at in _top(counts)
    )


def _top(counts: NDArray[np.intp]) -> list[int]:
    """Places of the TOP largest, largest first, of equal ones the first."""
    if len(counts) > 4 * TOP:
        least = np.partition(counts, len(counts) - TOP)[len(counts) - TOP]
        above = np.flatnonzero(counts > least)
        places = np.sort(np.append(above, np.flatnonzero(counts == least)[: TOP - len(above)]))
    else:
        places = np.arange(len(counts))
    return [int(at) for at in places[np.argsort(-counts[places], kind="stable")][:TOP]]


def _prefix(number: int, width: int, prefix: int) -> str:
    if width == 32:
        address = str(ipaddress.IPv4Address(number))
        return address if prefix == 32 else f"{address}/{prefix}"
    return f"{ipaddress.IPv6Address(number << 64)}/{prefix}"


def _entropy(counts: NDArray[np.intp]) -> float:
    if not len(counts):
        return 0.0
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0
