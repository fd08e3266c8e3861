"""SocketTable: one row per socket; a million rows scroll as a hundred do, since only what is seen becomes text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.cache import LRUCache
from textual.events import Blur, Click, Focus, Resize
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tcpwatch.model.arrange import Arrangement
from tcpwatch.model.columns import BY_KEY, Column
from tcpwatch.widgets.lines import Piece
from tcpwatch.widgets.palette import Palette, palette
from tcpwatch.widgets.table_lines import PREFIX, Sorting, header_pieces, row_pieces, why_empty
from tcpwatch.widgets.table_texts import TableTexts

HEADER = 1
"""Lines above the rows."""


class SocketTable(ScrollView, can_focus=True, inherit_bindings=False):
    """Shows an Arrangement. The cursor is on a flow, not on a place: it stays there while rows move."""

    DEFAULT_CSS = """
    SocketTable {
        height: 1fr; overflow-x: hidden; overflow-y: auto;
        scrollbar-size-vertical: 1; scrollbar-gutter: stable;
    }
    """
    ALLOW_SELECT: ClassVar[bool] = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "open"),
        Binding("s", "sort", "sort"),
        Binding("left", "sort_by(-1)", "sort by the column before", show=False),
        Binding("right", "sort_by(1)", "sort by the next column", show=False),
        Binding("escape", "sorted", "end choosing the column", show=False),
        Binding("up,k", "move(-1)", "row up", show=False),
        Binding("down,j", "move(1)", "row down", show=False),
        Binding("pageup", "page(-1.0)", "page up", show=False),
        Binding("pagedown", "page(1.0)", "page down", show=False),
        Binding("ctrl+u", "page(-0.5)", "half a page up", show=False),
        Binding("ctrl+d", "page(0.5)", "half a page down", show=False),
        Binding("home,g", "top", "first row", show=False),
        Binding("end,G", "bottom", "last row", show=False),
    ]

    class Opened(Message):
        """A person opened the flow under the cursor."""

        def __init__(self, cookie: int) -> None:
            super().__init__()
            self.cookie = cookie

    class SortChanged(Message):
        """A person chose how to sort, or began or ended choosing."""

    def __init__(self) -> None:
        super().__init__()
        self.column: Column = BY_KEY["state"]
        self.reverse = False
        self.choosing = False
        """Left and right choose the column to sort by."""
        self._texts = TableTexts()
        self._strips: LRUCache[int, Strip] = LRUCache(512)
        self._cursor = 0
        self._cookie: int | None = None
        """The flow under the cursor; None until somebody moves it: till then it stays at the top."""
        self._hidden: int | None = None
        """The flow that was under the cursor before a filter hid it: there the cursor goes back."""

    # What is shown

    @property
    def arrangement(self) -> Arrangement | None:
        """What is shown; None before the first."""
        return self._texts.arrangement

    @property
    def cursor(self) -> int:
        """The cursor's place, 0 the topmost."""
        return self._cursor

    @property
    def cursor_cookie(self) -> int | None:
        """The flow under the cursor; None where there is no row."""
        shown = self.arrangement
        return shown.cookie(self._cursor) if shown is not None and self._cursor < len(shown) else None

    def show(self, arrangement: Arrangement) -> None:
        """Show these rows. The cursor's flow stays on its line of the screen, where it is still among them."""
        line = self._cursor - self.scroll_offset.y
        in_sight = self._cookie is not None and 0 <= line < self._page
        self._texts.show(arrangement)
        self._cursor = self._place_of_cursor(arrangement)
        self.virtual_size = Size(0, len(arrangement) + HEADER)  # costs a layout, but not where it is the same
        self._scroll(self._cursor - line if in_sight else self.scroll_offset.y)
        self._redraw()

    def _place_of_cursor(self, arrangement: Arrangement) -> int:
        """Where its flow is now; where that has gone, the same place, and the flow that is there now."""
        for cookie in (self._hidden, self._cookie):
            place = None if cookie is None else arrangement.place(cookie)
            if place is not None:
                self._cookie, self._hidden = cookie, None
                return place
        place = max(0, min(self._cursor, len(arrangement) - 1))
        if self._cookie is not None and len(arrangement):
            if self._hidden is None and arrangement.rows.find(self._cookie) is not None:
                self._hidden = self._cookie  # the filter hides it, perhaps only while somebody types
            self._cookie = arrangement.cookie(place)
        return place

    def show_columns(self, columns: Sequence[Column]) -> None:
        """Choose among these columns, as many as fit."""
        if columns != self._texts.columns:
            self._texts.set_columns(columns)
            self._redraw()

    def show_exact(self, exact: bool) -> None:
        """Numbers as they are, and no names, or as people like them."""
        if exact != self._texts.exact:
            self._texts.set_exact(exact)
            self._redraw()

    # The cursor

    @property
    def _page(self) -> int:
        """Rows that are seen at once."""
        return max(1, self.size.height - HEADER)

    def move_to(self, place: int) -> None:
        """Put the cursor on the flow at this place, or the nearest that there is."""
        if self.arrangement is None or not len(self.arrangement):
            return
        before = self._cursor
        self._cursor = max(0, min(place, len(self.arrangement) - 1))
        self._cookie, self._hidden = self.arrangement.cookie(self._cursor), None
        top = self.scroll_offset.y
        self._scroll(max(min(top, self._cursor), self._cursor - self._page + 1))
        if self.scroll_offset.y == top:
            self.refresh_line(before + HEADER)
            self.refresh_line(self._cursor + HEADER)

    def _scroll(self, top: int) -> None:
        """Make this place the topmost that is seen; repaints where that changes something."""
        last = len(self.arrangement) - self._page if self.arrangement is not None else 0
        self.scroll_to(y=max(0, min(top, last)), animate=False)

    def action_move(self, by: int) -> None:
        """Rows down."""
        self.move_to(self._cursor + by)

    def action_page(self, pages: float) -> None:
        """Pages down."""
        self.move_to(self._cursor + int(pages * self._page))

    def action_top(self) -> None:
        """The first row."""
        self.move_to(0)

    def action_bottom(self) -> None:
        """The last row."""
        self.move_to(len(self.arrangement or ()) - 1)

    def action_open(self) -> None:
        """Open the flow; while choosing a column, end that."""
        if self.choosing:
            self.action_sorted()
        elif (cookie := self.cursor_cookie) is not None:
            self.post_message(self.Opened(cookie))

    def on_click(self, event: Click) -> None:
        """A click on the header sorts, on a row puts the cursor there, twice opens it."""
        event.stop()
        if event.y < HEADER:
            for placed in self._texts.placed:
                if placed.left <= event.x - PREFIX < placed.left + placed.width:
                    self.sort_by(placed.column)
            return
        place = event.y - HEADER + self.scroll_offset.y
        if self.arrangement is not None and place < len(self.arrangement):
            self.move_to(place)
            if event.chain == 2:
                self.action_open()

    # Sorting

    @property
    def sorting(self) -> Sorting[Column]:
        """How a person wants the rows sorted; the Arrangement follows."""
        return Sorting(self.column, self.reverse, self.choosing)

    def sort_by(self, column: Column) -> None:
        """Sort by this column, numbers from the greatest; by the same again, the other way round."""
        self.reverse = not self.reverse if column is self.column else column.right
        self.column = column
        self._sort_changed()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Some keys have a meaning only while a column is chosen."""
        return self.choosing if action in ("sort_by", "sorted") else True

    def action_sort(self) -> None:
        """Begin choosing the column to sort by; again: reverse the order."""
        if self.choosing:
            self.reverse = not self.reverse
        self.choosing = True
        self._sort_changed()

    def action_sort_by(self, by: int) -> None:
        """Sort by the next column, or the one before, of all that there are."""
        columns = self._texts.columns
        at = columns.index(self.column) + by if self.column in columns else 0
        if 0 <= at < len(columns):
            self.sort_by(columns[at])

    def action_sorted(self) -> None:
        """End choosing."""
        self.choosing = False
        self._sort_changed()

    def _sort_changed(self) -> None:
        self.post_message(self.SortChanged())
        self.refresh_bindings()
        self.refresh_line(self.scroll_offset.y)

    # Drawing

    def _redraw(self) -> None:
        self._strips.clear()
        self.refresh()

    def on_resize(self, event: Resize) -> None:
        """Other columns may fit; a cursor that was in sight stays so."""
        self._texts.set_room(self.scrollable_content_region.width - PREFIX)
        if self._cookie is not None:
            self._scroll(max(min(self.scroll_offset.y, self._cursor), self._cursor - self._page + 1))
        self._redraw()

    def on_focus(self, event: Focus) -> None:
        """The cursor's band shows where the keys go."""
        self.refresh_line(self._cursor + HEADER)

    def on_blur(self, event: Blur) -> None:
        """Whoever goes elsewhere has chosen."""
        self.refresh_line(self._cursor + HEADER)
        if self.choosing:
            self.action_sorted()

    def notify_style_update(self) -> None:
        """Another theme, or NO_COLOR."""
        super().notify_style_update()
        self._strips.clear()

    def render_line(self, y: int) -> Strip:
        """As the line API asks; `y` counts from the top of the widget."""
        top = self.scroll_offset.y
        if self._texts.prepare(top, top + self._page):
            self._strips.clear()
            if y:  # lines that were painted before this one have their columns elsewhere
                self.call_next(self.refresh)
        colours = palette(self.app)
        if y < HEADER:
            return self._finished(header_pieces(self._texts.placed, self.sorting, colours))
        place = top + y - HEADER
        if place == self._cursor and self._texts.line(place) is not None:
            return self._row(place, colours)
        strip = self._strips.get(place)
        if strip is None:
            strip = self._strips[place] = self._row(place, colours)
        return strip

    def _row(self, place: int, colours: Palette) -> Strip:
        line = self._texts.line(place)
        if line is None:
            return self._finished(self._instead(place, colours))
        cursor = place == self._cursor
        band = Style(reverse=True) if self.app.no_color else colours.cursor
        over = band if cursor and self.has_focus else None
        return self._finished(row_pieces(line, self._texts.placed, cursor, colours), over)

    def _instead(self, place: int, colours: Palette) -> list[Piece]:
        """Below the last row: nothing, or why there is none."""
        said = why_empty(self.arrangement)
        line = place - self.scroll_offset.y - 1
        return [(f"   {said[line]}", colours.plain)] if 0 <= line < len(said) else []

    def _finished(self, pieces: Sequence[Piece], over: Style | None = None) -> Strip:
        base = self.rich_style + over if over else self.rich_style
        segments = [Segment(text, base + style) for text, style in pieces]
        return Strip(segments).adjust_cell_length(self.scrollable_content_region.width, base)
