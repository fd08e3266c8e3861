"""Timelines: a row a flow, live or recently closed, time to the right, each state a stretch of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.message import Message

from tcpwatch import units
from tcpwatch.exporters.csv_writer import timelines_csv
from tcpwatch.exporters.records import tab_separated, timeline_record
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.query.timeline_arrangement import TimelineArrangement, TimelineArranger, TimelineSort
from tcpwatch.model.view import View
from tcpwatch.screens.shared.arranger import LatestRequestWorker
from tcpwatch.screens.shared.export import export_name
from tcpwatch.screens.shared.filter_line import FilterLine
from tcpwatch.screens.shared.page import FlowSelected
from tcpwatch.screens.shared.table_page import TablePage
from tcpwatch.screens.timelines.table import TimelineTable
from tcpwatch.screens.timelines.texts import coverage_line, help_sections, moment_line, title_line
from tcpwatch.widgets.lines import Line, Lines
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import Section
from tcpwatch.widgets.table.cursor_table import CursorTable, sort_hint_line

MAX_INLINE_FLOWS = 20_000
"""Flows that are chosen from in the UI's loop, in some milliseconds; with more of them that is left to a thread."""


@dataclass(frozen=True, slots=True, eq=False)
class TimelinesRequest:
    """What is to be chosen; later requests have higher numbers."""

    number: int
    view: View
    filter: Filter
    sort_by: TimelineSort
    reverse: bool

    def result(self, chooser: TimelineArranger) -> TimelineArrangement:
        """The answer, computed here and now."""
        return chooser.arrange(self.view, self.filter, self.sort_by, self.reverse)

    @property
    def flow_count(self) -> int:
        """Flows to choose from."""
        return len(self.view.rows) + sum(len(chunk) for chunk in self.view.archive.records)


class TimelinesReady(Message):
    """The thread has an answer."""

    def __init__(self, answer: tuple[TimelinesRequest, TimelineArrangement | Exception]) -> None:
        super().__init__()
        self.answer = answer


class TimelinesPage(TablePage):
    """Two lines of title, the table, what the cursor is on, and the filter line."""

    DEFAULT_CSS = "TimelinesPage { height: 1fr; layout: vertical; }"

    def __init__(self) -> None:
        super().__init__()
        self._view: View | None = None
        self._title, self._moment = _Title(self), _Moment(self)
        self.table: TimelineTable = TimelineTable()
        self._chooser, in_thread = TimelineArranger(), TimelineArranger()  # each is used by one thread
        self._arranger = LatestRequestWorker[TimelinesRequest, TimelineArrangement](
            lambda request: request.result(in_thread), lambda answer: self.post_message(TimelinesReady(answer))
        )
        self._asked = self._shown = 0

    def compose(self) -> ComposeResult:
        """As Textual asks."""
        yield self._title
        yield self.table
        yield self._moment
        yield FilterLine()

    def on_unmount(self) -> None:
        """The thread goes with the page."""
        self._arranger.stop()

    # What is shown

    def show(self, view: View) -> None:
        """As Page asks."""
        self._view = view
        self.refilter()

    def show_exact(self, exact: bool) -> None:
        """As Page asks."""
        self.table.show_exact(exact)

    def help_sections(self) -> Sequence[Section]:
        """For the help."""
        return help_sections()

    def refilter(self) -> None:
        """As TablePage asks; also for other flows, or another order. Till it is chosen, what was shown before stays."""
        if self._view is None:
            return
        self._asked += 1
        request = TimelinesRequest(self._asked, self._view, self.filter, self.table.by, self.table.reverse)
        if request.flow_count <= MAX_INLINE_FLOWS:
            self._show(request, request.result(self._chooser))
        else:
            self._arranger.submit(request)

    def on_timelines_ready(self, message: TimelinesReady) -> None:
        """The thread's answer; a later one may have been shown already."""
        message.stop()
        request, answer = message.answer
        if isinstance(answer, Exception):
            raise answer
        if request.number > self._shown:
            self._show(request, answer)

    def _show(self, request: TimelinesRequest, chosen: TimelineArrangement) -> None:
        self._shown = request.number
        self.table.show(chosen)

    def on_timeline_table_moment_changed(self, message: TimelineTable.MomentChanged) -> None:
        """Other flows, another one under the cursor, or another moment."""
        message.stop()
        self._title.redraw()
        self._moment.redraw()

    # What a person does

    def on_cursor_table_sort_changed(self, message: CursorTable.SortChanged) -> None:
        """Another order, perhaps."""
        message.stop()
        shown, table = self.table.arrangement, self.table
        if shown is None or (shown.by, shown.reverse) != (table.by, table.reverse):
            self.refilter()
        self._title.redraw()

    def on_cursor_table_opened(self, message: CursorTable.Opened) -> None:
        """Enter on a row."""
        message.stop()
        if isinstance(message.identity, int):  # the cookie
            self.post_message(FlowSelected(message.identity))

    def action_copy(self) -> None:
        """Copy the row under the cursor: all that the export has, with tabs between."""
        if self.table.flow is not None:
            self.app.copy_to_clipboard(tab_separated(timeline_record(self.table.flow)))
            self.notify("row copied", markup=False)

    def action_export(self) -> None:
        """Write the flows that are shown, in their order, into a file in the current directory."""
        chosen = self.table.arrangement
        if not chosen:
            return
        what = f"{units.count(len(chosen))} flow{'s' * (len(chosen) != 1)}"
        if len(chosen) > MAX_INLINE_FLOWS:
            self.notify(f"writing {what} …", markup=False)
        self.export(export_name(time.time(), "timelines"), what, timelines_csv(chosen))


class _Title(Lines):
    """How many flows and in which order, how much time, and how well it is known."""

    DEFAULT_CSS = "_Title { height: 2; overflow: hidden; }"

    def __init__(self, page: TimelinesPage) -> None:
        super().__init__()
        self._page = page

    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        """As Lines asks."""
        table = self._page.table
        chosen = table.arrangement
        if chosen is None:
            return [(), ()]
        first = (
            sort_hint_line(table.sorting, colours)
            if table.choosing_sort
            else title_line(chosen, table.sorting, colours)
        )
        return [first, coverage_line(chosen.view, table.window, width, colours)]


class _Moment(Lines):
    """The flow and the moment under the cursor."""

    DEFAULT_CSS = "_Moment { height: 1; overflow: hidden; background: $panel; }"

    def __init__(self, page: TimelinesPage) -> None:
        super().__init__()
        self._page = page

    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        """As Lines asks."""
        table = self._page.table
        if table.arrangement is None:
            return [()]
        return [moment_line(table.flow, table.moment, table.window.follows, table.axis, width, colours)]
