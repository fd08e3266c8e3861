"""GrowingTuple: a sequence that one thread appends to while others read its snapshots."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class GrowingTuple(Generic[T]):
    """Items in the order in which they were added."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._snapshot: tuple[T, ...] = ()

    def __len__(self) -> int:
        return len(self._items)

    def append(self, item: T) -> None:
        """Add an item; earlier snapshots do not have it."""
        self._items.append(item)

    def snapshot(self) -> tuple[T, ...]:
        """Return the items; the same object as before if there are no new ones."""
        if len(self._snapshot) != len(self._items):
            self._snapshot = tuple(self._items)
        return self._snapshot
