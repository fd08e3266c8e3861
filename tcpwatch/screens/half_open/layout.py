"""HalfOpenLayout: the blocks of the half-open screen in one, two or three columns."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len

from tcpwatch import units
from tcpwatch.model.listeners.half_open import HalfOpenSummary
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.syn_sources import TOP, SynSources
from tcpwatch.model.rules.half_open.verdict import half_open_of, half_open_verdict
from tcpwatch.model.rules.queues.syn_queue import group_listeners
from tcpwatch.model.view import View
from tcpwatch.screens.half_open import blocks, source_lists
from tcpwatch.screens.half_open.source_lists import SourcePlace
from tcpwatch.widgets.charts.area import MIN_HEIGHT
from tcpwatch.widgets.lines import Line, title_rule
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import GUTTER, side_by_side

TWO_COLUMNS_FROM, THREE_COLUMNS_FROM = 72, 120
"""Smallest widths with two and with three columns."""
_MIN_SOURCES, _MAX_QUEUES, _MAX_CHART_HEIGHT = 4, 8, 16
_TALL = 40


@dataclass(frozen=True, slots=True)
class HalfOpenScope:
    """The half-open connections that are shown: those of all listeners, or of one."""

    view: View
    key: ListenerKey | None = None
    name: str = ""
    """The listener's address; kept after it has closed."""

    @property
    def listener(self) -> Listener | None:
        """The listener; None for all listeners, or if it has closed."""
        return next(iter(self.view.listeners_whose_key(self.key.__eq__) if self.key else ()), None)

    @property
    def half_open(self) -> HalfOpenSummary | None:
        """The summary to draw; None if the View does not have it yet."""
        return half_open_of(self.view, self.key)

    @property
    def sources(self) -> SynSources | None:
        """The sources; None if the View does not have them yet."""
        return self.half_open.sources if self.half_open else None

    @property
    def choices(self) -> list[ListenerKey | None]:
        """The steps of the key `l`: all listeners, then those with half-open connections, and the present one."""
        nearly_full, present = self.view.half_open_by_listener, {self.listener.key} if self.listener else set()
        busy = (each.key for each in group_listeners(self.view) if each.syn_queue.depth or each.key in nearly_full)
        return [None, *sorted(present.union(busy))]


