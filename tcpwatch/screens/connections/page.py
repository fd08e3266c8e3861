"""The Connections page: one row per socket or per group of sockets."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from typing_extensions import override

from tcpwatch.exporters.csv_writer import records_csv, sockets_csv
from tcpwatch.exporters.records import group_record, tab_separated
from tcpwatch.model.columns.columns import IN_TABLE, unsupported_columns
from tcpwatch.model.query.arrangement import Arrangement
from tcpwatch.model.view import View
from tcpwatch.screens.connections import groups
from tcpwatch.screens.connections.group_table import GroupTable
from tcpwatch.screens.connections.socket_table import SocketTable
from tcpwatch.screens.shared.arranger import ArrangeResult, GroupArrangement, LatestRequestWorker, arranged
from tcpwatch.screens.shared.export import export_name
from tcpwatch.screens.shared.filter_line import FilterLine
from tcpwatch.screens.shared.table_page import TablePage, filter_pieces, sort_pieces
from tcpwatch.units import count, plural
from tcpwatch.widgets.lines import CallbackLines, Line
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import Section
from tcpwatch.widgets.table.cursor_table import CursorTable, sort_hint_line

MAX_INLINE_ROWS = 5_000
"""Most rows that are arranged in the UI's loop, in a few milliseconds; more are left to a thread."""


