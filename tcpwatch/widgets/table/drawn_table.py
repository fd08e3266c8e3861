"""DrawnTable: rows under a header. It caches finished lines, and repaints only those that differ.

It lays out columns and scrolls; CursorTable adds the cursor, and subclasses of that define the rows.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import ClassVar, Generic, NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual.scroll_view import ScrollView
from textual.strip import Strip
from typing_extensions import override

from tcpwatch.widgets.lines import Line, with_bars_upright
from tcpwatch.widgets.palette import Palette, palette
from tcpwatch.widgets.table.layout import C, PlacedColumn, TableLayout
from tcpwatch.widgets.table.lines import MARK_CELLS, Sorting, header_pieces, with_cursor

HEADER_LINES = 1
"""Lines above the rows."""
_ABOVE = -1
"""Key of the header among the finished lines; the key of a row is its place."""
_KEPT = 512
"""Most finished lines that are kept in addition to those in sight."""


class _Finished(NamedTuple):
    """A painted line, and the values it was built from."""

    line: Line
    over: Style | None
    strip: Strip


class DrawnTable(ScrollView, Generic[C], can_focus=False, inherit_bindings=False):
    """Draws the rows in sight."""

    DEFAULT_CSS = """
    DrawnTable {
        height: 1fr; overflow-x: hidden; overflow-y: auto;
        scrollbar-size-vertical: 1; scrollbar-gutter: stable;
    }
    """
    ALLOW_SELECT: ClassVar[bool] = False

    def __init__(self, columns: Sequence[C], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.columns = columns
        self.exact = False
        """Show exact numbers without names, instead of rounded numbers and names."""
        self._layout: TableLayout[C] = TableLayout()
        self._finished: dict[int, _Finished] = {}
        self._finished_for: tuple[tuple[PlacedColumn[C], ...], int] = ((), 0)
        self._prepared: tuple[int, int, int] | None = None
        """Topmost place, rows and width for which the rows in sight were prepared; None if they are stale."""
        self._base = Style.null()
        """The widget's own style then: Textual computes it anew each time that it is read."""

    # Defined by a subclass

    @property
    def _count(self) -> int:
        """Number of rows."""
        raise NotImplementedError

    def _prepare(self, first: int, last: int, colours: Palette) -> bool:
        """Prepare to draw rows `first` … `last - 1`; True if that moved the columns, so that all must be prepared."""
        raise NotImplementedError

    def _row(self, place: int, colours: Palette) -> Line:
        """Return the line of a prepared row: its mark, then a gap and a cell for each column."""
        raise NotImplementedError

    def _why_empty(self) -> Sequence[str]:
        """Return the lines shown when there are no rows."""
        raise NotImplementedError

    @property
    def sorting(self) -> Sorting[C]:
        """The order that was chosen."""
        raise NotImplementedError

    @property
    def _question(self) -> Hashable:
        """The filter and the order of the rows: column widths start again when they change."""
        return None

    @property
    def _sorted_by(self) -> C | None:
        """The column that the rows are sorted by now; it gets a place before others."""
        return self.sorting.column

    def _over(self, place: int) -> Style | None:
        """Return the style drawn over the row under the cursor; None for other rows."""
        raise NotImplementedError

    # Drawing the View

    @property
    def _page(self) -> int:
        """Number of rows in sight."""
        return max(1, self.size.height - HEADER_LINES)

    def show_columns(self, columns: Sequence[C]) -> None:
        """Show those of these columns that fit."""
        if columns != self.columns:
            self.columns = columns
            self._redraw()

    def show_exact(self, exact: bool) -> None:
        """Show exact numbers without names, or rounded numbers and names."""
        if exact != self.exact:
            self.exact = exact
            self._redraw()

    @override
    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._finished.clear()
        self._prepared = None

    def _redraw(self) -> None:
        """Draw the rows in sight again, and repaint the lines that differ."""
        before, self._finished, self._prepared = self._finished, {}, None
        if not self.size or not self.is_attached:
            return
        if self._make_ready():
            before = {}
        changed = []
        for y in range(self.size.height):
            place = self._place_of_line(y)
            old = before.get(place)
            self._finished[place] = new = self._finish(place, self._line(place), old)
            if new is not old:
                changed.append(y)
        if 2 * len(changed) > self.size.height:
            self.refresh()
            return
        for y in changed:
            self.refresh_line(y + self.scroll_offset.y)

    def _make_ready(self) -> bool:
        """Lay out columns for the rows in sight; True if that made all finished lines stale."""
        top, width = self.scroll_offset.y, self.scrollable_content_region.width
        if self._prepared == (top, self._page, width):
            return False
        self._prepared = top, self._page, width
        self._base = self.rich_style
        if width != self._finished_for[1] or len(self._finished) > _KEPT:
            self._finished.clear()
        sort_key = self._sorted_by.key if self._sorted_by is not None else ""
        self._layout.lay_out(self.columns, width - MARK_CELLS, sort_key, (self._question, self.exact))
        seen, colours = range(top, min(top + self._page, self._count)), palette(self.app)
        missing: Sequence[int] = [place for place in seen if place not in self._finished]
        while missing and self._prepare(missing[0], missing[-1] + 1, colours):
            missing = seen
        if (self._layout.placed, width) == self._finished_for:
            return False
        self._finished_for = self._layout.placed, width
        self._finished.clear()
        return True

    def render_line(self, y: int) -> Strip:
        """Return one line; `y` counts from the top of the widget."""
        if self._make_ready() and y:
            self.call_next(self.refresh)  # lines painted before this one have other columns
        place = self._place_of_line(y)
        old = self._finished.get(place)
        self._finished[place] = new = self._finish(place, old.line if old is not None else self._line(place), old)
        return new.strip

    def _place_of_line(self, y: int) -> int:
        return _ABOVE if y < HEADER_LINES else y - HEADER_LINES + self.scroll_offset.y

    def _line(self, place: int) -> Line:
        colours = palette(self.app)
        if place == _ABOVE:
            return tuple(header_pieces(self._layout.placed, self.sorting, colours))
        if place < self._count:
            return self._row(place, colours)
        reasons, at = () if self._count else self._why_empty(), place - 1
        return ((f"   {reasons[at]}", colours.plain),) if 0 <= at < len(reasons) else ()

    def _finish(self, place: int, line: Line, old: _Finished | None) -> _Finished:
        """Return the painted line, with the cursor if it is there; `old` if nothing differs."""
        over = self._over(place)
        if old is not None and (old.line, old.over) == (line, over):
            return old
        base = self._base + over if over is not None else self._base
        pieces = with_bars_upright(with_cursor(line), over) if over is not None else line
        strip = Strip([Segment(text, base + style) for text, style in pieces])
        return _Finished(line, over, strip.adjust_cell_length(self.scrollable_content_region.width, base))
