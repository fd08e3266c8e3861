"""Overview: the whole host on one screen, in the order of a connection's life."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import Region

from tcpwatch.model.states import State
from tcpwatch.model.view import View
from tcpwatch.screens.page import Page, SocketsAsked
from tcpwatch.widgets.counters import FIRST, FURTHER, counter_lines
from tcpwatch.widgets.histogram import Form, histogram, states_shown
from tcpwatch.widgets.lines import Line, Lines, rule
from tcpwatch.widgets.meters import meter_lines, meters_of
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.queues import NARROWEST, queue_lines


class OverviewPage(Page):
    """The page; all of it is drawn by one widget."""

    DEFAULT_CSS = "OverviewPage { height: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        # Kept here, since a View may come before the children are mounted, or when the app is ending.
        self._overview = _Overview()

    def compose(self) -> ComposeResult:
        """As Textual asks."""
        yield self._overview

    def show(self, view: View) -> None:
        """As Page asks."""
        self._overview.show(view)

    def show_names(self, exact: bool) -> None:
        """As Page asks."""
        self._overview.show_exact(exact)


class _Overview(Lines, can_focus=True):
    """The lines, and the cursor on the states."""

    DEFAULT_CSS = "_Overview { height: 1fr; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "open"),
        Binding("up,k", "move(-1)", "state before", show=False),
        Binding("down,j", "move(1)", "next state", show=False),
        Binding("pageup,ctrl+u", "move(-5)", "five states up", show=False),
        Binding("pagedown,ctrl+d", "move(5)", "five states down", show=False),
        Binding("home,g", "move(-99)", "first state", show=False),
        Binding("end,G", "move(99)", "last state", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._view: View | None = None
        self._exact = False
        self._cursor = State.ESTABLISHED
        self._state_at: list[State | None] = []

    def show(self, view: View) -> None:
        """Draw this View."""
        self._view = view
        if self._cursor not in states_shown(view):
            self._cursor = states_shown(view)[-1]
        self.redraw()

    def show_exact(self, exact: bool) -> None:
        """Numbers rounded or as they are."""
        self._exact = exact
        self.redraw()

    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        """As Lines asks: histogram, limits and first rates always, more of them as far as the height goes."""
        view = self._view
        if view is None:
            return [(), (("   waiting for the first answer of the kernel …", colours.dim),)]
        rows = histogram(view, self._cursor, Form(width, colours, self._exact))
        self._state_at = [state for _, state in rows]
        lines = [line for line, _ in rows]
        lines.append(rule("Limits", width, colours))
        lines += meter_lines(meters_of(view), width, colours, self._exact)
        rates = counter_lines(FIRST, view, width, colours)
        # The rule is the first thing to do without, so that 80×24 holds it all.
        if len(lines) + len(rates) < height:
            lines.append(rule("Rates", width, colours))
        lines += rates
        return [*lines, *self._further(view, width, height - len(lines), colours)]

    def _further(self, view: View, width: int, room: int, colours: Palette) -> list[Line]:
        """What fills a tall screen: further counters, then the listeners."""
        lines: list[Line] = []
        counters = counter_lines(FURTHER, view, width, colours)
        if room >= len(counters):
            lines += counters
        room -= len(lines) + 1
        if room >= 2 and view.listeners and width >= NARROWEST:
            title = f"Listeners ({len(view.listeners):,})"
            lines.append(rule(title, width, colours))
            lines += queue_lines(view.listeners, room, width, colours, self._exact)
        return lines

    def action_move(self, by: int) -> None:
        """Move the cursor by so many states."""
        if self._view is None:
            return
        states = states_shown(self._view)
        at = min(max(states.index(self._cursor) + by, 0), len(states) - 1)
        self._go_to(states[at])

    def _go_to(self, state: State) -> None:
        self._cursor = state
        self.redraw()
        y = self._state_at.index(state)
        # Two lines around it, so that the heading of its group is seen too, and the end of the page can be reached.
        below = len(self.lines) - y if state is states_shown_last(self._state_at) else 2
        self.scroll_to_region(Region(0, max(0, y - 1), 1, 1 + below), animate=False)

    def action_open(self) -> None:
        """Show the sockets that are in this state."""
        if self._view is not None:
            self.post_message(SocketsAsked(f"state:{self._cursor.name}"))

    def on_click(self, event: Click) -> None:
        """The first click on a state moves the cursor there, the next one opens it."""
        y = event.y + self.scroll_offset.y
        state = self._state_at[y] if 0 <= y < len(self._state_at) else None
        if state is None:
            return
        if state is self._cursor:
            self.action_open()
        else:
            self._go_to(state)


def states_shown_last(state_at: Sequence[State | None]) -> State | None:
    """The state of the last line that has one."""
    return next((state for state in reversed(state_at) if state is not None), None)
