"""CursorTable: rows under a header, the cursor, and choosing the column to sort by; what a row is says a subclass.

The keys, the mouse and the sorting are those of SocketTable, so that a person learns them once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import ClassVar, Generic

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Blur, Click, Focus, Resize
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tcpwatch.widgets.lines import Line, Piece
from tcpwatch.widgets.palette import Palette, palette
from tcpwatch.widgets.table_layout import C, Placed
from tcpwatch.widgets.table_lines import PREFIX, Sorting, header_pieces

HEADER = 1
"""Lines above the rows."""


class CursorTable(ScrollView, Generic[C], can_focus=True, inherit_bindings=False):
    """The cursor is on a thing, not on a place: it stays there while rows move."""

    DEFAULT_CSS = """
    CursorTable {
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
        """A person opened the row under the cursor."""

        def __init__(self, table: CursorTable[C]) -> None:
            super().__init__()
            self.table = table

    class SortChanged(Message):
        """A person chose how to sort, or began or ended choosing."""

        def __init__(self, table: CursorTable[C]) -> None:
            super().__init__()
            self.table = table

    def __init__(self, column: C, reverse: bool, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.column = column
        self.reverse = reverse
        self.choosing = False
        """Left and right choose the column to sort by."""
        self._cursor = 0
        self._held: Hashable | None = None
        """The row under the cursor; None until somebody moves it: till then it stays at the top."""

    # What a subclass tells

    @property
    def _count(self) -> int:
        """Rows."""
        raise NotImplementedError

    def _identity(self, place: int) -> Hashable:
        """What stays the same of the row at this place."""
        raise NotImplementedError

    def _place(self, identity: Hashable) -> int | None:
        """Where it is now."""
        raise NotImplementedError

    @property
    def _sortable(self) -> Sequence[C]:
        """Columns that one can sort by."""
        raise NotImplementedError

    @property
    def _placed(self) -> Sequence[Placed[C]]:
        """Columns that are seen."""
        raise NotImplementedError

    def _set_room(self, room: int) -> None:
        """So many cells for all columns."""
        raise NotImplementedError

    def _prepare(self, first: int, last: int, colours: Palette) -> bool:
        """The rows `first` … `last - 1` are about to be drawn; True if that moved the columns."""
        raise NotImplementedError

    def _row(self, place: int, cursor: bool, colours: Palette) -> Sequence[Piece]:
        """A row's pieces."""
        raise NotImplementedError

    def _resort(self) -> None:
        """Follow `column` and `reverse`."""
        raise NotImplementedError

    def _instead(self, line: int, colours: Palette) -> Line:
        """What is said in this line below the last row, counted from 0."""
        return ()

    # The cursor

    @property
    def cursor(self) -> int:
        """The cursor's place, 0 the topmost."""
        return self._cursor

    @property
    def _page(self) -> int:
        """Rows that are seen at once."""
        return max(1, self.size.height - HEADER)

    def _change(self, change: Callable[[], object]) -> None:
        """Change the rows. The cursor's stays on its line of the screen, where it is still among them."""
        line = self._cursor - self.scroll_offset.y
        in_sight = self._held is not None and 0 <= line < self._page
        change()
        self._cursor = self._place_of_cursor()
        self.virtual_size = Size(0, self._count + HEADER)  # costs a layout, but not where it is the same
        self._scroll(self._cursor - line if in_sight else self.scroll_offset.y)
        self.refresh()

    def _place_of_cursor(self) -> int:
        """Where its row is now; where that has gone, the same place, and the row that is there now."""
        place = None if self._held is None else self._place(self._held)
        if place is not None:
            return place
        place = max(0, min(self._cursor, self._count - 1))
        if self._held is not None and self._count:
            self._held = self._identity(place)
        return place

    def move_to(self, place: int) -> None:
        """Put the cursor on the row at this place, or the nearest that there is."""
        if not self._count:
            return
        before = self._cursor
        self._cursor = max(0, min(place, self._count - 1))
        self._held = self._identity(self._cursor)
        top = self.scroll_offset.y
        self._scroll(max(min(top, self._cursor), self._cursor - self._page + 1))
        if self.scroll_offset.y == top:
            self.refresh_line(before + HEADER)
            self.refresh_line(self._cursor + HEADER)

    def _scroll(self, top: int) -> None:
        """Make this place the topmost that is seen; repaints where that changes something."""
        self.scroll_to(y=max(0, min(top, self._count - self._page)), animate=False)

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
        self.move_to(self._count - 1)

    def action_open(self) -> None:
        """Open the row; while choosing a column, end that."""
        if self.choosing:
            self.action_sorted()
        elif self._count:
            self.post_message(self.Opened(self))

    def on_click(self, event: Click) -> None:
        """A click on the header sorts, on a row puts the cursor there, twice opens it."""
        event.stop()
        if event.y < HEADER:
            for placed in self._placed:
                if placed.left <= event.x - PREFIX < placed.left + placed.width and placed.column in self._sortable:
                    self.sort_by(placed.column)
            return
        place = event.y - HEADER + self.scroll_offset.y
        if place < self._count:
            self.move_to(place)
            if event.chain == 2:
                self.action_open()

    # Sorting

    @property
    def sorting(self) -> Sorting[C]:
        """How a person wants the rows sorted."""
        return Sorting(self.column, self.reverse, self.choosing)

    def sort_by(self, column: C) -> None:
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
        columns = self._sortable
        at = columns.index(self.column) + by if self.column in columns else 0
        if 0 <= at < len(columns):
            self.sort_by(columns[at])

    def action_sorted(self) -> None:
        """End choosing."""
        self.choosing = False
        self._sort_changed()

    def _sort_changed(self) -> None:
        self._change(self._resort)
        self.post_message(self.SortChanged(self))
        self.refresh_bindings()

    # Drawing

    def on_resize(self, event: Resize) -> None:
        """Other columns may fit; a cursor that was in sight stays so."""
        self._set_room(self.scrollable_content_region.width - PREFIX)
        if self._held is not None:
            self._scroll(max(min(self.scroll_offset.y, self._cursor), self._cursor - self._page + 1))
        self.refresh()

    def on_focus(self, event: Focus) -> None:
        """The cursor's band shows where the keys go."""
        self.refresh_line(self._cursor + HEADER)

    def on_blur(self, event: Blur) -> None:
        """Whoever goes elsewhere has chosen."""
        self.refresh_line(self._cursor + HEADER)
        if self.choosing:
            self.action_sorted()

    def render_line(self, y: int) -> Strip:
        """As the line API asks; `y` counts from the top of the widget."""
        top, colours = self.scroll_offset.y, palette(self.app)
        if self._prepare(top, top + self._page, colours) and y:
            self.call_next(self.refresh)  # lines that were painted before this one have their columns elsewhere
        if y < HEADER:
            return self._finished(header_pieces(self._placed, self.sorting, colours))
        place = top + y - HEADER
        if place >= self._count:
            return self._finished(self._instead(place - self._count, colours))
        cursor = place == self._cursor
        band = Style(reverse=True) if self.app.no_color else colours.cursor
        return self._finished(self._row(place, cursor, colours), band if cursor and self.has_focus else None)

    def _finished(self, pieces: Sequence[Piece], over: Style | None = None) -> Strip:
        base = self.rich_style + over if over else self.rich_style
        segments = [Segment(text, base + style) for text, style in pieces]
        return Strip(segments).adjust_cell_length(self.scrollable_content_region.width, base)


def choosing_line(sorting: Sorting[C], colours: Palette) -> Line:
    """What a title says while a column to sort by is chosen."""
    return (
        (" sort by ", colours.plain), (f"{sorting.column.title} {sorting.arrow}", colours.strong),
        ("   ←→ ", colours.key), ("column  ", colours.plain), ("s ", colours.key), ("reverse  ", colours.plain),
        ("Enter ", colours.key), ("done", colours.plain),
    )  # fmt: skip
