"""Which columns a table of a given width shows, and how wide they are."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from tcpwatch.units.columns import columns_that_fit

GAP = 1
"""Empty cells before each column."""

ESSENTIAL = 5
"""Columns up to this priority grow before the others get a place."""


class ColumnSpec(Protocol):
    """The attributes of every column; see model.columns.SocketColumn."""

    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def grow(self) -> int: ...  # noqa: D102
    @property
    def priority(self) -> int: ...  # noqa: D102
    @property
    def right(self) -> bool: ...  # noqa: D102


C = TypeVar("C", bound=ColumnSpec)


@dataclass(frozen=True, slots=True)
class PlacedColumn(Generic[C]):
    """A column at the cell `left`, `width` cells wide."""

    column: C
    left: int
    width: int


class TableLayout(Generic[C]):
    """Columns laid out for the rows in sight: they widen for longer texts, and narrow only with a new question."""

    def __init__(self) -> None:
        self.placed: tuple[PlacedColumn[C], ...] = ()
        self._columns: Sequence[C] = ()
        self._room = 0
        self._preferred = ""
        self._question: Hashable = None
        self._wants: dict[str, int] = {}

    def lay_out(self, columns: Sequence[C], room: int, preferred: str, question: Hashable) -> None:
        """Lay out those of these columns that fit into `room` cells; `preferred` as in laid_out."""
        if (columns, preferred, question) != (self._columns, self._preferred, self._question):
            self._wants.clear()
        self._columns, self._room, self._preferred, self._question = columns, room, preferred, question
        self._lay_out()

    def widen(self, longest: Iterable[tuple[C, int]]) -> bool:
        """Widen columns for their longest texts, given in cells; True if that moved the columns."""
        before = self.placed
        for column, cells in longest:
            want = min(cells - column.width, column.grow)
            self._wants[column.key] = max(want, self._wants.get(column.key, 0))
        self._lay_out()
        return self.placed != before

    def may_widen(self, column: C) -> bool:
        """Return whether a longer text would widen the column."""
        return self._wants.get(column.key, 0) < column.grow

    def _lay_out(self) -> None:
        self.placed = laid_out(self._columns, self._room, self._wants, self._preferred)


def laid_out(
    columns: Sequence[C], room: int, wants: Mapping[str, int], preferred: str = ""
) -> tuple[PlacedColumn[C], ...]:
    """Return the columns that fit into `room` cells, in their order.

    `wants` has the cells that a column's texts need beyond its width, by key; `preferred` is the key of a column shown
    whatever its priority. Columns up to ESSENTIAL get a place, then what they want; then the others.
    """

    def priority(column: C) -> float:
        return 0.5 if column.priority and column.key == preferred else column.priority

    ranked = sorted(columns, key=priority)
    main = [column for column in ranked if column.priority <= ESSENTIAL or column.key == preferred]
    widths: dict[str, int] = {}
    for some in (main, [column for column in ranked if column not in main]):
        fitting = columns_that_fit(some, room, lambda column: column.width + GAP, priority)
        widths |= {column.key: column.width for column in fitting}
        room = max(room - sum(column.width + GAP for column in fitting), 0)
        room = _grow(fitting, room, widths, wants)
    placed, at = [], 0
    for column in columns:
        if column.key in widths:
            placed.append(PlacedColumn(column, at + GAP, widths[column.key]))
            at += GAP + widths[column.key]
    return tuple(placed)


def _grow(columns: Sequence[ColumnSpec], room: int, widths: dict[str, int], wants: Mapping[str, int]) -> int:
    """Give columns what they want while there is room, then the rest to the smallest unmet want; return the rest."""
    unmet = {}
    for column in columns:
        want = min(wants.get(column.key, 0), column.grow)
        if want <= room:
            room -= want
            if want:
                widths[column.key] += want
        else:
            unmet[column.key] = want
    if unmet:
        widths[min(unmet, key=unmet.__getitem__)] += room
        room = 0
    return room
