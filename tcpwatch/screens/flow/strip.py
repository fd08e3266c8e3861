"""The life of one flow as a strip over the whole width: its states over time, and under it when that was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tcpwatch.model.lifecycle.history import Moment, StatePeriod
from tcpwatch.screens.shared.moments import began_earlier, clock, duration_unknown, elapsed_text, is_exact, moment_clock
from tcpwatch.screens.shared.state_marks import (
    EDGE_EARLIER,
    EDGE_EXACT,
    EDGE_OPEN,
    EDGE_POLLED,
    STATE_FILLS,
    STATE_LETTERS,
    state_style,
)
from tcpwatch.widgets.lines import Line, Lines, Piece, cells_of
from tcpwatch.widgets.palette import Palette

_MARGIN = 3


def distribute_cells(durations: Sequence[float], width: int, least: int = 1) -> list[int]:
    """Cells for each duration, `width` in all: at least `least` each, where the width allows it, else fewer.

    Those whose fair share is below the least get the least; the others share what is left by their length. Thus a
    millisecond in an hour is seen, at the cost of what is long, and two that are long keep their proportion. What
    cells are left over by rounding go to the largest remainders.
    """
    if not durations:
        return []
    least = min(least, width // len(durations))
    lengths = [max(0.0, seconds) for seconds in durations]
    long = _longer(lengths, width, least)
    free = width - least * (len(lengths) - len(long))
    whole = sum(lengths[at] for at in long)
    shares = {at: free * lengths[at] / whole if whole > 0 else free / len(long) for at in long}
    cells = [int(shares.get(at, least)) for at in range(len(lengths))]
    for at in sorted(long, key=lambda at: cells[at] - shares[at])[: width - sum(cells)]:
        cells[at] += 1
    return cells


def _longer(lengths: Sequence[float], width: int, least: int) -> list[int]:
    """Those whose fair share of what the others leave is `least` or more."""
    long = list(range(len(lengths)))
    while True:
        free = width - least * (len(lengths) - len(long))
        whole = sum(lengths[at] for at in long)
        kept = [at for at in long if lengths[at] * free >= least * whole]
        if len(kept) == len(long) or not kept:
            return long
        long = kept


def strip_lines(stretches: Sequence[StatePeriod], now: float, width: int, colours: Palette) -> list[Line]:
    """The strip and its times; nothing where nothing is known."""
    room = width - 2 * _MARGIN
    if not stretches or room < 4:
        return []
    shown = stretches[-room:]
    # Two cells each, where there is room: one for the letter, one for how the beginning is known.
    cells = distribute_cells([one.duration_s(now) for one in shown], room, 2)
    pieces: list[Piece] = [(" " * _MARGIN, colours.plain)]
    for one, size in zip(shown, cells, strict=True):
        pieces += _stretch(one, size, one is stretches[0], colours)
    end = shown[-1].end
    pieces.append((_edge(end) if end else EDGE_OPEN, colours.dim))
    return [tuple(pieces), _times(stretches, now, width, colours)]


def _stretch(one: StatePeriod, cells: int, first: bool, colours: Palette) -> Iterator[Piece]:
    style = state_style(one.state, colours)
    if cells > 1:
        yield (EDGE_EARLIER if began_earlier(one) or duration_unknown(one, first) else _edge(one.begin), colours.dim)
    if cells:
        yield (STATE_LETTERS[one.state], style + colours.strong)
        yield (STATE_FILLS[one.state] * (cells - 2), style)


def _edge(moment: Moment) -> str:
    return EDGE_EXACT if is_exact(moment) and moment.slack_s == 0 else EDGE_POLLED


def _times(stretches: Sequence[StatePeriod], now: float, width: int, colours: Palette) -> Line:
    """When it begins and ends, as far as is known, and how long that is."""
    first, end = stretches[0], stretches[-1].end
    earlier = began_earlier(first) or duration_unknown(first, True)
    left = ("before " if earlier else "") + moment_clock(first.begin)
    middle = ("at least " if earlier else "") + elapsed_text(first.begin, end, now)
    right = moment_clock(end) if end else f"now {clock(now)}"
    free = width - 2 - _MARGIN  # as long as the strip
    if len(left) + len(middle) + len(right) + 4 > free:
        left = ""
    if len(middle) + len(right) + 2 > free:
        right = ""
    most = free - len(left) - len(middle) - len(right) - (2 if right else 0)
    gap = max(0, min((width - len(middle)) // 2 - _MARGIN - len(left), most), 2 if left else 0)
    line: Line = ((" " * _MARGIN + left + " " * gap, colours.dim), (middle, colours.plain))
    return (*line, (" " * (width - 2 - cells_of(line) - len(right)) + right, colours.dim))


class FlowStrip(Lines):
    """Stays when the facts below are scrolled; takes no room where nothing is known."""

    DEFAULT_CSS = "FlowStrip { height: 2; overflow: hidden; display: none; }"

    def __init__(self) -> None:
        super().__init__()
        self._stretches: Sequence[StatePeriod] = ()
        self._now = 0.0

    def show(self, stretches: Sequence[StatePeriod], now: float) -> None:
        """Draw these, `now` being the time of the last sample."""
        self._stretches, self._now = stretches, now
        if self.display != bool(stretches):
            self.display = bool(stretches)
        self.redraw()

    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        """As Lines asks."""
        return strip_lines(self._stretches, self._now, width, colours)
