"""HalfOpenPage: the half-open connections of the host or of one listener, with their ages, sources and explanation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import Hide
from typing_extensions import override

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
    """The tab Half-open."""

    def __init__(self) -> None:
        super().__init__(_HalfOpen())


class _HalfOpen(ViewLines[SourcePlace]):
    """The lines of the page, the chosen listener, and the cursor on the sources."""

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
        self._scope: HalfOpenScope | None = None
        self._cursor = _FIRST
        self._prefix = ""
        """The source that the cursor follows when ranks change; empty until the cursor is moved."""
        self._columns: list[list[SourcePlace | None]] = []
        """The sources on screen, column by column."""

    # What is shown

    @override
    def show(self, view: View) -> None:
        key, name = (self._scope.key, self._scope.name) if self._scope else (None, "")
        self._scope = HalfOpenScope(view, key, name)
        watched = view.queue_detail.key if view.queue_detail else None
        if key is not None and key != watched and self._scope.listener is not None:
            # Not requested yet, or another page has requested another queue.
            app_state(self).watch_queue(key)
        self._follow()
        self.redraw()

    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        """Return all lines: everything but the sources always, and as many sources as fit."""
        scope = self._scope
        if scope is None:
            return [(), ((f"   {NO_DATA}", colours.dim),)]
        layout = HalfOpenLayout(width, height, colours, self._exact)
        lines = layout.upper_lines(scope)
        self._columns = layout.places(scope, len(lines))
        self._spots = [*[()] * (len(lines) + 1), *layout.spots(self._columns)]
        self._keep_cursor_visible()
        lines += layout.source_lines(scope, len(lines), self._cursor)
        return [*lines, *layout.chart_lines(scope, height - len(lines))]

    # The cursor

    def _source(self, place: SourcePlace) -> SynSource | None:
        sources = self._scope.sources if self._scope else None
        grouping, rank = place
        return sources.top[grouping][rank] if sources and rank < len(sources.top[grouping]) else None

    def _follow(self) -> None:
        """Keep the cursor on its source if that is still listed."""
        sources = self._scope.sources if self._scope else None
        listed = sources.top[self._cursor[0]] if sources else ()
        ranks = [rank for rank, source in enumerate(listed) if source.prefix == self._prefix]
        if ranks:
            self._cursor = (self._cursor[0], ranks[0])

    def _keep_cursor_visible(self) -> None:
        """If its source is not shown any more, move it to the nearest rank of its grouping, or the first source."""
        places = self._items()
        same_grouping = [place for place in places if place[0] == self._cursor[0]] or places[:1]
        if places and self._cursor not in places:
            self._cursor = min(same_grouping, key=lambda place: abs(place[1] - self._cursor[1]))

    def _items(self) -> list[SourcePlace]:
        return [place for column in self._columns for place in column if place]

    def action_across(self, by: int) -> None:
        """Move the cursor to the column on the left or right."""
        column = next((at for at, places in enumerate(self._columns) if self._cursor in places), None)
        if column is None or not 0 <= column + by < len(self._columns):
            return
        row = self._columns[column].index(self._cursor)
        nearest = sorted((abs(y - row), place) for y, place in enumerate(self._columns[column + by]) if place)
        if nearest:
            self._go_to(nearest[0][1])

    def _go_to(self, place: SourcePlace) -> None:
        source = self._source(place)
        self._prefix = source.prefix if source else ""
        super()._go_to(place)

    def action_open(self) -> None:
        """Show the half-open connections from this source."""
        source, listener = self._source(self._cursor), self._scope.listener if self._scope else None
        terms = ["state:syn-rcvd"]
        if source is not None:
            terms.append(source.term)
        if listener is not None:
            terms.append(listener.key.local_filter)
        self.post_message(SocketsRequested(" ".join(terms)))

    # Which listener

    def action_listener(self, by: int) -> None:
        """Show the next listener with half-open connections, or after the last one all of them."""
        if self._scope is None:
            return
        steps = self._scope.choices
        at = steps.index(self._scope.key) if self._scope.key in steps else 0
        self._show_listener(steps[(at + by) % len(steps)])

    def action_all(self) -> None:
        """Show all listeners."""
        self._show_listener(None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable Esc for `all` only while one listener is shown."""
        return bool(self._scope and self._scope.key) if action == "all" else True

    def on_hide(self, event: Hide) -> None:
        """Stop asking for the members of the listener's queue when another page is shown."""
        if self._scope and self._scope.key:
            app_state(self).watch_queue(None)

    def _show_listener(self, key: ListenerKey | None) -> None:
        if self._scope is None or key == self._scope.key:
            return
        view = self._scope.view
        listener = HalfOpenScope(view, key).listener
        name = f"{listener.endpoint}  {listener.process}".rstrip() if listener else ""
        self._scope = HalfOpenScope(view, key, name)
        self._cursor, self._prefix = _FIRST, ""
        app_state(self).watch_queue(key)
        self.scroll_to(y=0, animate=False)
        self.redraw()
        self.refresh_bindings()
