"""Half-open: who began a handshake and did not end it, why, how long ago, and from where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import Hide

from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.listeners.syn_sources import SynSource
from tcpwatch.model.view import View
from tcpwatch.screens.half_open.layout import HalfOpenLayout, HalfOpenScope
from tcpwatch.screens.half_open.source_lists import SourcePlace
from tcpwatch.screens.shared.drawn_page import DrawnPage, ViewLines
from tcpwatch.screens.shared.page import NO_DATA, SocketsRequested
from tcpwatch.screens.shared.shell import app_state
from tcpwatch.widgets.lines import Line
from tcpwatch.widgets.palette import Palette

_FIRST: SourcePlace = ("address", 0)


class HalfOpenPage(DrawnPage):
    """The page."""

    content: _HalfOpen

    def __init__(self) -> None:
        super().__init__(_HalfOpen())

    def on_hide(self, event: Hide) -> None:
        """Stop asking for the members of the listener's queue when another page is shown."""
        self.content.look_away()


class _HalfOpen(ViewLines[SourcePlace]):
    """The lines, the chosen listener, and the cursor on the sources."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "listener(1)", "next listener"),
        Binding("L", "listener(-1)", "previous listener", show=False),
        Binding("escape", "all", "all listeners", show=False),
        Binding("right", "across(1)", "sources on the right", show=False),
        Binding("left", "across(-1)", "sources on the left", show=False),
    ]
    _cursor: SourcePlace

    def __init__(self) -> None:
        super().__init__()
        self._subject: HalfOpenScope | None = None
        self._cursor = _FIRST
        self._prefix = ""
        """The source under the cursor, which the cursor follows while ranks change; empty until somebody moves it."""
        self._columns: list[list[SourcePlace | None]] = []
        """The sources on screen, column by column."""

    # What is shown

    def show(self, view: View) -> None:
        """Draw this View."""
        key, name = (self._subject.key, self._subject.name) if self._subject else (None, "")
        self._subject = HalfOpenScope(view, key, name)
        looked_into = view.queue_detail.key if view.queue_detail else None
        if key is not None and key != looked_into and self._subject.listener is not None:
            # Not there yet, or somebody else looked elsewhere since.
            app_state(self).watch_queue(key)
        self._follow()
        self.redraw()

    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        """As Lines asks: as many sources as there is room for, and all else always."""
        subject = self._subject
        if subject is None:
            return [(), ((f"   {NO_DATA}", colours.dim),)]
        layout = HalfOpenLayout(width, height, colours, self._exact)
        lines = layout.upper_lines(subject)
        self._columns = layout.places(subject, len(lines))
        self._spots = [*[()] * (len(lines) + 1), *layout.spots(self._columns)]
        self._keep_cursor_in_sight()
        lines += layout.source_lines(subject, len(lines), self._cursor)
        return [*lines, *layout.chart_lines(subject, height - len(lines))]

    # The cursor

    def _named(self, place: SourcePlace) -> SynSource | None:
        sources = self._subject.sources if self._subject else None
        grouping, rank = place
        return sources.top[grouping][rank] if sources and rank < len(sources.top[grouping]) else None

    def _follow(self) -> None:
        """Keep the cursor on its source where that is still named."""
        sources = self._subject.sources if self._subject else None
        named = sources.top[self._cursor[0]] if sources else ()
        ranks = [rank for rank, source in enumerate(named) if source.prefix == self._prefix]
        if ranks:
            self._cursor = (self._cursor[0], ranks[0])

    def _keep_cursor_in_sight(self) -> None:
        """Where its source is not shown any more: the nearest rank of the same grouping, or the first source."""
        there = self._items()
        alike = [place for place in there if place[0] == self._cursor[0]] or there[:1]
        if there and self._cursor not in there:
            self._cursor = min(alike, key=lambda place: abs(place[1] - self._cursor[1]))

    def _items(self) -> list[SourcePlace]:
        return [place for column in self._columns for place in column if place]

    def action_across(self, by: int) -> None:
        """Into the column beside."""
        column = next((at for at, places in enumerate(self._columns) if self._cursor in places), None)
        if column is None or not 0 <= column + by < len(self._columns):
            return
        row = self._columns[column].index(self._cursor)
        near = sorted((abs(y - row), place) for y, place in enumerate(self._columns[column + by]) if place)
        if near:
            self._go_to(near[0][1])

    def _go_to(self, place: SourcePlace) -> None:
        source = self._named(place)
        self._prefix = source.prefix if source else ""
        super()._go_to(place)

    def action_open(self) -> None:
        """Show the half-open connections from this source."""
        source, one = self._named(self._cursor), self._subject.listener if self._subject else None
        terms = ["state:syn-rcvd"]
        if source is not None:
            terms.append(source.term)
        if one is not None:
            terms.append(one.key.local_filter)
        self.post_message(SocketsRequested(" ".join(terms)))

    # Which listener

    def action_listener(self, by: int) -> None:
        """The next listener with half-open connections, or all of them again."""
        if self._subject is None:
            return
        steps = self._subject.choices
        at = steps.index(self._subject.key) if self._subject.key in steps else 0
        self._look_into(steps[(at + by) % len(steps)])

    def action_all(self) -> None:
        """All listeners."""
        self._look_into(None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Esc steps back to all listeners, where one is looked into."""
        return bool(self._subject and self._subject.key) if action == "all" else True

    def look_away(self) -> None:
        """What is inside the queue is not asked for any longer."""
        if self._subject and self._subject.key:
            app_state(self).watch_queue(None)

    def _look_into(self, key: ListenerKey | None) -> None:
        if self._subject is None or key == self._subject.key:
            return
        view = self._subject.view
        one = HalfOpenScope(view, key).listener
        self._subject = HalfOpenScope(view, key, f"{one.endpoint}  {one.process}".rstrip() if one else "")
        self._cursor, self._prefix = _FIRST, ""
        app_state(self).watch_queue(key)
        self.scroll_to(y=0, animate=False)
        self.redraw()
        self.refresh_bindings()
