"""The TIME_WAIT block: number and limit, client and server side, rates, and when the sockets end; and the charts.

The height of the block does not depend on its figures.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcpwatch import units
from tcpwatch.model.states import TIME_WAIT_S, State
from tcpwatch.model.trends import TREND_S
from tcpwatch.model.view import View
from tcpwatch.widgets.charts.area import area, area_lines
from tcpwatch.widgets.charts.meter import meter
from tcpwatch.widgets.lines import Line, Piece, fit, title_rule
from tcpwatch.widgets.palette import Palette

BLOCK_HEIGHT = 4
"""Lines of the block without the bars of the calendar."""
_INDENT = "   "
_FIGURE, _COUNT, _LABEL, _PEAK = 15, 9, 7, 7
_SIDES = (("client side", ": one port each"), ("server side", ": memory only"))


def time_wait_lines(view: View, width: int, bars: int, colours: Palette, exact: bool) -> list[Line]:
    """Return the block; `bars` is the height of the bars of its calendar."""
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
    note, style = f"{units.share(gauge.share)} of tcp_max_tw_buckets", colours.dim
    if overflow:
        note, style = f"▲ {units.rate(overflow)}/s without TIME_WAIT", colours.alarm
    note_cells = 28 if width >= 60 else 0
    length = max(0, width - len(_INDENT) - 1 - _FIGURE - 1 - note_cells - 1)
    return (
        (_INDENT, colours.plain),
        *meter(gauge.value, gauge.limit, length, _FIGURE, colours, exact, right=True),
        (" " + fit(note, note_cells), style),
    )


def _sides_line(counts: tuple[int, int], width: int, colours: Palette, exact: bool) -> Line:
    """Return the counts of both sides, each in half of the line."""
    cells = max(0, (width - len(_INDENT) - 1 - 3) // 2)
    pieces: list[Piece] = [(_INDENT, colours.plain)]
    for (side, cost), count in zip(_SIDES, counts, strict=True):
        label = side + cost if cells >= len(side + cost) + _COUNT else side
        style = colours.plain if count else colours.dim
        pieces += [
            (fit(label, max(0, cells - _COUNT)), style),
            (fit(units.count(count, exact), min(_COUNT, cells), right=True), style),
            ("   ", colours.plain),
        ]
    return tuple(pieces[:-1])


def chart_lines(view: View, width: int, height: int, colours: Palette) -> list[list[Line]]:
    """Return charts of the last two minutes of TIME_WAIT and CLOSE_WAIT."""
    return [
        area_lines(state.name, view.state_trend.get(state, ()), TREND_S, width, height, colours.teardown, colours)
        for state in (State.TIME_WAIT, State.CLOSE_WAIT)
    ]


# The calendar ------------------------------------------------------------------------------------


def _calendar(view: View, width: int, bars: int, colours: Palette, exact: bool) -> list[Line]:
    """Return bars of the sockets that end in each of the next 60 s, the value of the highest bar, and the axis."""
    slots = _slots(width - len(_INDENT) - _LABEL - 1 - 1 - _PEAK)
    if not slots:
        return [()] * (bars + 1)
    has_timers = view.sample.capabilities.timers
    ends = _summed(view.teardown.time_wait.ending_by_second, slots) if has_timers else [0] * slots
    drawn = area(ends, slots, slots, bars, max(ends))
    if not has_timers:
        drawn[-1] = fit(" unknown with this source", slots)
    labels = [""] * (bars - 1) + ["ends in"]
    peaks = [_peak(max(ends), slots, exact)] + [""] * (bars - 1)
    lines: list[Line] = [
        (
            (_INDENT + fit(label, _LABEL) + " ", colours.dim),
            (cells, colours.teardown if has_timers else colours.dim),
            (" " + peak, colours.dim),
        )
        for label, cells, peak in zip(labels, drawn, peaks, strict=True)
    ]
    return [*lines, ((" " * (len(_INDENT) + _LABEL + 1) + _axis(slots), colours.dim),)]


def _slots(room: int) -> int:
    """Return the number of bars that fit; each covers a whole number of seconds."""
    return next((slots for slots in (60, 30, 20, 12) if slots <= room), 0)


def _summed(ends: Sequence[int], slots: int) -> list[int]:
    step = TIME_WAIT_S // slots
    return [sum(ends[at : at + step]) for at in range(0, TIME_WAIT_S, step)]


def _peak(largest: int, slots: int, exact: bool) -> str:
    """Return the value of the highest bar, `39/s`; without its unit if that does not fit."""
    figure = units.count(largest, exact)
    rate = f"{figure}/s" if slots == TIME_WAIT_S else f"{figure}/{TIME_WAIT_S // slots} s"
    texts = (rate, figure, units.count(largest))
    return next(text for text in texts if len(text) <= _PEAK) if largest else ""


def _axis(slots: int) -> str:
    """Return `0 s       10 s`, each mark below its bar; the last mark is at the end of the axis."""
    step = 10 if slots >= 60 else 20
    marks = "".join(f"{second} s".ljust(step * slots // TIME_WAIT_S) for second in range(0, TIME_WAIT_S, step))
    return f"{marks}60 s"
