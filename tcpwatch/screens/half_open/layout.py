"""Where the blocks of the half-open screen stand: below one another, in two columns, or in three."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len

from tcpwatch import units
from tcpwatch.model.listeners.half_open import HalfOpenSummary
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.syn_sources import TOP, SynSources
from tcpwatch.model.rules.half_open_verdict import half_open_of, half_open_verdict
from tcpwatch.model.rules.syn_queue import group_listeners
from tcpwatch.model.view import View
from tcpwatch.screens.half_open import blocks, source_lists
from tcpwatch.screens.half_open.source_lists import SourcePlace
from tcpwatch.widgets.charts.area import MIN_HEIGHT
from tcpwatch.widgets.lines import Line, title_rule
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import GUTTER, side_by_side

TWO_COLUMNS_FROM, THREE_COLUMNS_FROM = 72, 120
"""Widths from which on blocks stand in two columns, and in three."""
_FEWEST_SOURCES, _MOST_QUEUES, _HIGHEST_CHART = 4, 8, 16
_TALL = 40


@dataclass(frozen=True, slots=True)
class HalfOpenScope:
    """Whose half-open connections are shown: all listeners', or those of one."""

    view: View
    key: ListenerKey | None = None
    name: str = ""
    """The listener's; it stays when the listener has gone."""

    @property
    def listener(self) -> Listener | None:
        """The listener; None where it is all of them, or it has gone."""
        return next((one for one in group_listeners(self.view) if one.key == self.key), None) if self.key else None

    @property
    def half_open(self) -> HalfOpenSummary | None:
        """What there is to draw; None where the View does not have it (yet)."""
        return half_open_of(self.view, self.key)

    @property
    def sources(self) -> SynSources | None:
        """As `found`."""
        return self.half_open.sources if self.half_open else None

    @property
    def choices(self) -> list[ListenerKey | None]:
        """What `l` steps through: all, then by port each with half-open connections or a nearly full queue, and it."""
        crowded = self.view.half_open_by_listener
        some = [
            it.key for it in group_listeners(self.view) if it.syn_queue.depth or it.key in crowded or it.key == self.key
        ]
        return [None, *sorted(some)]


@dataclass(frozen=True, slots=True)
class HalfOpenLayout:
    """For a screen of this size."""

    width: int
    height: int
    colours: Palette
    exact: bool

    @property
    def column_count(self) -> int:
        """Columns."""
        return 3 if self.width >= THREE_COLUMNS_FROM else 2 if self.width >= TWO_COLUMNS_FROM else 1

    @property
    def column_width(self) -> int:
        """Of each column."""
        return (self.width - GUTTER * (self.column_count - 1)) // self.column_count

    def upper_lines(self, it: HalfOpenScope) -> list[Line]:
        """All but sources and charts; so many lines whatever the figures are."""
        said = half_open_verdict(it.view, it.key)
        return [
            self._title(it),
            *blocks.verdict_lines(said, it.key is None, self.width, self.colours),
            *self._queues(it),
            *self._shapes(it),
        ]

    def _title(self, it: HalfOpenScope) -> Line:
        """Whose half-open connections, how many, and which of the listeners that have such."""
        if it.key is None:
            count = units.count(it.view.half_open.count, self.exact)
            return title_rule(f"All listeners: {count} half-open", self.width, self.colours)
        one, steps = it.listener, it.choices
        at = f" {steps.index(it.key)} of {len(steps) - 1}" if one else " gone"
        depth = units.count(one.syn_queue.depth if one else None, self.exact)
        title = f"{it.name}: {depth} half-open"
        rates = " rates: the whole host's ─"  # three columns have a title for them
        fits = self.column_count < 3 and cell_len(title) + len(rates) + len(at) + 8 <= self.width
        return title_rule(title, self.width, self.colours, f"{rates * fits}{at}")

    def _queues(self, it: HalfOpenScope) -> list[Line]:
        """The SYN queue of the listener, or the fullest of all; more of them on a tall and wide screen."""
        tall = self.height >= _TALL and self.column_count == 3
        some: list[Listener | None] = [it.listener] if it.key else [*_fullest(it.view, _MOST_QUEUES if tall else 1)]
        return [blocks.queue_line(one, it.view, self.width, self.colours, self.exact) for one in some or [None]]

    def _shapes(self, it: HalfOpenScope) -> list[Line]:
        """Rates, ages and repeats."""
        ages = blocks.age_lines(it.half_open, self.column_width, self.colours, self.exact)
        ladder = blocks.ladder_lines(it.half_open, it.view, self.column_width, self.colours, self.exact)
        rates = blocks.rate_lines(it.view, self.column_width, self.colours, further=self.column_count == 3)
        if self.column_count == 1:
            return [*rates, *ages, *ladder]
        if self.column_count == 2:
            half = len(rates) // 2
            return [*self._beside(rates[:half], rates[half:]), *self._beside(ages, ladder)]
        return self._beside(
            ages,
            ladder,
            [title_rule("SYNs and cookies", self.column_width, self.colours, " of the whole host"), *rates],
        )

    def _beside(self, *blocks_: list[Line]) -> list[Line]:
        return list(side_by_side(blocks_, self.column_width, self.colours))

    def places(self, it: HalfOpenScope, above: int) -> list[list[SourcePlace | None]]:
        """The sources that are shown, column by column, below so many lines."""
        return [source_lists.source_places(it.sources, column, self._rows(above)) for column in self._columns(it)]

    def spots(self, columns: list[list[SourcePlace | None]]) -> list[list[tuple[int, SourcePlace | None]]]:
        """Return the sources of each line below the first title, with the cells where they begin."""
        if self.column_count == 1:  # one below the other, each with its title
            return [[(0, place)] for column in columns for place in (*column, None)]
        step = self.column_width + GUTTER
        rows = zip(*columns, strict=True)
        return [[(at * step, place) for at, place in enumerate(row)] for row in rows]

    def source_lines(self, it: HalfOpenScope, above: int, cursor: SourcePlace) -> list[Line]:
        """The sources, below so many lines."""
        drawn = [
            source_lists.source_column_lines(
                it.sources, column, self._rows(above), self.column_width, cursor, self.colours, self.exact
            )
            for column in self._columns(it)
        ]
        return self._beside(*drawn) if self.column_count > 1 else [line for block in drawn for line in block]

    def _columns(self, it: HalfOpenScope) -> list[source_lists.SourceColumn]:
        return source_lists.source_columns(it.sources, max(self.column_count, 2))

    def _rows(self, above: int) -> int:
        return max(_FEWEST_SOURCES, min(TOP, self.height - above - 1))

    def chart_lines(self, it: HalfOpenScope, room: int) -> list[Line]:
        """What fills the rest of a tall screen."""
        if room < MIN_HEIGHT or self.column_count == 1:
            return []
        cells = (self.width - GUTTER) // 2
        charts = blocks.chart_lines(it.listener, it.view, cells, min(room, _HIGHEST_CHART), self.colours)
        return list(side_by_side(charts, cells, self.colours))


def _fullest(view: View, most: int) -> list[Listener]:
    """Those with the fullest SYN queues, or the deepest where no limits are known; by port: they keep their lines."""
    full = sorted(group_listeners(view), key=lambda one: (one.syn_queue.share, one.syn_queue.depth or 0), reverse=True)
    return sorted(full[:most], key=lambda one: one.key)
