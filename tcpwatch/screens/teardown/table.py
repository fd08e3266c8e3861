"""InlineTable: a small table in a page of lines, with its title and column titles on one line and a fixed height.

A table with more rows than its height scrolls with the cursor, so that nothing below it moves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Generic, TypeVar

from rich.cells import cell_len

from tcpwatch.units.columns import columns_that_fit
from tcpwatch.widgets.lines import Line, Piece, fit, overlay_style
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import GUTTER, side_by_side
from tcpwatch.widgets.table.record_columns import CellContext

R = TypeVar("R")
_MARK = 3
_NARROWEST, _NARROWEST_NAME = 4, 14
"""Smallest widths of the flexible column, unless no other column can be left out."""

RowPlace = tuple[str, Hashable]
"""The name of the table and the identity of the row: an item for the cursor."""
RowSpots = tuple[tuple[int, RowPlace], ...]
"""The rows that a line shows, each with the cell where it begins."""


@dataclass(frozen=True, slots=True)
class InlineColumn(Generic[R]):
    """A column of an InlineTable."""

    title: str
    width: int
    """0 for the one flexible column, which takes the remaining cells."""
    show: Callable[[R, CellContext], Piece]
    right: bool = True
    """Whether the text is aligned to the right."""
    named: bool = False
    """Whether it is an address or a process: if too long, it is cut in the middle."""
    priority: int = 0
    """In a narrow table, columns with a high number are left out first; 0 is never left out."""

    def piece(self, record: R, cell: CellContext) -> Piece:
        """Return the text in exactly `cell.width` cells, and its style."""
        shown, style = self.show(record, cell)
        return fit(shown, cell.width, right=self.right, middle=self.named), style


@dataclass(frozen=True, slots=True)
class InlineTable(Generic[R]):
    """A table of records, one per row."""

    name: str
    title: str
    records: Sequence[R]
    columns: Callable[[int], Sequence[InlineColumn[R]]]
    """Table width in cells → its columns."""
    identity: Callable[[R], Hashable]
    filter: Callable[[R], str]
    """Record → filter of its sockets."""
    detail: Callable[[R, bool], str]
    """(record, exact) → text with the details of a row."""
    empty: str
    """Shown if there are no records."""
    short_title: str = ""
    """Shown if the title does not fit; if empty, the title is cut."""

    @property
    def places(self) -> list[RowPlace]:
        """All rows, as items for the cursor."""
        return [(self.name, self.identity(record)) for record in self.records]

    def record(self, place: RowPlace) -> R | None:
        """Return the record at this place; None if it does not exist any more."""
        return next((record for record in self.records if (self.name, self.identity(record)) == place), None)


@dataclass(frozen=True, slots=True)
class InlineBlock:
    """Lines, and the rows that they show."""

    lines: Sequence[Line]
    spots: Sequence[RowSpots]

    @classmethod
    def of(cls, *lines: Line) -> InlineBlock:
        """Build a block of lines without rows."""
        return cls(lines, [()] * len(lines))


def stacked(*blocks: InlineBlock) -> InlineBlock:
    """Return the blocks one below another."""
    lines = [line for block in blocks for line in block.lines]
    return InlineBlock(lines, [spots for block in blocks for spots in block.spots])


def beside(left: InlineBlock, right: InlineBlock, cells: int, colours: Palette) -> InlineBlock:
    """Return two blocks in columns of `cells` cells, with a gutter between them."""
    spots = [
        (*left_spots, *((x + cells + GUTTER, place) for x, place in right_spots))
        for left_spots, right_spots in zip_longest(left.spots, right.spots, fillvalue=())
    ]
    return InlineBlock(list(side_by_side((left.lines, right.lines), cells, colours)), spots)


def table_block(
    table: InlineTable[Any], rows: int, width: int, cursor: RowPlace | None, colours: Palette, exact: bool, *below: Line
) -> InlineBlock:
    """Return the title, the lines that belong `below` it, and `rows` rows, including the one with the cursor."""
    columns = _sized(table.columns(width), width)
    places = table.places
    rank = places.index(cursor) if cursor in places else 0
    first = max(0, rank - rows + 1)
    shown = list(zip(places, table.records, strict=True))[first : first + rows]
    lines = [_title(table, columns, width, colours), *below]
    spots: list[RowSpots] = [()] * len(lines)
    for at, (place, record) in enumerate(shown):
        more_above, more_below = at == 0 and first > 0, at == rows - 1 and len(places) > first + rows
        mark = ("▸" if place == cursor else " ") + ("↑" if more_above else "↓" if more_below else " ")
        line = _row(record, mark, columns, colours, exact)
        lines.append(overlay_style(line, width, colours.cursor) if place == cursor else line)
        spots.append(((0, place),))
    if not shown and rows:
        lines.append(((" " * _MARK + fit(table.empty, max(0, width - _MARK - 1)), colours.dim),))
        spots.append(())
    missing = rows - max(len(shown), 1) if rows else 0
    return InlineBlock([*lines, *[()] * missing], [*spots, *[()] * missing])


def _sized(columns: Sequence[InlineColumn[R]], width: int) -> list[tuple[InlineColumn[R], int]]:
    """Return the columns that fit, each with its width in cells; all but the first have a blank before them."""

    def least(column: InlineColumn[R]) -> int:
        return (column.width or (_NARROWEST_NAME if column.named else _NARROWEST)) + 1

    shown = columns_that_fit(columns, width - _MARK, least, lambda column: column.priority)
    rest = width - _MARK - sum(column.width for column in shown) - len(shown)
    return [(column, column.width or max(0, rest)) for column in shown]


def _title(
    table: InlineTable[Any], columns: Sequence[tuple[InlineColumn[R], int]], width: int, colours: Palette
) -> Line:
    """Return `── Title ─────   head   head`, with the title of each column above it."""
    first = next((at for at, (column, _) in enumerate(columns) if column.title), len(columns))
    heads = "".join(" " + fit(column.title, cells, right=column.right) for column, cells in columns[first:])
    heads = heads.lstrip()  # the rule of the title replaces the blanks
    left = width - cell_len(heads) - 1 - bool(heads)
    title = table.title if cell_len(table.title) <= left - 6 else table.short_title or table.title
    title = fit(title, max(1, left - 6)) if cell_len(title) > left - 6 else title
    dashes = "─" * max(0, left - cell_len(title) - 5)
    return ((" ── ", colours.dim), (title, colours.strong), (f" {dashes}{' ' * bool(heads)}{heads} ", colours.dim))


def _row(record: R, mark: str, columns: Sequence[tuple[InlineColumn[R], int]], colours: Palette, exact: bool) -> Line:
    pieces: list[Piece] = [(f" {mark}", colours.strong)]
    for at, (column, cells) in enumerate(columns):
        shown, style = column.piece(record, CellContext(cells, colours, exact))
        pieces.append((" " * (at > 0) + shown, style))
    return tuple(pieces)
