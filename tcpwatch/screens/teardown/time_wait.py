"""The block of TIME_WAIT: how many there are, whose they are, what enters and leaves, and when they end; charts.

It has the same height whatever the figures are.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcpwatch import units
from tcpwatch.model.analyses.teardown import TIME_WAIT_S
from tcpwatch.model.states import State
from tcpwatch.model.view import View
from tcpwatch.widgets.charts.area import area, area_lines
from tcpwatch.widgets.charts.meter import meter
from tcpwatch.widgets.lines import Line, Piece, fit, title_rule
from tcpwatch.widgets.palette import Palette

BLOCK_HEIGHT = 4
"""Lines of the block without the calendar's bars."""
_INDENT = "   "
_FIGURE, _COUNT, _LABEL, _PEAK = 15, 9, 7, 7
_TREND_S = 120
_SIDES = (("client's side", ": a port each"), ("server's side", ": memory only"))


def time_wait_lines(view: View, width: int, bars: int, colours: Palette, exact: bool) -> list[Line]:
    """The block, with a calendar of so many lines."""
    waits = view.teardown.time_wait
    head = f" entered {units.rate(waits.entered_per_s)}/s · left {units.rate(waits.left_per_s)}/s"
    return [
        title_rule("TIME_WAIT", width, colours, head if len(head) + 16 <= width else ""),
        _meter_line(view, width, colours, exact),
        _sides_line((waits.client, waits.server), width, colours, exact),
        *_calendar(view, width, bars, colours, exact),
    ]


def _meter_line(view: View, width: int, colours: Palette, exact: bool) -> Line:
    gauge = view.time_wait
    overflow = view.rates.get("TCPTimeWaitOverflow")
    said, said_style = f"{units.share(gauge.share)} of tcp_max_tw_buckets", colours.dim
    if overflow:
        said, said_style = f"▲ {units.rate(overflow)}/s closed without", colours.alarm
    words = 28 if width >= 60 else 0
    length = max(0, width - len(_INDENT) - 1 - _FIGURE - 1 - words - 1)
    return (
        (_INDENT, colours.plain),
        *meter(gauge.value, gauge.limit, length, _FIGURE, colours, exact, right=True),
        (" " + fit(said, words), said_style),
    )


def _sides_line(counts: tuple[int, int], width: int, colours: Palette, exact: bool) -> Line:
    """Both sides, in halves of the line."""
    cells = max(0, (width - len(_INDENT) - 1 - 3) // 2)
    pieces: list[Piece] = [(_INDENT, colours.plain)]
    for (side, means), count in zip(_SIDES, counts, strict=True):
        label = side + means if cells >= len(side + means) + _COUNT else side
        style = colours.plain if count else colours.dim
        pieces += [
            (fit(label, max(0, cells - _COUNT)), style),
            (fit(units.count(count, exact), min(_COUNT, cells), right=True), style),
            ("   ", colours.plain),
        ]
    return tuple(pieces[:-1])


def chart_lines(view: View, width: int, height: int, colours: Palette) -> list[list[Line]]:
    """The last two minutes of what may pile up."""
    slots = max(1, round(_TREND_S / view.state_trend.slot_s))
    return [
        area_lines(state.name, view.state_trend.counts.get(state, ()), slots, width, height, colours.teardown, colours)
        for state in (State.TIME_WAIT, State.CLOSE_WAIT)
    ]


# The calendar ------------------------------------------------------------------------------------


def _calendar(view: View, width: int, bars: int, colours: Palette, exact: bool) -> list[Line]:
    """What ends in each of the next 60 s, and the axis; beside it what the highest bar stands for."""
    slots = _slots(width - len(_INDENT) - _LABEL - 1 - 1 - _PEAK)
    if not slots:
        return [()] * (bars + 1)
    told = view.sample.capabilities.timers
    ends = _summed(view.teardown.time_wait.ending_by_second, slots) if told else [0] * slots
    drawn = area(ends, slots, slots, bars, max(ends))
    if not told:
        drawn[-1] = fit(" when they end is not told by this source", slots)
    labels = [""] * (bars - 1) + ["ends in"]
    peaks = [_peak(max(ends), slots, exact)] + [""] * (bars - 1)
    lines: list[Line] = [
        (
            (_INDENT + fit(label, _LABEL) + " ", colours.dim),
            (cells, colours.teardown if told else colours.dim),
            (" " + peak, colours.dim),
        )
        for label, cells, peak in zip(labels, drawn, peaks, strict=True)
    ]
    return [*lines, ((" " * (len(_INDENT) + _LABEL + 1) + _axis(slots), colours.dim),)]


def _slots(room: int) -> int:
    """Bars that fit: each stands for a whole number of seconds."""
    return next((slots for slots in (60, 30, 20, 12) if slots <= room), 0)


def _summed(calendar: Sequence[int], slots: int) -> list[int]:
    each = TIME_WAIT_S // slots
    return [sum(calendar[at : at + each]) for at in range(0, TIME_WAIT_S, each)]


def _peak(most: int, slots: int, exact: bool) -> str:
    """What the highest bar stands for: `39/s`; without the unit where there is no room for it."""
    figure = units.count(most, exact)
    said = f"{figure}/s" if slots == TIME_WAIT_S else f"{figure}/{TIME_WAIT_S // slots} s"
    return "" if not most else said if len(said) <= _PEAK else figure if len(figure) <= _PEAK else units.count(most)


def _axis(slots: int) -> str:
    """`0 s       10 s`, each mark below its bar; the last one ends the axis."""
    step = 10 if slots >= 60 else 20
    marks = "".join(f"{second} s".ljust(step * slots // TIME_WAIT_S) for second in range(0, TIME_WAIT_S, step))
    return f"{marks}60 s"
