"""Grouping: equal 64-bit numbers brought together, a million of them within some 20 ms where few are distinct."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """Which members belong together."""

    order: NDArray[np.intp]
    """Members, those of a group side by side."""
    start: NDArray[np.intp]
    """Where in `order` each group begins."""

    def __len__(self) -> int:
        return len(self.start)

    @property
    def size(self) -> NDArray[np.intp]:
        """Members of each group."""
        return np.diff(np.append(self.start, len(self.order)))

    @property
    def first(self) -> NDArray[np.intp]:
        """One member of each group."""
        return self.order[self.start]

    def sums(self, values: NDArray[np.bool_] | NDArray[np.integer]) -> NDArray[np.intp]:
        """The sum over each group of a value a member."""
        if not len(self):
            return np.empty(0, np.intp)
        return np.add.reduceat(values[self.order], self.start, dtype=np.intp)

    def least(self, values: NDArray[Any]) -> NDArray[Any]:
        """The smallest value of each group."""
        return np.minimum.reduceat(values[self.order], self.start) if len(self) else values[:0]

    def most(self, values: NDArray[Any]) -> NDArray[Any]:
        """The largest value of each group."""
        return np.maximum.reduceat(values[self.order], self.start) if len(self) else values[:0]


def group_by(numbers: NDArray[np.uint64]) -> Partition:
    """Groups of equal numbers, in no order that means anything."""
    # By 16 bits first, which numpy sorts by radix: where few numbers are distinct each such part holds one of them.
    part = (mix_bits(numbers) >> np.uint64(48)).astype(np.uint16)
    order = np.argsort(part, kind="stable")
    ordered, parts = numbers[order], part[order]
    changes = ordered[1:] != ordered[:-1]
    begins = np.append(True, parts[1:] != parts[:-1])
    shared = np.flatnonzero(changes & ~begins[1:])
    if len(shared):  # parts with several numbers: only these have to be sorted
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
    """The same numbers with every bit dependent on every other (the finalizer of splitmix64); one to one."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
