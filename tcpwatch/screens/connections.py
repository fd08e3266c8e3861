"""Connections: one row per socket, filtered and sorted."""

from __future__ import annotations

import time
from collections.abc import Sequence

from textual.app import ComposeResult
from textual.message import Message

from tcpwatch.kernel.printable import printable
from tcpwatch.model.arrange import Arrangement
from tcpwatch.model.columns import IN_TABLE, untold
from tcpwatch.model.csv_text import csv_blocks
from tcpwatch.model.view import View
from tcpwatch.screens.arranger import Answer, Arranger, Request
from tcpwatch.screens.export import export_name
from tcpwatch.screens.page import FlowSelected
from tcpwatch.screens.table_page import TablePage
from tcpwatch.text import count
from tcpwatch.widgets.cursor_table import CursorTable, choosing_line
from tcpwatch.widgets.filter_line import FilterLine
from tcpwatch.widgets.lines import Line, Lines
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.socket_table import SocketTable

AT_ONCE = 5_000
"""Rows that are arranged in the UI's loop, in some milliseconds; more of them are left to a thread."""


class Arranged(Message):
    """The thread has an answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class ConnectionsPage(TablePage):
    """Title, table, filter line. While a new arrangement is made, the one before stays on screen."""

    DEFAULT_CSS = "ConnectionsPage { height: 1fr; layout: vertical; }"

    def __init__(self) -> None:
        super().__init__()
        self._view: View | None = None
        self.table: SocketTable = SocketTable()
        self._arranger = Arranger(lambda answer: self.post_message(Arranged(answer)))
        self._asked = self._shown = 0

    def compose(self) -> ComposeResult:
        """As Textual asks."""
        yield _Title()
        yield self.table
        yield FilterLine()

    def on_unmount(self) -> None:
        """The thread goes with the page."""
        self._arranger.stop()

    # What is shown

    def show(self, view: View) -> None:
        """As Page asks."""
        self._view = view
        unknown = untold(view.sample.source.kind)
        self.table.show_columns([column for column in IN_TABLE if column.key not in unknown])
        self.refilter()

    def show_names(self, exact: bool) -> None:
        """As Page asks."""
        self.table.show_exact(exact)

    def refilter(self) -> None:
        """As TablePage asks; also for other rows, or another order."""
        view, table = self._view, self.table
        if view is None:
            return
        self._asked += 1
        request = Request(self._asked, view.rows, view.closed, self.filter, table.column, table.reverse)
        if len(view.rows) + len(view.closed) <= AT_ONCE:
            self._show(request.number, request.arranged())
        else:
            self._arranger.ask(request)

    def on_arranged(self, message: Arranged) -> None:
        """The thread's answer; a later one may have been shown already."""
        message.stop()
        request, answer = message.answer
        if isinstance(answer, Exception):
            raise answer
        if request.number > self._shown:
            self._show(request.number, answer)

    def _show(self, number: int, arrangement: Arrangement) -> None:
        self._shown = number
        self.table.show(arrangement)
        self._redraw_title()

    def _redraw_title(self) -> None:
        self.query_one(_Title).redraw()

    # What a person does

    def on_cursor_table_sort_changed(self, message: CursorTable.SortChanged) -> None:
        """Another order, perhaps."""
        message.stop()
        shown = self.table.arrangement
        if shown is None or (shown.column, shown.reverse) != (self.table.column, self.table.reverse):
            self.refilter()
        self._redraw_title()

    def on_cursor_table_opened(self, message: CursorTable.Opened) -> None:
        """Enter on a row."""
        message.stop()
        if isinstance(message.identity, int):  # the cookie
            self.post_message(FlowSelected(message.identity))

    def action_export(self) -> None:
        """Write the live rows that are shown into a file in the current directory."""
        shown, view = self.table.arrangement, self._view
        if shown is None or view is None:
            return
        what = f"{count(shown.shown)} sockets"
        if shown.shown > AT_ONCE:
            self.notify(f"writing {what} …", markup=False)
        live = shown.order[shown.order < len(shown.rows)]
        self.export(export_name(time.time()), what, csv_blocks(shown.rows, live, untold(view.sample.source.kind)))

    def action_copy(self) -> None:
        """Copy the row under the cursor: all columns, exact, with tabs between them."""
        table = self.table
        if table.arrangement is None or table.cursor_cookie is None:
            return
        lines = table.arrangement.lines(table.cursor, table.cursor + 1, IN_TABLE, exact=True)
        self.app.copy_to_clipboard("\t".join(lines[0].cells))
        self.notify("row copied", markup=False)


class _Title(Lines, can_focus=False):
    """Shown of total, filter, sort; or, while a column is chosen, which keys do it."""

    DEFAULT_CSS = "_Title { height: 1; overflow: hidden; }"

    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        """As Lines asks."""
        page = self.parent
        if not isinstance(page, ConnectionsPage) or page.table.arrangement is None:
            return [()]
        table, shown = page.table, page.table.arrangement
        if table.choosing:
            return [choosing_line(table.sorting, colours)]
        of_all = f"{count(shown.shown)} of " if shown.filter.text else ""
        ended = f" · {count(len(shown) - shown.shown)} closed" if len(shown) > shown.shown else ""
        pieces = [(f" {of_all}{count(shown.total)} sockets", colours.strong)]
        if shown.filter.text:
            pieces += [(" · filter ", colours.dim), (printable(shown.filter.text), colours.plain)]
        pieces += [
            (" · sort ", colours.dim),
            (f"{table.column.title} {table.sorting.arrow}", colours.plain),
            (ended, colours.dim),
        ]
        return [tuple(pieces)]
