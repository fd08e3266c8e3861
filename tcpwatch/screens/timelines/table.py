"""TimelineTable: one row per flow, time runs to the right. Only visible rows are read from the archive and drawn."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import ClassVar, cast

from textual.binding import Binding, BindingType
from textual.events import Click, Resize
from textual.message import Message

from tcpwatch.model.columns.columns import MARK_SIGNS
from tcpwatch.model.query.timeline import Timeline, timelines_at
from tcpwatch.model.query.timeline_arrangement import TimelineArrangement, TimelineSort
from tcpwatch.screens.shared.page import NO_DATA
from tcpwatch.screens.shared.table_page import no_match_lines
from tcpwatch.screens.timelines.axis import TimeAxis, TimeWindow, snap_to_flow, window_around
from tcpwatch.screens.timelines.cells import line_pieces
from tcpwatch.screens.timelines.columns import AXIS, BEGIN, SORT_COLUMNS, TimelineColumn, columns_for
from tcpwatch.screens.timelines.ruler import ruler_pieces
from tcpwatch.widgets.lines import Line
from tcpwatch.widgets.palette import Palette, palette
from tcpwatch.widgets.table.cursor_table import CursorTable
from tcpwatch.widgets.table.lines import MARK_CELLS
from tcpwatch.widgets.table.record_columns import CellContext, record_pieces


class TimelineTable(CursorTable[TimelineColumn]):
    """Shows a TimelineArrangement, with a cursor on a flow and on a time. The page arranges again for another order."""

    BINDINGS: ClassVar[list[BindingType]] = [
        # Left and right choose a column while choosing what to sort by, else they move the time cursor.
        Binding("left", "sort_by(-1)", "sort by previous column", show=False),
        Binding("right", "sort_by(1)", "sort by next column", show=False),
        Binding("left,h", "time(-1)", "one step earlier", show=False),
        Binding("right,l", "time(1)", "one step later", show=False),
        Binding("left_square_bracket,shift+left", "pan(-0.5)", "half a window earlier", show=False),
        Binding("right_square_bracket,shift+right", "pan(0.5)", "half a window later", show=False),
        Binding("less_than_sign", "zoom(-1)", "zoom in", show=False),
        Binding("greater_than_sign", "zoom(1)", "zoom out", show=False),
        Binding("f", "follow", "follow"),
        Binding("0", "fit", "fit"),
    ]

    class MomentChanged(Message):
        """The flow under the cursor or the cursor's time has changed."""

    def __init__(self) -> None:
        super().__init__(columns_for(79, self._draw_axis), BEGIN, reverse=True)
        self.arrangement: TimelineArrangement | None = None
        """The shown flows; None before the first View."""
        self.window = TimeWindow()
        self._made: dict[int, Timeline] = {}
        """Place in the arrangement → the flow that was read for it."""

    def show(self, arrangement: TimelineArrangement) -> None:
        """Show these flows."""
        self._change(lambda: self._take(arrangement))
        self.post_message(self.MomentChanged())

    def _take(self, arrangement: TimelineArrangement) -> None:
        self.arrangement, self._made = arrangement, {}

    @property
    def by(self) -> TimelineSort:
        """The chosen order."""
        return TimelineSort(self.column.key)

    @property
    def flow(self) -> Timeline | None:
        """The flow under the cursor, or None."""
        return self.timelines(self._cursor, self._cursor + 1)[0] if self._cursor < self._count else None

    def timelines(self, first: int, last: int) -> list[Timeline]:
        """Return the flows at these places, which must exist; each is read from the archive once."""
        assert self.arrangement is not None
        missing = [place for place in range(first, last) if place not in self._made]
        if missing:
            made = timelines_at(self.arrangement, missing[0], missing[-1] + 1)
            self._made.update(enumerate(made, missing[0]))
        return [self._made[place] for place in range(first, last)]

    # Time

    @property
    def now(self) -> float:
        """Unix seconds of the shown View."""
        return self.arrangement.view.sample.time if self.arrangement is not None else 0.0

    @property
    def cells(self) -> int:
        """Width of the axis, in cells."""
        return next((placed.width for placed in self._layout.placed if placed.column.key == AXIS), 1)

    @property
    def axis(self) -> TimeAxis:
        """The axis as it is drawn now."""
        return self.window.axis(self.now, self.cells)

    @property
    def cursor_cell(self) -> int:
        """The cell of the time cursor."""
        return self.window.cursor_cell(self.now, self.cells)

    @property
    def moment(self) -> float:
        """The cursor's time, moved into the lifetime of the flow under the cursor where that is in the same cell."""
        at, flow = self.window.cursor_time(self.now), self.flow
        return at if flow is None else snap_to_flow(at, self.axis, flow.begin.time, flow.line_end_s)

    def _stay(self) -> None:
        """Keep the cursor on this flow when newer flows appear, as the time cursor belongs to it."""
        if self._held is None:
            self.move_to(self._cursor)

    def set_window(self, window: TimeWindow) -> None:
        """Show this time span."""
        if window != self.window:
            self.window = window
            self._redraw()
            self.post_message(self.MomentChanged())

    def action_time(self, by: int) -> None:
        """Move the time cursor by this number of cells; at the edge the window moves too."""
        self._stay()
        self.set_window(self.window.moved(by, self.now, self.cells))

    def action_pan(self, by: float) -> None:
        """Move the window by this share of its width."""
        self._stay()
        self.set_window(self.window.panned(by, self.now, self.cells))

    def action_zoom(self, by: int) -> None:
        """Zoom in (by < 0) or out."""
        self._stay()
        window = self.window
        if not window.follows:
            window = window.with_cursor_at(self.moment, self.now, self.cells)
        self.set_window(window.zoomed(by, self.now, self.cells))

    def action_follow(self) -> None:
        """Follow the time: the right end is now."""
        self.set_window(TimeWindow(self.window.span_s))

    def action_fit(self) -> None:
        """Fit the lifetime of the flow under the cursor into the width."""
        flow = self.flow
        if flow is not None:
            self._stay()
            self.set_window(window_around(flow.begin.time, flow.line_end_s))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Disable the keys of the time cursor while a column to sort by is chosen."""
        return not self.choosing_sort if action == "time" else super().check_action(action, parameters)

    def on_click(self, event: Click) -> None:
        """Move the time cursor to a click on the axis, as well as the row cursor."""
        left = next((placed.left for placed in self._layout.placed if placed.column.key == AXIS), 0) + MARK_CELLS
        if self.arrangement is not None and left <= event.x < left + self.cells:
            self.set_window(self.window.with_cursor_at(self.axis.middle(event.x - left), self.now, self.cells))

    def on_resize(self, event: Resize) -> None:
        """Choose the columns for the new width."""
        self.show_columns(columns_for(self.scrollable_content_region.width - MARK_CELLS, self._draw_axis))
        self.post_message(self.MomentChanged())

    # CursorTable

    @property
    def _count(self) -> int:
        return len(self.arrangement) if self.arrangement is not None else 0

    def _identity(self, place: int) -> int:
        assert self.arrangement is not None
        return self.arrangement.cookie(place)

    def _place(self, identity: Hashable) -> int | None:
        return self.arrangement.place(cast(int, identity)) if self.arrangement is not None else None

    def _hides(self, identity: Hashable) -> bool:
        return self.arrangement is not None and self.arrangement.knows(cast(int, identity))

    @property
    def _sortable(self) -> Sequence[TimelineColumn]:
        shown = {column.key: column for column in self.columns}
        return [shown.get(column.key, column) for column in SORT_COLUMNS]

    def move_to(self, place: int) -> None:
        """Move the cursor, and post MomentChanged."""
        super().move_to(place)
        self.post_message(self.MomentChanged())

    def _prepare(self, first: int, last: int, colours: Palette) -> bool:
        self.timelines(first, last)
        return False

    def _row(self, place: int, colours: Palette) -> Line:
        (row,) = self.timelines(place, place + 1)
        return tuple(record_pieces(row, MARK_SIGNS[row.mark], self._layout.placed, self.exact, colours))

    def _line(self, place: int) -> Line:
        line = super()._line(place)
        if place >= 0 or self.arrangement is None:
            return line
        return (*line[:-1], *ruler_pieces(self.axis, self.cursor_cell, palette(self.app)))

    def _draw_axis(self, row: Timeline, look: CellContext) -> Line:
        axis = self.axis
        cursor = None if self.window.follows else self.cursor_cell
        return tuple(line_pieces(row, axis, cursor, look.colours))

    def _why_empty(self) -> Sequence[str]:
        shown = self.arrangement
        if shown is None:
            return (NO_DATA,)
        total = shown.total_live + shown.total_closed
        if not total:
            return ("No connections, and none has closed since tcpwatch started.",)
        return no_match_lines(total, "flows")
