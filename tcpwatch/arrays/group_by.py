"""Group equal 64-bit numbers: a million in about 20 ms if few are distinct."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """Members sorted into groups."""

    order: NDArray[np.intp]
    """Indices of the members; members of one group are adjacent."""
    start: NDArray[np.intp]
    """Index in `order` of the first member of each group."""

    def __len__(self) -> int:
        return len(self.start)

    @property
    def size(self) -> NDArray[np.intp]:
        """Number of members of each group."""
        return np.diff(np.append(self.start, len(self.order)))

    @property
    def first(self) -> NDArray[np.intp]:
        """One member of each group."""
        return self.order[self.start]

    def sums(self, values: NDArray[np.bool_] | NDArray[np.integer]) -> NDArray[np.intp]:
        """Return the sum of the members' values for each group."""
        if not len(self):
            return np.empty(0, np.intp)
        return np.add.reduceat(values[self.order], self.start, dtype=np.intp)

    def least(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the smallest value of each group."""
        return np.minimum.reduceat(values[self.order], self.start) if len(self) else values[:0]

    def most(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the largest value of each group."""
        return np.maximum.reduceat(values[self.order], self.start) if len(self) else values[:0]


def group_by(numbers: NDArray[np.uint64]) -> Partition:
    """Group equal numbers; the order of the groups is arbitrary."""
    # First by 16 bits, which numpy sorts by radix: if few numbers are distinct, each part holds one of them.
    part = (mix_bits(numbers) >> np.uint64(48)).astype(np.uint16)
    order = np.argsort(part, kind="stable")
    ordered, parts = numbers[order], part[order]
    changes = ordered[1:] != ordered[:-1]
    begins = np.append(True, parts[1:] != parts[:-1])
    shared = np.flatnonzero(changes & ~begins[1:])
    if len(shared):  # only parts with several numbers have to be sorted
        impure = np.zeros(1 << 16, np.bool_)
        impure[parts[shared]] = True
        where = np.flatnonzero(impure[parts])
        sorted_ = where[np.lexsort((ordered[where], parts[where]))]
        order[where], ordered[where] = order[sorted_], ordered[sorted_]
        changes = ordered[1:] != ordered[:-1]
    start = np.flatnonzero(np.append(True, changes))[: len(order)]
    return Partition(order, start)


def run_starts(ordered: NDArray[Any]) -> NDArray[np.intp]:
    """Return where each run of equal numbers begins."""
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))[: len(ordered)]


def mix_bits(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a bijective hash of each number (the finalizer of splitmix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
