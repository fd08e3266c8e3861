"""Teardown: how connections end, and what keeps them from it: TIME_WAIT, ephemeral ports, CLOSE_WAIT, orphans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import Region

from tcpwatch.model.view import View
from tcpwatch.screens.shared.page import Page, SocketsRequested
from tcpwatch.screens.teardown.glossary import GLOSSARY
from tcpwatch.screens.teardown.layout import TeardownLayout, TeardownTables
from tcpwatch.screens.teardown.table import RowPlace, RowSpots
from tcpwatch.widgets.lines import Line, Lines
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import Entry, Section


class TeardownPage(Page):
    """The page; all of it is drawn by one widget."""

    DEFAULT_CSS = "TeardownPage { height: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        # Kept here, since a View may come before the children are mounted, or when the app is ending.
        self._teardown = _Teardown()

    def compose(self) -> ComposeResult:
        """As Textual asks."""
        yield self._teardown

    def show(self, view: View) -> None:
        """As Page asks."""
        self._teardown.show(view)

    def show_exact(self, exact: bool) -> None:
        """As Page asks."""
        self._teardown.show_exact(exact)

    def help_sections(self) -> Sequence[Section]:
        """For the help."""
        return [Section("Teardown", [Entry(word, meaning) for word, meaning in GLOSSARY], 15)]


class _Teardown(Lines, can_focus=True):
    """The lines, and the cursor on the rows of all tables."""

    DEFAULT_CSS = "_Teardown { height: 1fr; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "open"),
        Binding("down,j", "move(1)", "next row", show=False),
        Binding("up,k", "move(-1)", "row before", show=False),
        Binding("right", "table(1)", "next table"),
        Binding("left", "table(-1)", "table before", show=False),
        Binding("pagedown,ctrl+d", "move(5)", "five rows down", show=False),
        Binding("pageup,ctrl+u", "move(-5)", "five rows up", show=False),
        Binding("home,g", "move(-9999)", "first row", show=False),
        Binding("end,G", "move(9999)", "last row", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._subject: TeardownTables | None = None
        self._exact = False
        self._cursor: RowPlace | None = None
        """None until somebody moves it: then the first row has it."""
        self._rank = 0
        """Of the row with the cursor in its table: where it stays when what it was on has gone."""
        self._layout: TeardownLayout | None = None
        self._spots: Sequence[RowSpots] = ()

    # What is shown

    def show(self, view: View) -> None:
        """Draw this View."""
        self._subject = TeardownTables.of(view)
        self.redraw()

    def show_exact(self, exact: bool) -> None:
        """Numbers rounded or as they are."""
        self._exact = exact
        self.redraw()

    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        """As Lines asks: tables of fixed height, whatever is in them."""
        if self._subject is None:
            return [(), (("   waiting for the first answer of the kernel …", colours.dim),)]
        self._layout = TeardownLayout(width, height, colours, self._exact)
        self._follow()
        block = self._layout.draw(self._subject, self._place)
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
    def _place(self) -> RowPlace | None:
        """Where the cursor is."""
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

    def action_move(self, by: int) -> None:
        """So many rows down, from one table into the next."""
        there = [place for rows in self._tables() for place in rows]
        if self._place in there:
            self._go_to(there[min(max(there.index(self._place) + by, 0), len(there) - 1)])

    def action_table(self, by: int) -> None:
        """To the first row of the next table that has some."""
        tables = self._tables()
        at = next((at for at, rows in enumerate(tables) if self._place in rows), None)
        if at is not None:
            self._go_to(tables[(at + by) % len(tables)][0])

    def _go_to(self, place: RowPlace) -> None:
        self._cursor = place
        self.redraw()
        y = next((y for y, spots in enumerate(self._spots) if any(spot == place for _, spot in spots)), 0)
        self.scroll_to_region(Region(0, max(0, y - 1), 1, 3), animate=False)

    def action_open(self) -> None:
        """Show the sockets that the row stands for."""
        if self._subject is not None and self._place is not None:
            self.post_message(SocketsRequested(self._subject.filter(self._place)))

    def on_click(self, event: Click) -> None:
        """The first click on a row moves the cursor there, the next one opens it."""
        y = event.y + self.scroll_offset.y
        spots = self._spots[y] if 0 <= y < len(self._spots) else ()
        place = next((place for x, place in reversed(spots) if x <= event.x), None)
        if place is None:
            return
        if place == self._place:
            self.action_open()
        else:
            self._go_to(place)
