"""CursorLines: drawn lines with a cursor on the items that they show."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import ClassVar, Generic, TypeVar

from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import Region

from tcpwatch.widgets.lines import Lines

T = TypeVar("T", bound=Hashable)


class CursorLines(Lines, Generic[T], can_focus=True):
    """The cursor is on an item, not on a line, and follows it while lines move."""

    DEFAULT_CSS = "CursorLines { height: 1fr; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "open"),
        Binding("down,j", "move(1)", "next row", show=False),
        Binding("up,k", "move(-1)", "previous row", show=False),
        Binding("pagedown,ctrl+d", "move(5)", "five rows down", show=False),
        Binding("pageup,ctrl+u", "move(-5)", "five rows up", show=False),
        Binding("home,g", "move(-9999)", "first row", show=False),
        Binding("end,G", "move(9999)", "last row", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._cursor: T | None = None
        self._spots: Sequence[Sequence[tuple[int, T | None]]] = ()
        """The items on each line, each with the cell where it begins; set by `draw`."""

    def _items(self) -> Sequence[T]:
        """Return all items that the cursor can be on, in order."""
        raise NotImplementedError

    def action_open(self) -> None:
        """Open the item under the cursor."""
        raise NotImplementedError

    @property
    def cursor(self) -> T | None:
        """The item under the cursor."""
        return self._cursor

    def action_move(self, by: int) -> None:
        """Move the cursor down by this number of items, or to the first or last one."""
        items = self._items()
        if items:
            at = items.index(self.cursor) + by if self.cursor in items else 0
            self._go_to(items[min(max(at, 0), len(items) - 1)])

    def _go_to(self, item: T) -> None:
        """Put the cursor on this item, and scroll to it."""
        self._cursor = item
        self.redraw()
        y = next((y for y, spots in enumerate(self._spots) if any(spot == item for _, spot in spots)), 0)
        # One line around it, so that a title above is seen; below the last item all lines, as no key scrolls to them.
        below = len(self.lines) - y if item == self._items()[-1] else 2
        self.scroll_to_region(Region(0, max(0, y - 1), 1, 1 + below), animate=False)

    def on_click(self, event: Click) -> None:
        """Move the cursor to the item that was clicked, or open it when the cursor is there already."""
        y = event.y + self.scroll_offset.y
        spots = self._spots[y] if 0 <= y < len(self._spots) else ()
        item = next((item for x, item in reversed(spots) if x <= event.x), None)
        if item is None:
            return
        if item == self.cursor:
            self.action_open()
        else:
            self._go_to(item)
