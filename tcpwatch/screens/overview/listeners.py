"""The table of listeners on the Overview."""

from __future__ import annotations

from collections.abc import Sequence

from tcpwatch import units
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_limits import Queue
from tcpwatch.widgets.charts.meter import meter
from tcpwatch.widgets.lines import Line, fit
from tcpwatch.widgets.palette import Palette

MIN_WIDTH = 70
"""Below this width there is no room for the table."""
_INDENT = "   "
_FIGURE, _RATE = 13, 9


def listener_lines(
    listeners: Sequence[Listener], room: int, width: int, colours: Palette, exact: bool = False
) -> list[Line]:
    """Return a heading and rows, at most `room` lines; the last one counts the listeners left out."""
    name, process, length = _widths(width)
    half = length + 1 + _FIGURE
    head = (
        fit("listener", name) + " " + fit("process", process) + " "
        + fit("accept queue", half) + " " + fit("SYN queue", half) + fit("drops/s", _RATE, right=True)
    )  # fmt: skip
    lines: list[Line] = [((_INDENT + head, colours.dim),)]
    fits = room - 1 if len(listeners) <= room - 1 else room - 2
    for listener in listeners[:fits]:
        lines.append(_row(listener, (name, process, length), colours, exact))
    left_out = len(listeners) - fits
    if left_out > 0:
        lines.append(((f"{_INDENT}and {left_out:,} more", colours.dim),))
    return lines


def _widths(width: int) -> tuple[int, int, int]:
    """Return the cells for the address, the process and each of the two bars."""
    name, process = (30, 28) if width >= 120 else (22, 0)
    free = width - len(_INDENT) - 1 - name - process - 3 - 2 * (_FIGURE + 1) - _RATE
    return name, process, max(0, free // 2)


def _row(listener: Listener, widths: tuple[int, int, int], colours: Palette, exact: bool) -> Line:
    name, process, length = widths
    drops = listener.drops_per_s

    def queue_meter(queue: Queue) -> Line:
        return meter(queue.depth, queue.limit, length, _FIGURE, colours, exact)

    return (
        (_INDENT + fit(listener.endpoint, name) + " ", colours.plain),
        (fit(listener.process, process) + " ", colours.plain),
        *queue_meter(listener.accept_queue),
        (" ", colours.plain),
        *queue_meter(listener.syn_queue),
        (fit(units.rate(drops), _RATE, right=True), colours.alarm if drops else colours.dim),
    )
