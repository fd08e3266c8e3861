"""Columns of a table of records, and its lines.

A column is, for instance,

    RecordColumn("name", "Name", "Name of the record", lambda record, look: ((record.name, look.colours.plain),),
                 lambda record: record.name, 12, grow=8, priority=0)

where `record` is a record of any type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rich.style import Style

from tcpwatch.widgets.lines import Line, Piece, cells_of, cropped, fit
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.table.layout import PlacedColumn

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class CellContext:
    """How a cell is drawn."""

    width: int
    """Its cells. A longer text is cut; a bar fills them."""
    colours: Palette
    exact: bool
    """Show exact numbers, instead of names and rounded numbers."""


@dataclass(frozen=True, slots=True)
class RecordColumn(Generic[R]):
    """One column of a table of records."""

    key: str
    title: str
    help: str
    draw: Callable[[R, CellContext], Line]
    """Returns the pieces of a cell; the table pads or cuts them."""
    sort: Callable[[R], Any] | None
    """Returns the sort key; None is unknown and comes last. Without it rows cannot be sorted by the column."""
    width: int
    """Cells in a table."""
    grow: int = 0
    """Cells that it may have beyond `width` if there is room."""
    priority: int = 9
    """Columns of a high number are left out first; 0 always stays. See layout.ESSENTIAL."""
    right: bool = False


def record_pieces(
    record: R, mark: str, columns: Sequence[PlacedColumn[RecordColumn[R]]], exact: bool, colours: Palette
) -> list[Piece]:
    """Return a row with its mark at the left edge."""
    pieces: list[Piece] = [(mark, colours.strong)]
    at = 0
    for placed in columns:
        pieces.append((" " * (placed.left - at), colours.plain))
        look = CellContext(placed.width, colours, exact)
        pieces += fit_pieces(placed.column.draw(record, look), placed.width, placed.column.right)
        at = placed.left + placed.width
    return pieces


def longest_text(column: RecordColumn[R], records: Iterable[R], exact: bool, colours: Palette) -> int:
    """Return the cells of the longest text in a column that may grow."""
    look = CellContext(column.width + column.grow, colours, exact)
    return max((cells_of(column.draw(record, look)) for record in records), default=0)


def without_commas(figure: str, width: int) -> str:
    """Return the figure, without its commas if it is too wide with them."""
    return figure if len(figure) <= width else figure.replace(",", "")


def fit_pieces(line: Line, width: int, right: bool) -> list[Piece]:
    """Return the pieces in exactly `width` cells; a single text is cut in the middle, several at the end."""
    if len(line) == 1:
        text, style = line[0]
        return [(fit(text, width, right, middle=not right), style)]
    line = cropped(line, width)
    pad = (" " * (width - cells_of(line)), Style.null())
    return [pad, *line] if right else [*line, pad]


def sorted_records(
    records: Sequence[R], key: Callable[[R], Any] | None, reverse: bool, children: Callable[[R], Sequence[R]]
) -> list[R]:
    """Return records sorted by the key, unknown keys last in both directions; children follow their parent."""
    ordered = records
    if key is not None:
        keys = [(key(record), record) for record in records]
        known = sorted((pair for pair in keys if pair[0] is not None), key=lambda pair: pair[0], reverse=reverse)
        ordered = [record for _, record in known] + [record for value, record in keys if value is None]
    shown: list[R] = []
    for record in ordered:
        shown.append(record)
        if inner := children(record):
            shown += sorted_records(inner, key, reverse, children)
    return shown
