"""The screen of a listener: the members of both queues, oldest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.events import Resize
from textual.screen import Screen
from typing_extensions import override

from tcpwatch import units
from tcpwatch.model.columns.socket_values import show_endpoint
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_detail import QueueDetail
from tcpwatch.model.view import View
from tcpwatch.screens.listeners.rows import ListenerRow, UnseenAcceptsTracker, listener_rows
from tcpwatch.screens.queue.columns import ACCEPT_COLUMNS, SYN_COLUMNS
from tcpwatch.screens.queue.head import head_lines
from tcpwatch.screens.queue.pane import QueuePane
from tcpwatch.screens.shared.clipboard import to_clipboard
from tcpwatch.screens.shared.header_line import HeaderLine
from tcpwatch.screens.shared.page import FlowSelected
from tcpwatch.screens.shared.shell import app_state
from tcpwatch.widgets.footer_line import FooterLine
from tcpwatch.widgets.lines import CallbackLines, Line
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import Entry, Section
from tcpwatch.widgets.table.cursor_table import CursorTable

SIDE_BY_SIDE_FROM = 120
"""Width from which on the two lists stand side by side."""
_MEMBERS_FROM = 32
"""Height from which on the head shows several sockets of a group."""


class QueueScreen(Screen[None], inherit_bindings=False):
    """Shows the queues of one listening address and port, whatever sockets listen on it."""

    DEFAULT_CSS = """
    QueueScreen Container { height: 1fr; layout: vertical; }
    QueueScreen.-wide Container { layout: horizontal; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back"),
        Binding("tab,shift+tab", "other", "other queue"),
        Binding("c", "copy", "copy the row", show=False),
    ]

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._key = listener.key
        self._local = listener.local_address, listener.local_port, listener.key.device
        self._head = CallbackLines(self._head_lines, height="auto")
        self.accept_queue = QueuePane("Accept queue", ACCEPT_COLUMNS)
        self.syn_queue = QueuePane("SYN queue", SYN_COLUMNS)
        self.row: ListenerRow | None = None
        """The listener or its group; None if it has closed."""
        self._inside: QueueDetail | None = None
        self._unseen_tracker = UnseenAcceptsTracker()

    @override
    def compose(self) -> ComposeResult:
        yield HeaderLine()
        yield self._head
        with Container():
            yield self.accept_queue
            yield self.syn_queue
        yield FooterLine()

    def on_mount(self) -> None:
        """Watch the app."""
        self.accept_queue.table.focus()
        self.watch(self.app, "view", self._show, init=False)
        self.watch(self.app, "exact", self._show_names)

    def on_screen_resume(self) -> None:
        """Ask for the members, and draw the latest View."""
        app_state(self).watch_queue(self._key)
        self._show(app_state(self).view)

    def on_resize(self, event: Resize) -> None:
        """Show the lists side by side if there is room."""
        self.set_class(event.size.width >= SIDE_BY_SIDE_FROM, "-wide")

    @property
    def endpoint(self) -> str:
        """Address and port."""
        return show_endpoint(self._local, app_state(self).exact)

    def help_sections(self) -> Sequence[Section]:
        """Return what the help says about this screen."""
        return [
            Section(title, [Entry(column.title or "client closed", column.help) for column in columns], 13)
            for title, columns in (("Accept queue", ACCEPT_COLUMNS), ("SYN queue", SYN_COLUMNS))
        ]

    # Drawing the View

    def _show(self, view: View | None) -> None:
        if view is None or not self.is_current:
            return
        rows = listener_rows(
            view, self._unseen_tracker.update(view) is not None, view.listeners_whose_key(self._key.__eq__)
        )
        self.row = next(iter(rows), None)
        if view.queue_detail is not None and view.queue_detail.key == self._key:
            self._inside = view.queue_detail
        elif self.row is None:
            self._inside = None
        self._head.redraw()
        self._show_members()

    def _show_members(self) -> None:
        accept, syn = (self._inside.accept_queue, self._inside.syn_queue) if self._inside else (None, None)
        closed, reset = (self.row.fullest.client_closed, self.row.fullest.client_reset) if self.row else (0, 0)
        words = (f", {closed:,} closed by the client" if closed else "") + (f", {reset:,} more reset" if reset else "")
        self.accept_queue.show(accept, words, self._why_empty("The accept queue is empty."))
        repeated = self._inside.half_open.retransmitted if self._inside else 0
        words = f", {repeated:,} retried" if repeated else ""
        self.syn_queue.show(syn, words, self._why_empty("No half-open connections."))

    def _head_lines(self, width: int, colours: Palette) -> Sequence[Line]:
        """Return the listener, and its queues with their limits."""
        row = self.row
        if row is None:
            return [((f" {self.endpoint}", colours.strong), ("  this listener has closed", colours.warning))]
        room = 2 + (8 if self.size.height >= _MEMBERS_FROM else 1)
        meters = head_lines(row, width, room, colours, app_state(self).exact)
        return [self._title_line(row, width, colours), *meters]

    def _title_line(self, row: ListenerRow, width: int, colours: Palette) -> Line:
        fullest = row.fullest
        sockets = f" · {len(row.members)} sockets" if row.is_group else ""
        why = " (SO_REUSEPORT)" if sockets and width >= SIDE_BY_SIDE_FROM else ""
        return (
            (f" {self.endpoint}  ", colours.strong),
            (f"{fullest.process or '?'}{sockets}{why}", colours.plain),
            (f" · accepted {row.accepted_sign}{units.per_second(fullest.accepted_per_s)}", colours.plain),
            (" · drops ", colours.plain),
            (units.per_second(row.drops_per_s), colours.alarm if row.drops_per_s else colours.plain),
        )

    def _why_empty(self, otherwise: str) -> Sequence[str]:
        """Return the lines shown if there are no members."""
        if self.row is None:
            return ("This listener has closed.",)
        if self._inside is None:
            return ("Not updated while paused (space).",) if app_state(self).paused else ("Waiting for the next poll.",)
        return (otherwise,) if self.row.accept_queue_known else ("This source cannot list the members of a queue.",)

    def _show_names(self, exact: bool) -> None:
        self._head.redraw()
        for pane in (self.accept_queue, self.syn_queue):
            pane.table.show_exact(exact)

    # Keys and clicks

    def action_back(self) -> None:
        """Stop asking for the members, and close; not in on_unmount, as another screen may ask by then."""
        app_state(self).watch_queue(None)
        self.dismiss()

    def action_other(self) -> None:
        """Focus the other list."""
        here = self.accept_queue.table.has_focus
        (self.syn_queue if here else self.accept_queue).table.focus()

    def action_copy(self) -> None:
        """Copy cookie, client and age of the row under the cursor, separated by tabs."""
        table = self.accept_queue.table if self.accept_queue.table.has_focus else self.syn_queue.table
        member = table.record
        if member is not None:
            to_clipboard(self, "row", f"{member.cookie}\t{show_endpoint(member.remote, True)}\t{member.age_s:.3f}")

    def on_cursor_table_opened(self, message: CursorTable.Opened) -> None:
        """Open the flow of a member."""
        message.stop()
        if isinstance(message.identity, int):  # the cookie
            self.post_message(FlowSelected(message.identity))

    def on_cursor_table_sort_changed(self, message: CursorTable.SortChanged) -> None:
        """Show the order in the headings."""
        message.stop()
        for pane in (self.accept_queue, self.syn_queue):
            pane.heading.redraw()
