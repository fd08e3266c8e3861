"""Choose the columns that fit into a width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def columns_that_fit(
    columns: Sequence[T], room: int, width: Callable[[T], int], priority: Callable[[T], float]
) -> list[T]:
    """Return the columns that fit into `room` cells together, in their order.

    Columns of a low `priority` get a place before those of a higher one, and of equals the first does. A column that
    does not fit is left out, and narrower ones may still get a place. Columns of priority 0 are always there.
    """
    chosen = set()
    for at in sorted(range(len(columns)), key=lambda at: priority(columns[at])):
        cells = width(columns[at])
        if cells <= room or not priority(columns[at]):
            chosen.add(at)
            room = max(room - cells, 0)
    return [column for at, column in enumerate(columns) if at in chosen]
