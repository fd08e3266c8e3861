"""Which columns a table of a given width shows, and how wide; and text cut to fit a cell."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from rich.cells import cell_len, set_cell_size

GAP = 1
"""Empty cells before each column."""

ESSENTIAL = 5
"""Columns up to this priority grow before the others get a place."""


class ColumnSpec(Protocol):
    """What a column of any table tells about itself; see model.columns.Column."""

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
    """A column in a table: from the cell `left` on, `width` cells."""

    column: C
    left: int
    width: int


class TableLayout(Generic[C]):
    """Columns laid out for what is in sight: they widen for texts that come, and narrow only with a new question."""

    def __init__(self) -> None:
        self.placed: tuple[PlacedColumn[C], ...] = ()
        self._columns: Sequence[C] = ()
        self._room = 0
        self._asked = ""
        self._question: Hashable = None
        self._wants: dict[str, int] = {}

    def lay_out(self, columns: Sequence[C], room: int, asked: str, question: Hashable) -> None:
        """Of these columns those that fit into `room` cells; `asked` as in laid_out, and a part of the question."""
        if (columns, asked, question) != (self._columns, self._asked, self._question):
            self._wants.clear()
        self._columns, self._room, self._asked, self._question = columns, room, asked, question
        self._lay_out()

    def widen(self, longest: Iterable[tuple[C, int]]) -> bool:
        """Make room for texts of so many cells in these columns; True if that moved the columns."""
        before = self.placed
        for column, cells in longest:
            want = min(cells - column.width, column.grow)
            self._wants[column.key] = max(want, self._wants.get(column.key, 0))
        self._lay_out()
        return self.placed != before

    def may_widen(self, column: C) -> bool:
        """Whether a longer text would change anything."""
        return self._wants.get(column.key, 0) < column.grow

    def _lay_out(self) -> None:
        self.placed = laid_out(self._columns, self._room, self._wants, self._asked)


def laid_out(columns: Sequence[C], room: int, wants: Mapping[str, int], asked: str = "") -> tuple[PlacedColumn[C], ...]:
    """The columns that fit into `room` cells, in their order.

    `wants` is what a column's texts need beyond its width, by key; `asked` is the key of a column that somebody wants
    to see, whatever its priority. The most important columns get a place, then what they want; then the others.
    """
    ranked = sorted(columns, key=lambda column: (column.priority > 0, column.key != asked, column.priority))
    main = [column for column in ranked if column.priority <= ESSENTIAL or column.key == asked]
    widths: dict[str, int] = {}
    left = _place(main, room, widths)
    left = _grow(main, left, widths, wants)
    others = [column for column in ranked if column not in main]
    left = _place(others, left, widths)
    _grow(others, left, widths, wants)
    placed, at = [], 0
    for column in columns:
        if column.key in widths:
            placed.append(PlacedColumn(column, at + GAP, widths[column.key]))
            at += GAP + widths[column.key]
    return tuple(placed)


def _place(columns: Sequence[ColumnSpec], room: int, widths: dict[str, int]) -> int:
    """Give each column its width as long as there is room; returns what is left."""
    for column in columns:
        if column.width + GAP <= room or column.priority == 0:
            widths[column.key] = column.width
            room = max(room - column.width - GAP, 0)
    return room


def _grow(columns: Sequence[ColumnSpec], room: int, widths: dict[str, int], wants: Mapping[str, int]) -> int:
    """Give columns what they want, as long as they can have all of it, then the least want a part; returns the rest."""
    unmet = {}
    for column in columns:
        want = min(wants.get(column.key, 0), column.grow) if column.key in widths else 0
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


def fit_cell(text: str, width: int, right: bool = False) -> str:
    """`text` in exactly `width` cells; of numbers the end is cut off, of others the middle."""
    length = cell_len(text)
    if length <= width:
        padding = " " * (width - length)
        return padding + text if right else text + padding
    if right or width < 3:
        return set_cell_size(text, width - 1) + "…" if width > 0 else ""
    head = (width - 1) // 2
    return set_cell_size(text, head) + "…" + _last_cells(text, width - 1 - head)


def _last_cells(text: str, width: int) -> str:
    """The end of `text` in exactly `width` cells; half a wide character becomes a blank."""
    start, length = len(text), 0
    while start > 0 and length + cell_len(text[start - 1]) <= width:
        start -= 1
        length += cell_len(text[start])
    return " " * (width - length) + text[start:]
