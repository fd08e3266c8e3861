"""Meters of the host's limits."""

from __future__ import annotations

from tcpwatch.model.listeners.queue_limits import Queue
from tcpwatch.model.view import Gauge, View
from tcpwatch.widgets.charts.meter import meter
from tcpwatch.widgets.lines import Line, Piece, fit
from tcpwatch.widgets.palette import Palette

_FIGURE = 15
_INDENT = "   "


Meter = tuple[str, Gauge]
"""A label, and a figure with its limit."""


def meters_of(view: View) -> list[Meter]:
    """Return the limits of a host, the queues first."""
    listeners = view.busy_listeners or view.listeners[:1]
    accept = max(listeners, key=lambda listener: listener.accept_queue.share, default=None)
    syn = max(listeners, key=lambda listener: listener.syn_queue.share, default=None)
    return [
        (f"accept :{accept.local_port}" if accept else "accept queue", _of(accept.accept_queue if accept else None)),
        (f"SYN :{syn.local_port}" if syn else "SYN queue", _of(syn.syn_queue if syn else None)),
        ("TIME_WAIT", view.time_wait),
        ("ports", view.port_usage),
        ("orphans", view.orphans),
        ("memory pages", view.memory_pages),
    ]


def _of(queue: Queue | None) -> Gauge:
    return Gauge(queue.depth, queue.limit) if queue else Gauge(None, None)


def meter_lines(meters: list[Meter], width: int, colours: Palette, exact: bool = False) -> list[Line]:
    """Return the meters side by side: up to three in a line."""
    columns = 3 if width >= 120 else 2 if width >= 72 else 1
    cells = (width - len(_INDENT) - 1) // columns
    lines: list[Line] = []
    for start in range(0, len(meters), columns):
        pieces: list[Piece] = [(_INDENT, colours.plain)]
        for label, gauge in meters[start : start + columns]:
            pieces += _meter(label, gauge, cells, colours, exact)
        lines.append(tuple(pieces))
    return lines


def _meter(label: str, gauge: Gauge, cells: int, colours: Palette, exact: bool) -> Line:
    label_cells = max(14, min(24, cells // 3))
    return (
        (fit(label, label_cells) + " ", colours.plain if gauge.value else colours.dim),
        *meter(gauge.value, gauge.limit, cells - label_cells - 2 - _FIGURE - 1, _FIGURE, colours, exact),
        (" ", colours.plain),
    )
