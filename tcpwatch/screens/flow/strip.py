"""strip_lines: the states of one connection as a time line over the whole width, with times below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tcpwatch.model.lifecycle.history import Moment, StatePeriod
from tcpwatch.screens.shared import state_marks
from tcpwatch.screens.shared.moments import began_earlier, clock, duration_unknown, elapsed_text, is_exact, moment_clock
from tcpwatch.widgets.lines import Line, Piece, cells_of
from tcpwatch.widgets.palette import Palette

_MARGIN = 3


def distribute_cells(durations: Sequence[float], width: int, least: int = 1) -> list[int]:
    """Divide `width` cells among durations: at least `least` cells each, or fewer if the width is too small.

    Durations whose proportional share is below the least get the least; the others divide the rest in proportion. So a
    millisecond in an hour remains visible, and two long durations keep their proportion. Cells left over by rounding
    go to the largest remainders.
    """
    if not durations:
        return []
    least = min(least, width // len(durations))
    durations = [max(0.0, seconds) for seconds in durations]
    long = _long_durations(durations, width, least)
    free = width - least * (len(durations) - len(long))
    total = sum(durations[at] for at in long)
    shares = {at: free * durations[at] / total if total > 0 else free / len(long) for at in long}
    cells = [int(shares.get(at, least)) for at in range(len(durations))]
    for at in sorted(long, key=lambda at: cells[at] - shares[at])[: width - sum(cells)]:
        cells[at] += 1
    return cells


def _long_durations(durations: Sequence[float], width: int, least: int) -> list[int]:
    """Return the indices of durations whose share of the cells that the short ones leave is at least `least`."""
    long = list(range(len(durations)))
    while True:
        free = width - least * (len(durations) - len(long))
        total = sum(durations[at] for at in long)
        kept = [at for at in long if durations[at] * free >= least * total]
        if len(kept) == len(long) or not kept:
            return long
        long = kept


def strip_lines(periods: Sequence[StatePeriod], now: float, width: int, colours: Palette) -> list[Line]:
    """Return the strip and its times; no lines if no state is known or the width is too small."""
    room = width - 2 * _MARGIN
    if not periods or room < 4:
        return []
    shown = periods[-room:]
    # At least two cells each: one for the edge, which shows how exact the beginning is, and one for the letter.
    cells = distribute_cells([period.duration_s(now) for period in shown], room, 2)
    pieces: list[Piece] = [(" " * _MARGIN, colours.plain)]
    for period, size in zip(shown, cells, strict=True):
        pieces += _period_pieces(period, size, period is periods[0], colours)
    end = shown[-1].end
    pieces.append((_edge(end) if end else state_marks.EDGE_OPEN, colours.dim))
    return [tuple(pieces), _times(periods, now, width, colours)]


def _period_pieces(period: StatePeriod, cells: int, first: bool, colours: Palette) -> Iterator[Piece]:
    style = state_marks.state_style(period.state, colours)
    if cells > 1:
        earlier = began_earlier(period) or duration_unknown(period, first)
        yield (state_marks.EDGE_EARLIER if earlier else _edge(period.begin), colours.dim)
    if cells:
        yield (state_marks.STATE_LETTERS[period.state], style + colours.strong)
        yield (state_marks.STATE_FILLS[period.state] * (cells - 2), style)


def _edge(moment: Moment) -> str:
    return state_marks.EDGE_EXACT if is_exact(moment) and moment.slack_s == 0 else state_marks.EDGE_POLLED


def _times(periods: Sequence[StatePeriod], now: float, width: int, colours: Palette) -> Line:
    """Return the line with the beginning, the total duration and the end."""
    first, end = periods[0], periods[-1].end
    earlier = began_earlier(first) or duration_unknown(first, True)
    left = ("before " if earlier else "") + moment_clock(first.begin)
    middle = ("at least " if earlier else "") + elapsed_text(first.begin, end, now)
    right = moment_clock(end) if end else f"now {clock(now)}"
    free = width - 2 - _MARGIN  # width of the strip
    if len(left) + len(middle) + len(right) + 4 > free:
        left = ""
    if len(middle) + len(right) + 2 > free:
        right = ""
    max_gap = free - len(left) - len(middle) - len(right) - (2 if right else 0)
    gap = max(0, min((width - len(middle)) // 2 - _MARGIN - len(left), max_gap), 2 if left else 0)
    line: Line = ((" " * _MARGIN + left + " " * gap, colours.dim), (middle, colours.plain))
    return (*line, (" " * (width - 2 - cells_of(line) - len(right)) + right, colours.dim))