class ConnectionsPage(TablePage):
    """Title, table, filter line. The last arrangement stays on screen until the next is complete."""

    DEFAULT_CSS = "ConnectionsPage { height: 1fr; layout: vertical; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "group(1)", "group"),
        Binding("A", "group(-1)", "previous grouping", show=False),
        Binding("escape", "leave_group", "back to groups"),
        Binding("escape", "clear_filter", "clear the filter", show=False),
        Binding("escape", "ungroup", "back to single sockets", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._view: View | None = None
        self.heading = CallbackLines(self._heading_lines)
        self.table: SocketTable = SocketTable()
        self.groups = GroupTable()
        self.groups.display = self.groups.can_focus = False
        self.grouping: GroupArrangement | None = None
        """The groups on screen."""
        self._navigation = groups.GroupNavigation()
        """The requested grouping; the screen follows when it has been computed."""
        self._worker = LatestRequestWorker[ArrangeResult](self, self._show)

    @override
    def compose(self) -> ComposeResult:
        yield self.heading
        yield self.table
        yield self.groups
        yield FilterLine()

    def on_unmount(self) -> None:
        """End the thread."""
        self._worker.stop()

    # Drawing the View

    @property
    @override
    def visible_table(self) -> CursorTable[Any]:
        return self.groups if self.groups.display else self.table

    @property
    def _unsupported(self) -> frozenset[str]:
        return unsupported_columns(self._view.sample.capabilities) if self._view is not None else frozenset()

    @override
    def show(self, view: View) -> None:
        self._view = view
        unknown = self._unsupported
        self.table.show_columns([column for column in IN_TABLE if column.key not in unknown])
        self.refilter()

    @override
    def show_exact(self, exact: bool) -> None:
        super().show_exact(exact)
        self.groups.show_exact(exact)

    @override
    def help_sections(self) -> Sequence[Section]:
        return groups.group_help_sections() if self.groups.display else ()

    def refilter(self) -> None:
        """Arrange the rows again, for another View, filter, order or grouping."""
        view, table = self._view, self.table
        if view is None:
            return
        compute = partial(
            arranged, view.rows, view.closed, self.filter, table.column, table.reverse, self._navigation.by
        )
        self._worker.request(compute, in_thread=len(view.rows) + len(view.closed) > MAX_INLINE_ROWS)

    def _show(self, result: ArrangeResult) -> None:
        if isinstance(result, Arrangement):
            self.table.show(result)
            self._show_table(self.table, self.groups)
        else:
            self.grouping = result
            filtered, empty = bool(result.filter.text), groups.empty_lines(result)
            self.groups.show_groups(result.grouped, self._unsupported, filtered, empty)
            self._show_table(self.groups, self.table)
        self.heading.redraw()

    def _show_table(self, table: CursorTable[Any], other: CursorTable[Any]) -> None:
        """Show this table instead of the other one, and move the focus with it."""
        if table.display:
            return
        had_keys = self.screen.focused is other
        table.display = table.can_focus = True
        if had_keys:
            self.screen.set_focus(table, scroll_visible=False)
        other.display = other.can_focus = False
        self.refresh_bindings()

    def _heading_lines(self, width: int, colours: Palette) -> Sequence[Line]:
        """Return the number of rows, filter and order; or the keys for choosing a column."""
        if self.visible_table.choosing_sort:
            return [sort_hint_line(self.visible_table.sorting, colours)]
        if self.groups.display and self.grouping is not None:
            return [groups.title_line(self.grouping, self.groups.sorting, colours)]
        return [_sockets_title(self.table, colours)]

    # Groups

    def _go(self, filter_text: str | None = None) -> None:
        """Follow the navigation, perhaps with another filter; the screen changes when the result is there."""
        self._worker.forget()
        before = self.filter
        if filter_text is not None:
            super().set_filter(filter_text)
        if self.filter == before:  # else there is a message
            self.refilter()
        self.refresh_bindings()

    def set_filter(self, filter_text: str) -> None:
        """Show the single sockets that match this filter; other pages call it."""
        self._navigation.reset()
        self._go(filter_text)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable one meaning of Esc at a time, and `a` unless a filter is being typed."""
        if action in ("leave_group", "clear_filter", "ungroup"):
            return self._navigation.allows(action, self.filter.text)
        return super().check_action(action, parameters) and (action != "group" or self.table_has_keys)

    def action_group(self, step: int) -> None:
        """Select the next or the previous grouping."""
        self._navigation.change_grouping(step, self.filter.text, self._unsupported)
        self._go()

    def action_leave_group(self) -> None:
        """Return to the groups."""
        self._go(self._navigation.leave())

    def action_clear_filter(self) -> None:
        """Clear the filter, and keep the grouping."""
        self._go("")

    def action_ungroup(self) -> None:
        """Show single sockets."""
        self._navigation.reset()
        self._go()

    def _open_group(self, identity: Hashable) -> None:
        row = self.groups.row_of(identity)
        if row is None:
            return
        if row.filter:
            self._go(self._navigation.enter(row, self.filter.text))
        else:
            self.notify(groups.not_opened_reason(row), severity="warning", markup=False)

    # Keys and clicks

    def on_cursor_table_sort_changed(self, message: CursorTable.SortChanged) -> None:
        """Arrange the rows again if the order changed."""
        message.stop()
        shown = self.table.arrangement
        if message.table is self.table and (
            shown is None or (shown.column, shown.reverse) != (self.table.column, self.table.reverse)
        ):
            self.refilter()
        self.heading.redraw()

    def on_cursor_table_opened(self, message: CursorTable.Opened) -> None:
        """Open the group; TablePage opens a flow."""
        if message.table is self.groups:
            self._open_group(message.identity)

    def action_export(self) -> None:
        """Export the live rows or the groups on screen to a new file."""
        if self.groups.display:
            self._export_groups()
            return
        shown, view = self.table.arrangement, self._view
        if shown is None or view is None:
            return
        what = plural(shown.shown, "socket")
        if shown.shown > MAX_INLINE_ROWS:
            self.notify(f"writing {what} …", markup=False)
        live = shown.order[shown.order < len(shown.rows)]
        self.export(export_name(time.time()), what, sockets_csv(shown.rows, live, self._unsupported))

    def _export_groups(self) -> None:
        rows = list(self.groups.records)
        if rows and self.grouping is not None:
            records = (group_record(row, self._unsupported) for row in rows)
            what = groups.group_count_text(self.grouping)
            self.export(export_name(time.time(), "groups"), what, records_csv(records))

    def action_copy(self) -> None:
        """Copy all columns of the row under the cursor, exact and separated by tabs."""
        table = self.table
        if self.groups.display:
            if self.groups.record is None:
                return
            copied = tab_separated(group_record(self.groups.record, self._unsupported))
        elif table.arrangement is None or table.cursor_cookie is None:
            return
        else:
            copied = "\t".join(table.arrangement.lines(table.cursor, table.cursor + 1, IN_TABLE, exact=True)[0].cells)
        self.copy(copied)


def _sockets_title(table: SocketTable, colours: Palette) -> Line:
    shown = table.arrangement
    if shown is None:
        return ()
    of_all = f"{count(shown.shown)} of " if shown.filter.text else ""
    ended = f" · {count(len(shown) - shown.shown)} closed since last poll" if len(shown) > shown.shown else ""
    return (
        (f" {of_all}{plural(shown.total, 'socket')}", colours.strong),
        *filter_pieces(shown.filter, colours),
        *sort_pieces(table.sorting, colours),
        (ended, colours.dim),
    )
