"""CursorTable: a table with a cursor and a column to sort by. Subclasses define the rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import ClassVar

from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Blur, Click, Focus, Resize
from textual.geometry import Size
from textual.message import Message

from tcpwatch.widgets.lines import Line
from tcpwatch.widgets.palette import Palette, palette
from tcpwatch.widgets.table.drawn_table import HEADER_LINES, DrawnTable
from tcpwatch.widgets.table.layout import C
from tcpwatch.widgets.table.lines import MARK_CELLS, Sorting


class CursorTable(DrawnTable[C], can_focus=True, inherit_bindings=False):
    """The cursor stays on its row while rows move."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "open"),
        Binding("s", "sort", "sort"),
        Binding("left", "sort_by(-1)", "sort by the previous column", show=False),
        Binding("right", "sort_by(1)", "sort by the next column", show=False),
        Binding("escape", "sorted", "end choosing the column", show=False),
        Binding("up,k", "move(-1)", "previous row", show=False),
        Binding("down,j", "move(1)", "next row", show=False),
        Binding("pageup", "page(-1.0)", "page up", show=False),
        Binding("pagedown", "page(1.0)", "page down", show=False),
        Binding("ctrl+u", "page(-0.5)", "half a page up", show=False),
        Binding("ctrl+d", "page(0.5)", "half a page down", show=False),
        Binding("home,g", "move(-1_000_000_000)", "first row", show=False),
        Binding("end,G", "move(1_000_000_000)", "last row", show=False),
    ]

    class Opened(Message):
        """A row was opened; the cursor may have moved since."""

        def __init__(self, table: CursorTable[C], identity: Hashable) -> None:
            super().__init__()
            self.table, self.identity = table, identity

    class SortChanged(Message):
        """The order was changed, or choosing it began or ended."""

        def __init__(self, table: CursorTable[C]) -> None:
            super().__init__()
            self.table = table

    def __init__(self, columns: Sequence[C], column: C, reverse: bool) -> None:
        super().__init__(columns)
        self.column = column
        self.reverse = reverse
        self.choosing_sort = False
        """Left and right select the column to sort by."""
        self._cursor = 0
        self._held: Hashable | None = None
        """Identity of the row under the cursor; None until the cursor is moved; until then it stays at the top."""
        self._hidden: Hashable | None = None
        """The row that was under the cursor before a filter hid it: the cursor returns to it."""

    # Defined by a subclass

    def _identity(self, place: int) -> Hashable:
        """Return the identity of the row at this place; it stays the same while rows move."""
        raise NotImplementedError

    def _place(self, identity: Hashable) -> int | None:
        """Return the place of this row; None if it is not shown."""
        raise NotImplementedError

    def _hides(self, identity: Hashable) -> bool:
        """Return whether a filter hides this row."""
        raise NotImplementedError

    def _resort(self) -> None:
        """Sort the rows by `column` and `reverse`."""

    @property
    def _sortable(self) -> Sequence[C]:
        """The columns that rows can be sorted by."""
        return self.columns

    # Drawing the View

    def show_columns(self, columns: Sequence[C]) -> None:
        """Show those of these columns that fit; the column to sort by is kept by its key."""
        self.column = next((column for column in columns if column.key == self.column.key), self.column)
        super().show_columns(columns)

    def _change(self, change: Callable[[], object]) -> None:
        """Change the rows. The row under the cursor keeps its line on the screen."""
        line = self._cursor - self.scroll_offset.y
        in_sight = self._held is not None and 0 <= line < self._page
        change()
        self._cursor = self._place_of_cursor()
        self._set_height(self._count + HEADER_LINES)
        self._scroll(self._cursor - line if in_sight else self.scroll_offset.y)
        self._redraw()

    def _set_height(self, height: int) -> None:
        """Set the number of lines; lays out the widget again only if the scrollbar appears or disappears."""
        if (height > self.size.height) is self.show_vertical_scrollbar:
            self.set_reactive(CursorTable.virtual_size, Size(0, height))
            self.vertical_scrollbar.window_virtual_size = height
        else:
            self.virtual_size = Size(0, height)

    def _place_of_cursor(self) -> int:
        """Return the place of the cursor's row; if it disappeared the same place, with the row that is there now."""
        for identity in (self._hidden, self._held):
            place = None if identity is None else self._place(identity)
            if place is not None:
                self._held = identity
                self._hidden = None if identity == self._hidden else self._hidden
                return place
        place = max(0, min(self._cursor, self._count - 1))
        if self._held is not None and self._count:
            remembered = self._hidden is not None and self._hides(self._hidden)
            if not remembered and self._hides(self._held):
                self._hidden = self._held  # perhaps only while a filter is typed
            self._held = self._identity(place)
        return place

    # The cursor

    @property
    def cursor(self) -> int:
        """Place of the cursor, counted from 0."""
        return self._cursor

    def move_to(self, place: int) -> None:
        """Move the cursor to the row nearest to this place."""
        if not self._count:
            return
        before = self._cursor
        self._cursor = max(0, min(place, self._count - 1))
        self._held, self._hidden = self._identity(self._cursor), None
        top = self.scroll_offset.y
        self._scroll(max(min(top, self._cursor), self._cursor - self._page + 1))
        if self.scroll_offset.y == top:
            self.refresh_line(before + HEADER_LINES)
            self.refresh_line(self._cursor + HEADER_LINES)

    def _scroll(self, top: int) -> None:
        """Scroll so that this place is the topmost one in sight."""
        self.scroll_to(y=max(0, min(top, self._count - self._page)), animate=False)

    def action_move(self, by: int) -> None:
        """Move the cursor down by this number of rows, or to the first or last one."""
        self.move_to(self._cursor + by)

    def action_page(self, pages: float) -> None:
        """Move the cursor down by this number of pages."""
        self.move_to(self._cursor + int(pages * self._page))

    def action_open(self) -> None:
        """Open the row, or end choosing a column."""
        if self.choosing_sort:
            self.action_sorted()
        elif self._count:
            self.post_message(self.Opened(self, self._identity(self._cursor)))

    def on_click(self, event: Click) -> None:
        """Sort by the clicked column, move the cursor to the clicked row, or open a row clicked twice."""
        event.stop()
        if event.y < HEADER_LINES:
            for placed in self._layout.placed:
                if placed.left <= event.x - MARK_CELLS < placed.left + placed.width and placed.column in self._sortable:
                    self.sort_by(placed.column)
            return
        place = event.y - HEADER_LINES + self.scroll_offset.y
        if place < self._count:
            self.move_to(place)
            if event.chain == 2:
                self.action_open()

    # Sorting

    @property
    def sorting(self) -> Sorting[C]:
        """The order that was chosen."""
        return Sorting(self.column, self.reverse, self.choosing_sort)

    def sort_by(self, column: C) -> None:
        """Sort by this column, numbers in descending order; by the same column again in reverse order."""
        self.reverse = not self.reverse if column is self.column else column.right
        self.column = column
        self._sort_changed()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable some keys only while a column is being chosen."""
        return self.choosing_sort if action in ("sort_by", "sorted") else True

    def action_sort(self) -> None:
        """Begin choosing the column to sort by, or reverse the order."""
        if self.choosing_sort:
            self.reverse = not self.reverse
        self.choosing_sort = True
        self._sort_changed()

    def action_sort_by(self, by: int) -> None:
        """Sort by the next or the previous column, shown or not."""
        columns = self._sortable
        at = columns.index(self.column) + by if self.column in columns else 0
        if 0 <= at < len(columns):
            self.sort_by(columns[at])

    def action_sorted(self) -> None:
        """End choosing the column to sort by."""
        self.choosing_sort = False
        self._sort_changed()

    def _sort_changed(self) -> None:
        self._change(self._resort)
        self.post_message(self.SortChanged(self))
        self.refresh_bindings()

    # Drawing

    def _over(self, place: int) -> Style | None:
        if place != self._cursor or place >= self._count:
            return None
        if not self.has_focus:
            return Style.null()
        return palette(self.app).cursor

    def on_resize(self, event: Resize) -> None:
        """Lay out the columns again, and keep the cursor in sight."""
        if self._held is not None:
            self._scroll(max(min(self.scroll_offset.y, self._cursor), self._cursor - self._page + 1))
        self._redraw()

    def on_focus(self, event: Focus) -> None:
        """Draw the cursor as focused."""
        self.refresh_line(self._cursor + HEADER_LINES)

    def on_blur(self, event: Blur) -> None:
        """End choosing the column to sort by."""
        self.refresh_line(self._cursor + HEADER_LINES)
        if self.choosing_sort:
            self.action_sorted()


def sort_hint_line(sorting: Sorting[C], colours: Palette) -> Line:
    """Return the title shown while a column to sort by is being chosen."""
    return (
        (" sort by ", colours.plain), (f"{sorting.column.title} {sorting.arrow}", colours.strong),
        ("   ←→ ", colours.key), ("column  ", colours.plain), ("s ", colours.key), ("reverse  ", colours.plain),
        ("Enter ", colours.key), ("done", colours.plain),
    )  # fmt: skip
