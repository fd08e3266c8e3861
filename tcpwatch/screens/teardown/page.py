"""TeardownPage: connections that are closing or fail to close: TIME_WAIT, ephemeral ports, CLOSE_WAIT, orphans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from typing_extensions import override

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
    """The tab Teardown."""

    def __init__(self) -> None:
        super().__init__(_Teardown())

    @override
    def help_sections(self) -> Sequence[Section]:
        return [Section("Teardown", [Entry(term, meaning) for term, meaning in GLOSSARY], 15)]


class _Teardown(ViewLines[RowPlace]):
    """The lines of the page, and the cursor on the rows of all tables; on the first row until it is moved."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right", "table(1)", "next table"),
        Binding("left", "table(-1)", "previous table", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._content: TeardownTables | None = None
        self._rank = 0
        """Rank of the cursor's row in its table; the cursor stays at this rank when the row disappears."""
        self._layout: TeardownLayout | None = None

    # What is shown

    @override
    def show(self, view: View) -> None:
        self._content = TeardownTables.of(view)
        self.redraw()

    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        """Return all lines; the height of a table does not depend on its rows."""
        if self._content is None:
            return [(), ((f"   {NO_DATA}", colours.dim),)]
        self._layout = TeardownLayout(width, height, colours, self._exact)
        self._follow()
        block = self._layout.draw(self._content, self.cursor)
        self._spots = block.spots
        return block.lines

    # The cursor

    def _tables(self) -> list[list[RowPlace]]:
        """Return the rows of each table that is not empty, including rows that are scrolled out of view."""
        if self._content is None or self._layout is None:
            return []
        places = (self._content.tables[name].places for name in self._layout.table_names)
        return [rows for rows in places if rows]

    @property
    def cursor(self) -> RowPlace | None:
        """The row under the cursor."""
        tables = self._tables()
        return self._cursor or (tables[0][0] if tables else None)

    def _follow(self) -> None:
        """Keep the cursor on its row; if that has disappeared, at its rank in the same table, or on the first row."""
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
        """Move the cursor to the first row of the next table that is not empty."""
        tables = self._tables()
        at = next((at for at, rows in enumerate(tables) if self.cursor in rows), None)
        if at is not None:
            self._go_to(tables[(at + by) % len(tables)][0])

    def action_open(self) -> None:
        """Show the sockets of the row."""
        if self._content is not None and self.cursor is not None:
            self.post_message(SocketsRequested(self._content.filter(self.cursor)))
