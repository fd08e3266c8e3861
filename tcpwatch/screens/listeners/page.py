"""The Listeners page: one row per listening socket or SO_REUSEPORT group, with both queues."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from typing import ClassVar

import numpy as np
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from typing_extensions import override

from tcpwatch import units
from tcpwatch.exporters.csv_writer import records_csv
from tcpwatch.exporters.records import listener_record, tab_separated
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.states import State
from tcpwatch.model.view import View
from tcpwatch.screens.listeners.columns import ACCEPT_QUEUE, ALL_COLUMNS, columns_for
from tcpwatch.screens.listeners.rows import (
    ListenerRow,
    UnseenAccepts,
    UnseenAcceptsTracker,
    listener_rows,
)
from tcpwatch.screens.shared.export import export_name
from tcpwatch.screens.shared.filter_line import FilterLine
from tcpwatch.screens.shared.page import NO_DATA
from tcpwatch.screens.shared.table_page import TablePage, filter_pieces, no_match_lines, sort_pieces
from tcpwatch.widgets.lines import CallbackLines, Line, Piece
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import Entry, Section
from tcpwatch.widgets.table.cursor_table import CursorTable, sort_hint_line
from tcpwatch.widgets.table.record_table import RecordTable

MOST = 2_000
"""Listeners in the table: those with the fullest accept queues. To look for others there is the filter."""


class ListenersPage(TablePage):
    """Title, table, filter line."""

    DEFAULT_CSS = "ListenersPage { height: 1fr; layout: vertical; }"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("o", "fold", "unfold")]

    def __init__(self) -> None:
        super().__init__()
        self._view: View | None = None
        self._unfolded: set[Hashable] = set()
        self._is_cut = False
        """More than MOST listeners pass the filter."""
        self._unseen_tracker = UnseenAcceptsTracker()
        self._unseen: UnseenAccepts | None = None
        """Accepted connections that polls missed."""
        self._title = CallbackLines(self._title_lines, height=2)
        self.table: RecordTable[ListenerRow] = RecordTable(
            ALL_COLUMNS,
            identity=lambda row: row.identity,
            sort=ACCEPT_QUEUE.key,
            reverse=True,
            children=self._children,
            mark=self._mark,
        )

    @override
    def compose(self) -> ComposeResult:
        yield self._title
        yield self.table
        yield FilterLine()

    def _mark(self, row: ListenerRow) -> str:
        return " " if not row.is_group else "-" if row.identity in self._unfolded else "+"

    def _children(self, row: ListenerRow) -> Sequence[ListenerRow]:
        return row.member_rows() if row.is_group and row.identity in self._unfolded else ()

    # Drawing the View

    @property
    def has_groups(self) -> bool:
        """Whether there is a group to unfold."""
        return any(row.is_group for row in self.table.records)

    @override
    def show(self, view: View) -> None:
        self._view, self._unseen = view, self._unseen_tracker.update(view)
        self.refilter()

    def refilter(self) -> None:
        """Filter the rows. A group is shown if one of its sockets matches."""
        view, had_groups = self._view, self.has_groups
        if view is None:
            return
        listeners, hidden = view.listeners, set[Hashable]()
        cookies_of_all, passing = _passing(view, self.filter)
        if len(listeners) > MOST:
            hidden = set[Hashable](cookies_of_all - passing)
            listeners = view.listeners_with_cookies(passing, MOST)
        self._is_cut = len(passing) > MOST
        rows = listener_rows(view, self._unseen is not None, listeners)
        self._unfolded &= {row.identity for row in rows if row.is_group}
        shown = []
        for row in rows:
            cookies = {listener.cookie for listener in row.members}
            if passing.isdisjoint(cookies):
                hidden |= {row.identity, *cookies}
            else:
                shown.append(row)
        self.table.show(shown, self._why_empty(view), hidden)
        self._title.redraw()
        if self.has_groups is not had_groups:
            self.refresh_bindings()

    def _why_empty(self, view: View) -> Sequence[str]:
        if not view.listeners:
            return ("No TCP listeners.",)
        return no_match_lines(len(view.listeners), "listeners")

    @property
    def shown(self) -> list[Listener]:
        """The sockets on screen, from top to bottom."""
        return [listener for row in self.table.records if not row.is_member for listener in row.members]

    def on_resize(self, event: Resize) -> None:
        """Choose columns for the new width."""
        self.table.show_columns(columns_for(event.size.width))

    @override
    def help_sections(self) -> Sequence[Section]:
        return [Section("Listeners", [Entry(column.title, column.help) for column in ALL_COLUMNS], 15)]

    def _title_lines(self, width: int, colours: Palette) -> Sequence[Line]:
        """Return the number of listeners, drops of the host, and the order; then remarks."""
        view, sorting = self._view, self.table.sorting
        if view is None:
            return [((f" {NO_DATA}", colours.plain),), ()]
        first = sort_hint_line(sorting, colours) if sorting.choosing else self._facts(view, colours)
        return [first, _remarks(view, self._unseen, width, colours)]

    def _facts(self, view: View, colours: Palette) -> Line:
        groups = sum(row.is_group for row in self.table.records)
        of_all = f"{len(self.shown):,} of " if self.filter.text else ""
        of_groups = f", {units.plural(groups, 'group')}" if groups else ""
        cut = f", the {MOST:,} with the fullest accept queues shown" if self._is_cut else ""
        count = f" {of_all}{units.plural(len(view.listeners), 'listener')}{of_groups}{cut}"
        pieces: list[Piece] = [(count, colours.strong), *filter_pieces(self.filter, colours)]
        for word, name in (("overflows", "ListenOverflows"), ("drops", "ListenDrops")):
            rate = view.rates.get(name)
            pieces += [(f" · {word} ", colours.dim), (units.per_second(rate), colours.alarm if rate else colours.plain)]
        return (*pieces, *sort_pieces(self.table.sorting, colours))

    # Keys and clicks

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable unfolding if there are groups."""
        return super().check_action(action, parameters) if action != "fold" else self.has_groups

    def action_fold(self) -> None:
        """Show or hide the members of the group under the cursor."""
        row = self.table.record
        if row is None:
            return
        group = row.fullest.key if row.is_member else row.identity
        if not row.is_group and not row.is_member:
            return
        self.table.move_to_record(group)
        self._unfolded ^= {group}
        self.table.update_children()

    def on_cursor_table_sort_changed(self, message: CursorTable.SortChanged) -> None:
        """Show the order in the title."""
        message.stop()
        self._title.redraw()

    def on_cursor_table_opened(self, message: CursorTable.Opened) -> None:
        """Open the queues of the listener."""
        from tcpwatch.screens.queue.page import QueueScreen

        message.stop().prevent_default()
        if self.table.record is not None:
            self.app.push_screen(QueueScreen(self.table.record.fullest))

    def action_copy(self) -> None:
        """Copy the fields of the export, separated by tabs; a line per socket of a group."""
        row = self.table.record
        if row is not None:
            self.copy("\n".join(tab_separated(listener_record(listener)) for listener in row.members))

    def action_export(self) -> None:
        """Export the listeners on screen to a new file."""
        if listeners := self.shown:
            name = export_name(time.time(), "listeners")
            self.export(name, units.plural(len(listeners), "listener"), records_csv(map(listener_record, listeners)))


def _passing(view: View, filter_: Filter) -> tuple[frozenset[int], frozenset[int]]:
    """Return the cookies of all listeners, and of those that match the filter."""
    rows = view.rows.take(np.flatnonzero(view.rows.state == State.LISTEN))
    return frozenset(rows.cookie.tolist()), frozenset(rows.cookie[filter_.mask(rows)].tolist())


def _remarks(view: View, unseen: UnseenAccepts | None, width: int, colours: Palette) -> Line:
    """Return remarks on the figures of the table; mostly empty."""
    remarks = []
    if view.half_open_without_listener:
        orphaned = units.plural(view.half_open_without_listener, "half-open connection")
        remarks.append(f" {orphaned} whose listener has closed")
    if unseen is not None:
        accepted, seen = units.rate(unseen.accepted_per_s), units.rate(unseen.seen_per_s)
        room = width - sum(map(len, remarks)) - 3
        words = (
            f"accept rates are minimums: {accepted}/s accepted, {seen}/s attributed",
            f"accept ≥: {seen} of {accepted}/s",
        )
        remarks += [f" {words}" for words in words if len(words) <= room][:1]
    return ((" ·".join(remarks), colours.dim),)