@dataclass(frozen=True, slots=True)
class HalfOpenLayout:
    """The screen for this width and height."""

    width: int
    height: int
    colours: Palette
    exact: bool

    @property
    def column_count(self) -> int:
        """Number of columns."""
        return 3 if self.width >= THREE_COLUMNS_FROM else 2 if self.width >= TWO_COLUMNS_FROM else 1

    @property
    def column_width(self) -> int:
        """Cells of each column."""
        return (self.width - GUTTER * (self.column_count - 1)) // self.column_count

    def upper_lines(self, scope: HalfOpenScope) -> list[Line]:
        """Return all lines above the sources; their number does not depend on the figures."""
        verdict = half_open_verdict(scope.view, scope.key)
        return [
            self._title(scope),
            *blocks.verdict_lines(verdict, scope.key is None, self.width, self.colours),
            *self._queues(scope),
            *self._distributions(scope),
        ]

    def _title(self, scope: HalfOpenScope) -> Line:
        """Return the title: which listener, how many connections, and its position among the steps of `l`."""
        if scope.key is None:
            count = units.count(scope.view.half_open.count, self.exact)
            return title_rule(f"All listeners: {count} half-open", self.width, self.colours)
        listener, steps = scope.listener, scope.choices
        position = f" {steps.index(scope.key)} of {len(steps) - 1}" if listener else " closed"
        depth = units.count(listener.syn_queue.depth if listener else None, self.exact)
        title = f"{scope.name}: {depth} half-open"
        rates = " rates: whole host ─"  # with three columns, the title of the rates says so
        fits = self.column_count < 3 and cell_len(title) + len(rates) + len(position) + 8 <= self.width
        return title_rule(title, self.width, self.colours, f"{rates * fits}{position}")

    def _queues(self, scope: HalfOpenScope) -> list[Line]:
        """Return the SYN queue of the listener, or the fullest one; several on a tall and wide screen."""
        tall = self.height >= _TALL and self.column_count == 3
        shown: list[Listener | None] = (
            [scope.listener] if scope.key else [*_fullest(scope.view, _MAX_QUEUES if tall else 1)]
        )
        return [blocks.queue_line(queue, scope.view, self.width, self.colours, self.exact) for queue in shown or [None]]

    def _distributions(self, scope: HalfOpenScope) -> list[Line]:
        """Return rates, ages and retransmits."""
        ages = blocks.age_lines(scope.half_open, self.column_width, self.colours, self.exact)
        retransmits = blocks.retransmit_lines(scope.half_open, scope.view, self.column_width, self.colours, self.exact)
        rates = blocks.rate_lines(scope.view, self.column_width, self.colours, full_queues=self.column_count == 3)
        if self.column_count == 1:
            return [*rates, *ages, *retransmits]
        if self.column_count == 2:
            half = len(rates) // 2
            return [*self._beside(rates[:half], rates[half:]), *self._beside(ages, retransmits)]
        return self._beside(
            ages,
            retransmits,
            [title_rule("SYNs and cookies", self.column_width, self.colours, " whole host"), *rates],
        )

    def _beside(self, *blocks_: list[Line]) -> list[Line]:
        return list(side_by_side(blocks_, self.column_width, self.colours))

    def places(self, scope: HalfOpenScope, above: int) -> list[list[SourcePlace | None]]:
        """Return the sources that are shown, by column; `above`: number of lines above them."""
        return [source_lists.source_places(scope.sources, column, self._rows(above)) for column in self._columns(scope)]

    def spots(self, columns: list[list[SourcePlace | None]]) -> list[list[tuple[int, SourcePlace | None]]]:
        """Return the sources of each line below the first title, with the cells where they begin."""
        if self.column_count == 1:  # one below another, each with a title
            return [[(0, place)] for column in columns for place in (*column, None)]
        step = self.column_width + GUTTER
        rows = zip(*columns, strict=True)
        return [[(at * step, place) for at, place in enumerate(row)] for row in rows]

    def source_lines(self, scope: HalfOpenScope, above: int, cursor: SourcePlace) -> list[Line]:
        """Return the lines of the sources; `above`: number of lines above them."""
        drawn = [
            source_lists.source_column_lines(
                scope.sources, column, self._rows(above), self.column_width, cursor, self.colours, self.exact
            )
            for column in self._columns(scope)
        ]
        return self._beside(*drawn) if self.column_count > 1 else [line for block in drawn for line in block]

    def _columns(self, scope: HalfOpenScope) -> list[source_lists.SourceColumn]:
        return source_lists.source_columns(scope.sources, max(self.column_count, 2))

    def _rows(self, above: int) -> int:
        return max(_MIN_SOURCES, min(TOP, self.height - above - 1))

    def chart_lines(self, scope: HalfOpenScope, room: int) -> list[Line]:
        """Return charts for the rest of a tall screen."""
        if room < MIN_HEIGHT or self.column_count == 1:
            return []
        cells = (self.width - GUTTER) // 2
        charts = blocks.chart_lines(scope.listener, scope.view, cells, min(room, _MAX_CHART_HEIGHT), self.colours)
        return list(side_by_side(charts, cells, self.colours))


def _fullest(view: View, limit: int) -> list[Listener]:
    """Return the listeners with the fullest or the deepest SYN queues, sorted by port to keep their lines."""

    def fullness(listener: Listener) -> tuple[float, int]:
        return listener.syn_queue.share, listener.syn_queue.depth or 0

    fullest = sorted(group_listeners(view), key=fullness, reverse=True)[:limit]
    shown = {listener.key: listener for listener in fullest}
    for listener in view.listeners:  # those with empty queues fill the room that is left
        if len(shown) >= limit:
            break
        shown.setdefault(listener.key, listener)
    return [shown[key] for key in sorted(shown)]
