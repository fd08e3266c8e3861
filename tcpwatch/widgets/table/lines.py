"""How the lines of a table of sockets look: its header, its rows, and what is said where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from rich.cells import cell_len
from rich.style import Style

from tcpwatch.model.columns.columns import MARK_SIGNS, SocketColumn
from tcpwatch.model.query.arrangement import Arrangement, SocketLine
from tcpwatch.model.sockets.rows import Mark
from tcpwatch.units.text import count
from tcpwatch.widgets.lines import Piece, fit
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.table.layout import C, PlacedColumn

MARK_CELLS = 1
"""Cells left of the columns: the mark's sign. The cursor's stands in the gap before the first column."""

FILTER_HINT = "/ changes it, Esc takes it away."
"""What is said where a filter hides all."""

_STATED = ("state", "phase")
"""Columns in the colour of the state."""


@dataclass(frozen=True, slots=True)
class Sorting(Generic[C]):
    """How the rows are to be sorted, and whether a person is choosing it now."""

    column: C
    reverse: bool
    choosing: bool

    @property
    def arrow(self) -> str:
        """Which way the values go, down the screen."""
        return "▼" if self.reverse else "▲"


def header_pieces(columns: Sequence[PlacedColumn[C]], sorting: Sorting[C], colours: Palette) -> list[Piece]:
    """The titles. The arrow stands in the gap before its title, so that it takes no room from it."""
    pieces: list[Piece] = []
    at = -MARK_CELLS
    for placed in columns:
        is_key = placed.column is sorting.column
        arrow = sorting.arrow if is_key else ""
        style = Style(bold=True, reverse=True) if is_key and sorting.choosing else colours.strong
        title, left = placed.column.title, placed.left
        if placed.column.right:  # an arrow far from its title would belong to the column before
            left += max(0, placed.width - cell_len(title))
        pieces += [(" " * (left - at - len(arrow)), colours.plain), (arrow, colours.key)]
        at = placed.left + placed.width
        pieces.append((fit(title, at - left, middle=True), style))
    return pieces


def with_cursor(row: Sequence[Piece]) -> list[Piece]:
    """The row with the cursor's sign, in the gap before the first column."""
    mark, (gap, style), *cells = row
    return [mark, (f"▸{gap[1:]}", style), *cells]


def row_pieces(line: SocketLine, columns: Sequence[PlacedColumn[SocketColumn]], colours: Palette) -> list[Piece]:
    """A row. New ones are bold, of changed ones the state is, and closed ones are dim: more than a sign, no colour."""
    plain = {Mark.NEW: colours.strong, Mark.CLOSED: colours.dim}.get(line.mark, colours.plain)
    stated = colours.dim if line.mark is Mark.CLOSED else colours.of_phase(line.state.facts.phase)
    if line.mark in (Mark.NEW, Mark.CHANGED):
        stated += colours.strong
    pieces: list[Piece] = [(MARK_SIGNS[line.mark], colours.strong)]
    at = 0
    for placed, text, without_names in zip(columns, line.cells, line.plain, strict=True):
        pieces.append((" " * (placed.left - at), plain))
        pieces.append((_cell(text, without_names, placed), stated if placed.column.key in _STATED else plain))
        at = placed.left + placed.width
    return pieces


def _cell(text: str, without_names: str, placed: PlacedColumn[SocketColumn]) -> str:
    """The text in the column's width; the shorter one where that helps."""
    too_wide = cell_len(text) > placed.width
    right = placed.column.right
    return fit(min(text, without_names, key=len) if too_wide else text, placed.width, right, middle=not right)


def empty_lines(shown: Arrangement | None) -> Sequence[str]:
    """What is said in place of rows; nothing where there are some."""
    if shown is None:
        return ("waiting for the first answer of the kernel …",)
    if len(shown):
        return ()
    if not shown.total:
        return ("No TCP sockets here.",)
    return (f"None of {count(shown.total)} sockets passes the filter.", FILTER_HINT)
