"""The header of a table, and the sign of its cursor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from rich.cells import cell_len
from rich.style import Style

from tcpwatch.widgets.lines import Piece, fit
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.table.layout import C, PlacedColumn

MARK_CELLS = 1
"""Cells left of the columns, for the mark. The cursor's sign is in the gap before the first column."""


@dataclass(frozen=True, slots=True)
class Sorting(Generic[C]):
    """How rows are sorted, and whether the column is being chosen now."""

    column: C
    reverse: bool
    choosing: bool

    @property
    def arrow(self) -> str:
        """Sign for the direction of the order."""
        return "▼" if self.reverse else "▲"


def header_pieces(columns: Sequence[PlacedColumn[C]], sorting: Sorting[C], colours: Palette) -> list[Piece]:
    """Return the titles; the arrow is in the gap before its title, so that it takes no room."""
    pieces: list[Piece] = []
    at = -MARK_CELLS
    for placed in columns:
        is_key = placed.column is sorting.column
        arrow = sorting.arrow if is_key else ""
        style = Style(bold=True, reverse=True) if is_key and sorting.choosing else colours.strong
        title, left = placed.column.title, placed.left
        if placed.column.right:  # an arrow far from its title would seem to belong to the previous column
            left += max(0, placed.width - cell_len(title))
        pieces += [(" " * (left - at - len(arrow)), colours.plain), (arrow, colours.key)]
        at = placed.left + placed.width
        pieces.append((fit(title, at - left, middle=True), style))
    return pieces


def with_cursor(row: Sequence[Piece]) -> list[Piece]:
    """Return the row with the cursor's sign in the gap before the first column."""
    mark, (gap, style), *cells = row
    return [mark, (f"▸{gap[1:]}", style), *cells]
