"""SocketTable: one row per socket. Only rows in sight become text, so a million scroll as fast as a hundred."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import cast

from rich.cells import cell_len

from tcpwatch.model.columns.columns import BY_KEY, IN_TABLE, MARK_SIGNS, SocketColumn
from tcpwatch.model.query.arrangement import Arrangement, SocketLine
from tcpwatch.model.sockets.rows import Mark
from tcpwatch.screens.shared.page import NO_DATA
from tcpwatch.screens.shared.state_marks import state_style
from tcpwatch.screens.shared.table_page import no_match_lines
from tcpwatch.widgets.lines import Line, Piece, fit
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.table.cursor_table import CursorTable
from tcpwatch.widgets.table.layout import PlacedColumn

_STATED = ("state", "phase")
"""Columns in the colour of the state."""


class SocketTable(CursorTable[SocketColumn]):
    """Shows an Arrangement; the page supplies another one for another order."""

    def __init__(self) -> None:
        super().__init__(IN_TABLE, BY_KEY["state"], reverse=False)
        self.arrangement: Arrangement | None = None
        """The rows on screen; None before the first."""
        self._texts: dict[int, SocketLine] = {}

    def show(self, arrangement: Arrangement) -> None:
        """Show these rows."""
        self._change(lambda: setattr(self, "arrangement", arrangement))

    @property
    def cursor_cookie(self) -> int | None:
        """Cookie of the flow under the cursor; None if there is no row."""
        return self._identity(self._cursor) if self._cursor < self._count else None

    # CursorTable

    @property
    def _count(self) -> int:
        return len(self.arrangement or ())

    def _identity(self, place: int) -> int:
        assert self.arrangement is not None
        return self.arrangement.cookie(place)

    def _place(self, identity: Hashable) -> int | None:
        return self.arrangement.place(cast(int, identity)) if self.arrangement is not None else None

    def _hides(self, identity: Hashable) -> bool:
        return self.arrangement is not None and self.arrangement.rows.find(cast(int, identity)) is not None

    @property
    def _question(self) -> Hashable:
        shown = self.arrangement
        return None if shown is None else (shown.filter, shown.reverse)

    @property
    def _sorted_by(self) -> SocketColumn | None:
        return self.arrangement.column if self.arrangement is not None else None

    def _prepare(self, first: int, last: int, colours: Palette) -> bool:
        assert self.arrangement is not None
        columns = [placed.column for placed in self._layout.placed]
        texts = self.arrangement.lines(first, last, columns, self.exact)
        self._texts = dict(enumerate(texts, first))
        longest = (max(cell_len(line.cells[i]) for line in texts) for i in range(len(columns)))
        return self._layout.widen(zip(columns, longest, strict=True))

    def _row(self, place: int, colours: Palette) -> Line:
        return tuple(row_pieces(self._texts[place], self._layout.placed, colours))

    def _why_empty(self) -> Sequence[str]:
        shown = self.arrangement
        if shown is None:
            return (NO_DATA,)
        return no_match_lines(shown.total, "sockets") if shown.total else ("No TCP sockets.",)


def row_pieces(line: SocketLine, columns: Sequence[PlacedColumn[SocketColumn]], colours: Palette) -> list[Piece]:
    """Return a row: bold if it is new, with a bold state if that changed, dim if it closed."""
    plain = {Mark.NEW: colours.strong, Mark.CLOSED: colours.dim}.get(line.mark, colours.plain)
    stated = colours.dim if line.mark is Mark.CLOSED else state_style(line.state, colours)
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
    """Return the text in the column's width, or the one without names if that is shorter."""
    too_wide = cell_len(text) > placed.width
    right = placed.column.right
    return fit(min(text, without_names, key=len) if too_wide else text, placed.width, right, middle=not right)
