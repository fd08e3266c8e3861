"""Meters: what is used of each limit of the host."""

from __future__ import annotations

from dataclasses import dataclass

from rich.style import Style

from tcpwatch import units
from tcpwatch.model.listeners.queue_limits import Queue
from tcpwatch.model.view import Gauge, View
from tcpwatch.widgets.charts.bars import bar
from tcpwatch.widgets.lines import Line, Piece, fit
from tcpwatch.widgets.palette import Palette

WARNING_SHARE = 0.8
"""From this share of a limit on a meter warns."""
_FIGURE = 15
_INDENT = "   "


@dataclass(frozen=True, slots=True)
class Meter:
    """One figure against its limit."""

    label: str
    gauge: Gauge

    def figure(self, exact: bool) -> str:
        """As figure_of."""
        return usage_text(self.gauge.value, self.gauge.limit, exact)


def meters_of(view: View) -> list[Meter]:
    """The limits that a host runs into, the queues first."""
    accept, syn = view.fullest_accept_queue, view.fullest_syn_queue
    return [
        Meter(
            f"accept :{accept.local_port}" if accept else "accept queue", _of(accept.accept_queue if accept else None)
        ),
        Meter(f"SYN :{syn.local_port}" if syn else "SYN queue", _of(syn.syn_queue if syn else None)),
        Meter("TIME_WAIT", view.time_wait),
        Meter("ports", view.port_usage),
        Meter("orphans", view.orphans),
        Meter("memory pages", view.memory_pages),
    ]


def _of(queue: Queue | None) -> Gauge:
    return Gauge(queue.depth, queue.limit) if queue else Gauge(None, None)


def usage_text(value: int | None, limit: int | None, exact: bool) -> str:
    """`513/512`, `–` for what is not known."""
    if value is None and limit is None:
        return units.UNKNOWN
    return f"{units.count(value, exact)}/{units.count(limit, exact)}"


def limit_style(value: int | None, limit: int | None, colours: Palette) -> Style:
    """Red for a limit that is passed, amber near it; dim where one is not known."""
    if value is None or limit is None:
        return colours.dim
    if value > limit:
        return colours.alarm
    return colours.warning if value >= WARNING_SHARE * max(limit, 1) else colours.plain


def meter_lines(meters: list[Meter], width: int, colours: Palette, exact: bool = False) -> list[Line]:
    """The meters side by side: two in a line, three where it is wide."""
    columns = 3 if width >= 120 else 2 if width >= 72 else 1
    cells = (width - len(_INDENT) - 1) // columns
    lines: list[Line] = []
    for start in range(0, len(meters), columns):
        pieces: list[Piece] = [(_INDENT, colours.plain)]
        for meter in meters[start : start + columns]:
            pieces += _meter(meter, cells, colours, exact)
        lines.append(tuple(pieces))
    return lines


def _meter(meter: Meter, cells: int, colours: Palette, exact: bool) -> Line:
    label = max(14, min(24, cells // 3))
    figure = meter.figure(exact)
    length = cells - label - 2 - _FIGURE - 1
    value, limit = meter.gauge.value, meter.gauge.limit
    style = limit_style(value, limit, colours)
    return (
        (fit(meter.label, label) + " ", colours.dim if not value else colours.plain),
        (bar(meter.gauge.share, length), style),
        (" " + fit(figure, _FIGURE) + " ", style if value else colours.dim),
    )
