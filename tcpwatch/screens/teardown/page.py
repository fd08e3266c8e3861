"""Teardown: how connections end, and what keeps them from it: TIME_WAIT, ephemeral ports, CLOSE_WAIT, orphans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType

from tcpwatch.model.view import View
from tcpwatch.screens.shared.drawn_page import DrawnPage, ViewLines
from tcpwatch.screens.shared.page import NO_DATA, SocketsRequested
from tcpwatch.screens.teardown.glossary import GLOSSARY
from tcpwatch.screens.teardown.layout import TeardownLayout, TeardownTables
from tcpwatch.screens.teardown.table import RowPlace
from tcpwatch.widgets.lines import Line
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import Entry, Section


class TeardownPage(DrawnPage):
    """The page."""

    def __init__(self) -> None:
        super().__init__(_Teardown())

    def help_sections(self) -> Sequence[Section]:
        """Return what the help says about this page."""
        return [Section("Teardown", [Entry(word, meaning) for word, meaning in GLOSSARY], 15)]


class _Teardown(ViewLines[RowPlace]):
    """The lines, and the cursor on the rows of all tables. It is on the first row until somebody moves it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right", "table(1)", "next table"),
        Binding("left", "table(-1)", "previous table", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._subject: TeardownTables | None = None
        self._rank = 0
        """Rank of the cursor's row in its table: the cursor stays there when the row disappears."""
        self._layout: TeardownLayout | None = None

    # What is shown

    def show(self, view: View) -> None:
        """Draw this View."""
        self._subject = TeardownTables.of(view)
        self.redraw()

    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        """As Lines asks: tables of fixed height, whatever is in them."""
        if self._subject is None:
            return [(), ((f"   {NO_DATA}", colours.dim),)]
        self._layout = TeardownLayout(width, height, colours, self._exact)
        self._follow()
        block = self._layout.draw(self._subject, self.cursor)
        self._spots = block.spots
        return block.lines

    # The cursor

    def _tables(self) -> list[list[RowPlace]]:
        """The rows of each table on screen that has some, also those that its window does not show."""
        if self._subject is None or self._layout is None:
            return []
        places = (self._subject.tables[name].places for name in self._layout.table_names)
        return [rows for rows in places if rows]

    @property
    def cursor(self) -> RowPlace | None:
        """The row under the cursor."""
        tables = self._tables()
        return self._cursor or (tables[0][0] if tables else None)

    def _follow(self) -> None:
        """Keep the cursor on its row; where that has gone, at its rank in the same table, or on the first row."""
        if self._cursor is None:
            return
        rows = next((rows for rows in self._tables() if rows[0][0] == self._cursor[0]), [])
        if self._cursor in rows:
            self._rank = rows.index(self._cursor)
        else:
            self._cursor = rows[min(self._rank, len(rows) - 1)] if rows else None

    def _items(self) -> list[RowPlace]:
        return [place for rows in self._tables() for place in rows]

    def action_table(self, by: int) -> None:
        """To the first row of the next table that has some."""
        tables = self._tables()
        at = next((at for at, rows in enumerate(tables) if self.cursor in rows), None)
        if at is not None:
            self._go_to(tables[(at + by) % len(tables)][0])

    def action_open(self) -> None:
        """Show the sockets that the row stands for."""
        if self._subject is not None and self.cursor is not None:
            self.post_message(SocketsRequested(self._subject.filter(self.cursor)))
