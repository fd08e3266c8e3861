"""The state histogram: count, bar, change per second and last two minutes of each state."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from tcpwatch import units
from tcpwatch.model.states import FACTS, STATE_ORDER, Phase, State
from tcpwatch.model.trends import TREND_S
from tcpwatch.model.view import View
from tcpwatch.screens.shared.state_marks import phase_style
from tcpwatch.widgets.charts.bars import sparkline
from tcpwatch.widgets.lines import Line, overlay_style, title_rule
from tcpwatch.widgets.palette import Palette

_TITLES = {Phase.HANDSHAKE: "Handshake", Phase.OPEN: "Open", Phase.TEARDOWN: "Teardown", Phase.NONE: "No connection"}
_NAME, _SIDE, _COUNT, _RATE = 12, 15, 11, 9
_MARGIN = 3
_NO_SPARK_BELOW, _SIDE_FROM = 50, 110
"""Widths from which on there is room for a sparkline, and for the side of a state."""


def states_shown(view: View) -> tuple[State, ...]:
    """Return all states of a connection; CLOSED only if a socket has it."""
    return tuple(s for s in STATE_ORDER if s is not State.CLOSED or view.counts.get(s))


def histogram(view: View, cursor: State | None, form: HistogramLayout) -> list[tuple[Line, State | None]]:
    """Return the lines, each with the state that it shows; None for titles."""
    lines: list[tuple[Line, State | None]] = []
    most = max(view.counts.values(), default=0)
    for phase, states in groupby(states_shown(view), lambda state: FACTS[state].phase):
        lines.append((title_rule(_TITLES[phase], form.width, form.colours, "" if lines else form.head), None))
        for state in states:
            line = form.row(view, state, most, state is cursor)
            lines.append((overlay_style(line, form.width, form.colours.cursor) if state is cursor else line, state))
    return lines


@dataclass(frozen=True, slots=True)
class HistogramLayout:
    """Layout of a row in `width` cells."""

    width: int
    colours: Palette
    exact: bool = False

    @property
    def side_cells(self) -> int:
        """Cells for the side of a state."""
        return _SIDE + 1 if self.width >= _SIDE_FROM else 0

    @property
    def sparkline_cells(self) -> int:
        """Cells of the sparkline and its gap: two fifths of the free cells, at most one per two seconds."""
        free = self.width - _MARGIN - _NAME - 1 - self.side_cells - _COUNT - _RATE - 1
        return 2 + min(TREND_S // 2, max(10, free * 2 // 5)) if self.width >= _NO_SPARK_BELOW else 0

    @property
    def bar_cells(self) -> int:
        """Cells of the bar."""
        return max(0, self.width - _MARGIN - _NAME - 1 - self.side_cells - _COUNT - _RATE - self.sparkline_cells - 1)

    @property
    def head(self) -> str:
        """Titles of the columns on the right."""
        spark = f"  {'last 2 min':<{self.sparkline_cells - 2}}" if self.sparkline_cells else ""
        return f" now{'/s':>{_RATE}}{spark}"

    def row(self, view: View, state: State, most: int, marked: bool) -> Line:
        """Return the line of a state."""
        colours, count, facts = self.colours, view.counts.get(state, 0), FACTS[state]
        colour = phase_style(facts.phase, colours) if count else colours.dim
        change = view.count_rates.get(state)
        moving = change is not None and abs(change) >= 0.05
        side = f"{facts.side:<{self.side_cells}}" if self.side_cells else ""
        return (
            (" ▸ " if marked else "   ", colours.strong),
            (f"{state.name:<{_NAME}} ", colour),
            (side, colours.dim),
            (units.bar(count / most if most else 0, self.bar_cells), colour),
            (f"{units.count(count, self.exact):>{_COUNT}}", colours.plain if count else colours.dim),
            (f"{units.rate(change, signed=True):>{_RATE}}", colours.plain if moving else colours.dim),
            (self._trend(view, state), colour),
        )

    def _trend(self, view: View, state: State) -> str:
        if not self.sparkline_cells:
            return ""
        return "  " + sparkline(view.state_trend.get(state, ()), TREND_S, self.sparkline_cells - 2)
