"""Timelines: one row per flow, live or recently closed; time runs to the right, each state is a part of the line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from textual.app import ComposeResult
from typing_extensions import override

from tcpwatch import units
from tcpwatch.exporters.records import tab_separated, timeline_record, timelines_csv
from tcpwatch.model.query.timeline_arrangement import TimelineArrangement, TimelineArranger
from tcpwatch.model.view import View
from tcpwatch.screens.shared.arranger import LatestRequestWorker
from tcpwatch.screens.shared.export import export_name
from tcpwatch.screens.shared.filter_line import FilterLine
from tcpwatch.screens.shared.table_page import TablePage
from tcpwatch.screens.timelines.table import TimelineTable
from tcpwatch.screens.timelines.texts import coverage_line, help_sections, moment_line, title_line
from tcpwatch.widgets.lines import CallbackLines, Line
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import Section
from tcpwatch.widgets.table.cursor_table import CursorTable, sort_hint_line

MAX_INLINE_FLOWS = 20_000
"""Most flows that are arranged in the UI's loop, in a few milliseconds; more are left to a thread."""


class TimelinesPage(TablePage):
    """Two title lines, the table, the line about the cursor, and the filter line."""

    DEFAULT_CSS = """
    TimelinesPage { height: 1fr; layout: vertical; }
    TimelinesPage .timelines--moment { background: $panel; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._view: View | None = None
        self._title, self._moment = CallbackLines(self._title_lines, height=2), CallbackLines(self._moment_lines)
        self._moment.add_class("timelines--moment")
        self.table: TimelineTable = TimelineTable()
        self._inline, self._in_thread = TimelineArranger(), TimelineArranger()  # each is used by one thread
        self._worker = LatestRequestWorker[TimelineArrangement](self, self.table.show)

    @override
    def compose(self) -> ComposeResult:
        yield self._title
        yield self.table
        yield self._moment
        yield FilterLine()

    def on_unmount(self) -> None:
        """Stop the thread."""
        self._worker.stop()

    # What is shown

    @override
    def show(self, view: View) -> None:
        self._view = view
        self.refilter()

    @override
    def help_sections(self) -> Sequence[Section]:
        return help_sections()

    def refilter(self) -> None:
        """Filter and sort the flows of the last View again; until that is done, the previous rows stay."""
        view, table = self._view, self.table
        if view is None:
            return
        in_thread = len(view.rows) + sum(map(len, view.archive.records)) > MAX_INLINE_FLOWS
        arranger = self._in_thread if in_thread else self._inline
        self._worker.request(partial(arranger.arrange, view, self.filter, table.by, table.reverse), in_thread)

    def on_timeline_table_moment_changed(self, message: TimelineTable.MomentChanged) -> None:
        """Redraw the lines above and below the table."""
        message.stop()
        self._title.redraw()
        self._moment.redraw()

    def _title_lines(self, width: int, colours: Palette) -> Sequence[Line]:
        table, arrangement = self.table, self.table.arrangement
        if arrangement is None:
            return [(), ()]
        choosing, sorting = table.choosing_sort, table.sorting
        first = sort_hint_line(sorting, colours) if choosing else title_line(arrangement, sorting, colours)
        return [first, coverage_line(arrangement.view, table.window, width, colours)]

    def _moment_lines(self, width: int, colours: Palette) -> Sequence[Line]:
        """Return the line about the flow under the cursor at the cursor's time."""
        table = self.table
        if table.arrangement is None:
            return [()]
        return [moment_line(table.flow, table.moment, table.window.follows, table.axis, width, colours)]

    # Keys

    def on_cursor_table_sort_changed(self, message: CursorTable.SortChanged) -> None:
        """Sort again if the order changed."""
        message.stop()
        shown, table = self.table.arrangement, self.table
        if shown is None or (shown.by, shown.reverse) != (table.by, table.reverse):
            self.refilter()
        self._title.redraw()

    def action_copy(self) -> None:
        """Copy the row under the cursor, with the columns of the export, tab separated."""
        if self.table.flow is not None:
            self.copy(tab_separated(timeline_record(self.table.flow)))

    def action_export(self) -> None:
        """Write the shown flows in their order to a new CSV file."""
        arrangement = self.table.arrangement
        if not arrangement:
            return
        what = units.plural(len(arrangement), "flow")
        if len(arrangement) > MAX_INLINE_FLOWS:
            self.notify(f"writing {what} …", markup=False)
        self.export(export_name(time.time(), "timelines"), what, timelines_csv(arrangement))
