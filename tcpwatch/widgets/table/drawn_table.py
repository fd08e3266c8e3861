"""DrawnTable: rows under a header. Finished lines are kept, and only those that differ are painted anew.

Widths and scrolling are its affair; the cursor is CursorTable's, and what a row is, a subclass's of that.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import ClassVar, Generic, NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tcpwatch.widgets.lines import Line
from tcpwatch.widgets.palette import Palette, palette
from tcpwatch.widgets.table.layout import C, PlacedColumn, TableLayout
from tcpwatch.widgets.table.lines import MARK_CELLS, Sorting, header_pieces, with_cursor

HEADER_LINES = 1
"""Lines above the rows."""
_ABOVE = -1
"""The header's place among the finished lines; a row's is its own."""
_KEPT = 512
"""Finished lines that are kept beside those in sight: who scrolls through a million leaves no more behind."""


class _Finished(NamedTuple):
    """A line as it is painted, and what it was made of."""

    line: Line
    over: Style | None
    strip: Strip


class DrawnTable(ScrollView, Generic[C], can_focus=False, inherit_bindings=False):
    """Draws what is in sight."""

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
        """Numbers as they are, and no names, or as people like them."""
        self._layout: TableLayout[C] = TableLayout()
        self._finished: dict[int, _Finished] = {}
        self._finished_for: tuple[tuple[PlacedColumn[C], ...], int] = ((), 0)
        self._prepared: tuple[int, int, int] | None = None
        """Topmost place, rows and width of what is in sight; None where it is to be looked at again."""

    # What a subclass tells

    @property
    def _count(self) -> int:
        """Rows."""
        raise NotImplementedError

    def _prepare(self, first: int, last: int, colours: Palette) -> bool:
        """Rows `first` … `last - 1` will be drawn; True if that moved the columns, and more is to be prepared."""
        raise NotImplementedError

    def _row(self, place: int, colours: Palette) -> Line:
        """A row that was prepared: its mark, then a gap and a cell for each column."""
        raise NotImplementedError

    def _why_empty(self) -> Sequence[str]:
        """What is said where there are no rows."""
        raise NotImplementedError

    @property
    def sorting(self) -> Sorting[C]:
        """How a person wants the rows sorted."""
        raise NotImplementedError

    @property
    def _question(self) -> Hashable:
        """What the rows answer: columns narrow again when this is another, or the one that rows are sorted by."""
        return None

    @property
    def _sorted_by(self) -> C | None:
        """What the rows are sorted by now; it is worth seeing."""
        return self.sorting.column

    def _over(self, place: int) -> Style | None:
        """What lies over the row under the cursor; None for the others."""
        raise NotImplementedError

    # What is shown

    @property
    def _page(self) -> int:
        """Rows that are seen at once."""
        return max(1, self.size.height - HEADER_LINES)

    def show_columns(self, columns: Sequence[C]) -> None:
        """Choose among these columns, as many as fit."""
        if columns != self.columns:
            self.columns = columns
            self._redraw()

    def show_exact(self, exact: bool) -> None:
        """Numbers as they are, and no names, or as people like them."""
        if exact != self.exact:
            self.exact = exact
            self._redraw()

    def notify_style_update(self) -> None:
        """Another theme, or NO_COLOR."""
        super().notify_style_update()
        self._finished.clear()
        self._prepared = None

    def _redraw(self) -> None:
        """Draw anew what is in sight, and repaint the lines that differ."""
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
        """Have columns for what is in sight; True if no finished line has its columns there."""
        top, width = self.scroll_offset.y, self.scrollable_content_region.width
        if self._prepared == (top, self._page, width):
            return False
        self._prepared = top, self._page, width
        if width != self._finished_for[1] or len(self._finished) > _KEPT:
            self._finished.clear()
        asked = self._sorted_by.key if self._sorted_by is not None else ""
        self._layout.lay_out(self.columns, width - MARK_CELLS, asked, (self._question, self.exact))
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
        """As the line API asks; `y` counts from the top of the widget."""
        if self._make_ready() and y:
            self.call_next(self.refresh)  # lines that were painted before this one have their columns elsewhere
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
        said, at = () if self._count else self._why_empty(), place - 1
        return ((f"   {said[at]}", colours.plain),) if 0 <= at < len(said) else ()

    def _finish(self, place: int, line: Line, old: _Finished | None) -> _Finished:
        """The line with the cursor, where that is there; the old one where it was made of the same."""
        over = self._over(place)
        if old is not None and (old.line, old.over) == (line, over):
            return old
        base = self.rich_style + over if over is not None else self.rich_style
        pieces = with_cursor(line) if over is not None else line
        strip = Strip([Segment(text, base + style) for text, style in pieces])
        return _Finished(line, over, strip.adjust_cell_length(self.scrollable_content_region.width, base))
