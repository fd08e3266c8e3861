"""Columns of a table whose rows are records of any kind, and the lines that they make.

A column is, for instance,

    RecordColumn("name", "Name", "What it is called", lambda one, look: ((one.name, look.colours.plain),),
                 lambda one: one.name, 12, grow=8, priority=0)

where `one` is a record: the table knows nothing else of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.style import Style

from tcpwatch.widgets.lines import Line, Piece, cells_of
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.table_layout import Placed, fitted, laid_out

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Look:
    """How a cell is to be drawn."""

    width: int
    """Its cells. A text may be longer and is cut then; a bar takes what there is."""
    colours: Palette
    exact: bool
    """Numbers as they are, instead of names and rounded ones."""


@dataclass(frozen=True, slots=True)
class RecordColumn(Generic[R]):
    """One column. What `Column` is for sockets, with one record at a time."""

    key: str
    title: str
    help: str
    draw: Callable[[R, Look], Line]
    """The cell's pieces; the table fills them up with blanks, or cuts them."""
    sort: Callable[[R], Any] | None
    """What the rows are sorted by; None as its answer: not known, which comes last. Without it nobody can sort so."""
    width: int
    """Cells in a table."""
    grow: int = 0
    """Cells that it may take beyond `width` where there is room."""
    priority: int = 9
    """Columns of a high number leave first when the screen is narrow; 0 stays. See table_layout.ESSENTIAL."""
    right: bool = False


@dataclass(slots=True, eq=False)
class RecordLines(Generic[R]):
    """Columns laid out for what is in sight: they widen for texts that come, and narrow only with a new question."""

    columns: Sequence[RecordColumn[R]]
    mark: Callable[[R], str]
    """A sign for the cell left of the columns."""
    exact: bool = False
    placed: tuple[Placed[RecordColumn[R]], ...] = ()
    _room: int = 0
    _asked: str = ""
    _wants: dict[str, int] = field(default_factory=dict)

    def ask(self, columns: Sequence[RecordColumn[R]], asked: str, exact: bool) -> None:
        """Of these columns those that fit, the one with the key `asked` among them."""
        if (columns, asked, exact) != (self.columns, self._asked, self.exact):
            self.columns, self._asked, self.exact = columns, asked, exact
            self._wants.clear()
        self._lay_out()

    def set_room(self, room: int) -> None:
        """So many cells for all columns together."""
        self._room = room
        self._lay_out()

    def make_room(self, records: Sequence[R], colours: Palette) -> bool:
        """Note what these want beyond the columns' widths; True if that moved the columns."""
        before = self.placed
        for column in self.columns:
            if column.grow:
                look = Look(column.width + column.grow, colours, self.exact)
                longest = max((cells_of(column.draw(record, look)) for record in records), default=0)
                want = min(longest - column.width, column.grow)
                self._wants[column.key] = max(want, self._wants.get(column.key, 0))
        self._lay_out()
        return self.placed != before

    def _lay_out(self) -> None:
        self.placed = laid_out(self.columns, self._room, self._wants, self._asked)

    def pieces(self, record: R, cursor: bool, colours: Palette) -> list[Piece]:
        """A row. The cursor's sign stands in the gap before the first column."""
        pieces: list[Piece] = [(self.mark(record), colours.strong)]
        at = 0
        for placed in self.placed:
            gap = " " * (placed.left - at)
            pieces.append((f"▸{gap[1:]}" if cursor and at == 0 else gap, colours.plain))
            look = Look(placed.width, colours, self.exact)
            pieces += in_cell(placed.column.draw(record, look), placed.width, placed.column.right)
            at = placed.left + placed.width
        return pieces


def in_cell(line: Line, width: int, right: bool) -> list[Piece]:
    """The pieces in exactly `width` cells; of a single text the middle is cut out, of several the end is cut off."""
    if len(line) == 1:
        text, style = line[0]
        return [(fitted(text, width, right), style)]
    blanks = width - cells_of(line)
    if blanks >= 0:
        pad = (" " * blanks, Style.null())
        return [pad, *line] if right else [*line, pad]
    kept: list[Piece] = []
    room = width - 1  # the last cell is the ellipsis'
    for text, style in line:
        kept.append((set_cell_size(text, min(room, cell_len(text))), style))
        room -= min(room, cell_len(text))
    return [*kept, ("…", kept[-1][1])] if width > 0 else []


def sorted_records(
    records: Sequence[R], key: Callable[[R], Any] | None, reverse: bool, children: Callable[[R], Sequence[R]]
) -> list[R]:
    """By the key, unknown ones last either way, equal ones in the order they came in; children behind their parent."""
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
