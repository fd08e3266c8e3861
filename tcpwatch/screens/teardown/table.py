"""Tables inside a page of lines: each has a title that heads its columns, and a window of rows of fixed height.

What is longer than its window moves with the cursor, so that nothing below it ever moves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rich.cells import cell_len

from tcpwatch.units.columns import columns_that_fit
from tcpwatch.widgets.lines import Line, Piece, cells_of, fit, overlay_style
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import GUTTER

R = TypeVar("R")
_MARK = 3
_NARROWEST, _NARROWEST_NAME = 4, 14
"""Cells that the column that takes what the others leave has at least, as long as there are others to do without."""

RowPlace = tuple[str, Hashable]
"""A row by its table and what it stands for: what the cursor is on."""
RowSpots = tuple[tuple[int, RowPlace], ...]
"""Which rows a line shows, each with the cell where it begins."""


@dataclass(frozen=True, slots=True)
class InlineCellContext:
    """How a cell is drawn."""

    colours: Palette
    exact: bool
    width: int


@dataclass(frozen=True, slots=True)
class InlineColumn(Generic[R]):
    """One column; figures stand on the right, and names on the left."""

    title: str
    width: int
    """0 for the one column of a table that takes what the others leave."""
    show: Callable[[R, InlineCellContext], Piece]
    right: bool = True
    named: bool = False
    """An address or a process: of one that is too long the middle is left out."""
    priority: int = 0
    """Columns of a high number are left out first where it is narrow; one of 0 never is."""

    def piece(self, record: R, look: InlineCellContext) -> Piece:
        """In exactly so many cells."""
        shown, style = self.show(record, look)
        return fit(shown, look.width, right=self.right, middle=self.named), style


@dataclass(frozen=True, slots=True)
class InlineTable(Generic[R]):
    """The rows, and what stands behind them."""

    name: str
    title: str
    records: Sequence[R]
    columns: Callable[[int], Sequence[InlineColumn[R]]]
    """For a table of so many cells."""
    identity: Callable[[R], Hashable]
    filter: Callable[[R], str]
    """Selects the sockets that a row stands for."""
    detail: Callable[[R, bool], str]
    """All that there is to say of a row; exactly, or not."""
    empty: str

    @property
    def places(self) -> list[RowPlace]:
        """What the cursor can be on."""
        return [(self.name, self.identity(record)) for record in self.records]

    def record(self, place: RowPlace) -> R | None:
        """The one at this place."""
        return next((one for one in self.records if (self.name, self.identity(one)) == place), None)


@dataclass(frozen=True, slots=True)
class InlineBlock:
    """Lines, and the rows that they show."""

    lines: Sequence[Line]
    spots: Sequence[RowSpots]

    @classmethod
    def of(cls, *lines: Line) -> InlineBlock:
        """Lines without rows."""
        return cls(lines, [()] * len(lines))


def stacked(*blocks: InlineBlock) -> InlineBlock:
    """One below the other."""
    return InlineBlock([line for one in blocks for line in one.lines], [spots for one in blocks for spots in one.spots])


def beside(left: InlineBlock, right: InlineBlock, cells: int, colours: Palette) -> InlineBlock:
    """Two in columns of so many cells, with a gutter between them."""
    lines, spots = [], []
    for y in range(max(len(left.lines), len(right.lines))):
        line, other = (one.lines[y] if y < len(one.lines) else () for one in (left, right))
        blanks = " " * (cells + GUTTER - cells_of(line))
        lines.append((*line, (blanks, colours.plain), *other))
        there = right.spots[y] if y < len(right.spots) else ()
        moved = tuple((x + cells + GUTTER, place) for x, place in there)
        spots.append((*(left.spots[y] if y < len(left.spots) else ()), *moved))
    return InlineBlock(lines, spots)


def table_block(
    table: InlineTable[Any], rows: int, width: int, cursor: RowPlace | None, colours: Palette, exact: bool, *below: Line
) -> InlineBlock:
    """The title, the lines that belong `below` it, and so many rows, the one with the cursor among them."""
    columns = _sized(table.columns(width), width)
    places = table.places
    rank = places.index(cursor) if cursor in places else 0
    first = max(0, rank - rows + 1)
    shown = list(zip(places, table.records, strict=True))[first : first + rows]
    lines = [_title(table.title, columns, width, colours), *below]
    spots: list[RowSpots] = [()] * len(lines)
    for at, (place, record) in enumerate(shown):
        above, more = at == 0 and first > 0, at == rows - 1 and len(places) > first + rows
        mark = ("▸" if place == cursor else " ") + ("↑" if above else "↓" if more else " ")
        line = _row(record, mark, columns, colours, exact)
        lines.append(overlay_style(line, width, colours.cursor) if place == cursor else line)
        spots.append(((0, place),))
    if not shown and rows:
        lines.append(((" " * _MARK + fit(table.empty, max(0, width - _MARK - 1)), colours.dim),))
        spots.append(())
    missing = rows - max(len(shown), 1) if rows else 0
    return InlineBlock([*lines, *[()] * missing], [*spots, *[()] * missing])


def _sized(columns: Sequence[InlineColumn[R]], width: int) -> list[tuple[InlineColumn[R], int]]:
    """Return the columns that fit, each with its cells; a blank stands before all but the first."""

    def least(column: InlineColumn[R]) -> int:
        return (column.width or (_NARROWEST_NAME if column.named else _NARROWEST)) + 1

    shown = columns_that_fit(columns, width - _MARK, least, lambda column: column.priority)
    rest = width - _MARK - sum(column.width for column in shown) - len(shown)
    return [(column, column.width or max(0, rest)) for column in shown]


def _title(title: str, columns: Sequence[tuple[InlineColumn[R], int]], width: int, colours: Palette) -> Line:
    """`── Title ─────   head   head`: heads stand above their columns."""
    first = next((at for at, (column, _) in enumerate(columns) if column.title), len(columns))
    heads = "".join(" " + fit(column.title, cells, right=column.right) for column, cells in columns[first:])
    # Blanks of the first head give way to the line that the title draws.
    heads = heads.lstrip()
    left = width - cell_len(heads) - 1 - bool(heads)
    title = fit(title, max(1, left - 6)) if cell_len(title) > left - 6 else title
    dashes = "─" * max(0, left - cell_len(title) - 5)
    return ((" ── ", colours.dim), (title, colours.strong), (f" {dashes}{' ' * bool(heads)}{heads} ", colours.dim))


def _row(record: R, mark: str, columns: Sequence[tuple[InlineColumn[R], int]], colours: Palette, exact: bool) -> Line:
    pieces: list[Piece] = [(f" {mark}", colours.strong)]
    for at, (column, cells) in enumerate(columns):
        shown, style = column.piece(record, InlineCellContext(colours, exact, cells))
        pieces.append((" " * (at > 0) + shown, style))
    return tuple(pieces)
