"""Connections: one row per socket, filtered and sorted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message

from tcpwatch.kernel.printable import printable
from tcpwatch.model.arrange import Arrangement
from tcpwatch.model.columns import IN_TABLE, untold
from tcpwatch.model.filter import Filter
from tcpwatch.model.view import View
from tcpwatch.screens.arranger import Answer, Arranger, Request
from tcpwatch.screens.export import export_name, start_export
from tcpwatch.screens.page import FlowSelected, Page
from tcpwatch.text import count
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


class Exported(Message):
    """An export has ended."""

    def __init__(self, path: Path, rows: int, error: OSError | None) -> None:
        super().__init__()
        self.path, self.rows, self.error = path, rows, error


class ConnectionsPage(Page):
    """Title, table, filter line. While a new arrangement is made, the one before stays on screen."""

    DEFAULT_CSS = "ConnectionsPage { height: 1fr; layout: vertical; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "filter"),
        Binding("escape", "clear_filter", "take the filter away", show=False),
        Binding("x", "export", "export as CSV", show=False),
        Binding("c", "copy", "copy the row", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._view: View | None = None
        self._arranger = Arranger(lambda answer: self.post_message(Arranged(answer)))
        self._asked = self._shown = 0

    def compose(self) -> ComposeResult:
        """As Textual asks."""
        yield _Title()
        yield SocketTable()
        yield FilterLine()

    def on_unmount(self) -> None:
        """The thread goes with the page."""
        self._arranger.stop()

    @property
    def table(self) -> SocketTable:
        """The table."""
        return self.query_one(SocketTable)

    @property
    def filter(self) -> Filter:
        """The filter that a person asked for."""
        return self.query_one(FilterLine).filter

    # What is shown

    def show(self, view: View) -> None:
        """As Page asks."""
        self._view = view
        unknown = untold(view.sample.source.kind)
        self.table.show_columns([column for column in IN_TABLE if column.key not in unknown])
        self._arrange()

    def show_names(self, exact: bool) -> None:
        """As Page asks."""
        self.table.show_exact(exact)

    def set_filter(self, text: str) -> None:
        """Show the sockets that pass this filter; one that cannot be understood is shown with the reason."""
        self.query_one(FilterLine).set_text(text)

    def _arrange(self) -> None:
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

    def on_filter_line_changed(self, message: FilterLine.Changed) -> None:
        """Another filter."""
        message.stop()
        self._arrange()
        self.refresh_bindings()

    def on_filter_line_left(self, message: FilterLine.Left) -> None:
        """The keys go to the table again."""
        message.stop()
        self.table.focus()

    def on_socket_table_sort_changed(self, message: SocketTable.SortChanged) -> None:
        """Another order, perhaps."""
        message.stop()
        shown = self.table.arrangement
        if shown is None or (shown.column, shown.reverse) != (self.table.column, self.table.reverse):
            self._arrange()
        self._redraw_title()

    def on_socket_table_opened(self, message: SocketTable.Opened) -> None:
        """Enter on a row."""
        message.stop()
        self.post_message(FlowSelected(message.cookie))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Esc steps back from a filter, where there is one; `/` is a letter like others while one is typed."""
        if action == "clear_filter":
            return bool(self.filter.text)
        return action != "filter" or self.table.has_focus

    def action_filter(self) -> None:
        """Type a filter."""
        self.query_one(FilterLine).open()

    def action_clear_filter(self) -> None:
        """Show all."""
        self.set_filter("")

    def action_export(self) -> None:
        """Write the live rows that are shown into a file in the current directory."""
        shown, view = self.table.arrangement, self._view
        if shown is None or view is None:
            return
        path = Path.cwd() / export_name(time.time())
        if shown.shown > AT_ONCE:
            self.notify(f"writing {count(shown.shown)} sockets …", markup=False)
        unknown = untold(view.sample.source.kind)
        start_export(path, shown, unknown, lambda error: self.post_message(Exported(path, shown.shown, error)))

    def on_exported(self, message: Exported) -> None:
        """Say where it is, or why it is not."""
        message.stop()
        path = printable(str(message.path))
        if message.error is None:
            self.notify(f"{count(message.rows)} sockets written to {path}", markup=False)
        else:
            reason = message.error.strerror or str(message.error)
            self.notify(f"cannot write {path}: {printable(reason)}", severity="error", markup=False)

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
        key = f"{table.column.title} {table.sorting.arrow}"
        if table.choosing:
            return [(
                (" sort by ", colours.plain), (key, colours.strong),
                ("   ←→ ", colours.key), ("column  ", colours.plain), ("s ", colours.key), ("reverse  ", colours.plain),
                ("Enter ", colours.key), ("done", colours.plain),
            )]  # fmt: skip
        of_all = f"{count(shown.shown)} of " if shown.filter.text else ""
        ended = f" · {count(len(shown) - shown.shown)} closed" if len(shown) > shown.shown else ""
        pieces = [(f" {of_all}{count(shown.total)} sockets", colours.strong)]
        if shown.filter.text:
            pieces += [(" · filter ", colours.dim), (printable(shown.filter.text), colours.plain)]
        pieces += [(" · sort ", colours.dim), (key, colours.plain), (ended, colours.dim)]
        return [tuple(pieces)]
