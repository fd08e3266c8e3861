"""A table of listeners with both queues, for the Overview where there is room."""

from __future__ import annotations

from tcpwatch import units
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_limits import Queue
from tcpwatch.screens.shared.meters import limit_style, usage_text
from tcpwatch.widgets.charts.bars import bar
from tcpwatch.widgets.lines import Line, fit
from tcpwatch.widgets.palette import Palette

MIN_WIDTH = 70
"""Below this width there is no room for the table."""
_INDENT = "   "
_FIGURE, _RATE = 13, 9


def listener_lines(
    listeners: tuple[Listener, ...], room: int, width: int, colours: Palette, exact: bool = False
) -> list[Line]:
    """A heading and at most `room` lines in all; says how many listeners are left out."""
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
    """Cells for the address, the process and each of the two bars."""
    name, process = (30, 28) if width >= 120 else (22, 0)
    free = width - len(_INDENT) - 1 - name - process - 3 - 2 * (_FIGURE + 1) - _RATE
    return name, process, max(0, free // 2)


def _row(listener: Listener, widths: tuple[int, int, int], colours: Palette, exact: bool) -> Line:
    name, process, length = widths
    first = listener.owner.processes[0] if listener.owner else None
    owner = f"{first.name}[{first.pid}]" if first else ""
    drops = listener.drops_per_s
    return (
        (_INDENT + fit(listener.endpoint, name) + " ", colours.plain),
        (fit(owner, process) + " ", colours.plain),
        *_queue(listener.accept_queue, length, colours, exact),
        (" ", colours.plain),
        *_queue(listener.syn_queue, length, colours, exact),
        (fit(units.rate(drops), _RATE, right=True), colours.alarm if drops else colours.dim),
    )


def _queue(queue: Queue, length: int, colours: Palette, exact: bool) -> Line:
    style = limit_style(queue.depth, queue.limit, colours)
    figure = usage_text(queue.depth, queue.limit, exact)
    return (
        (bar(queue.share, length) + " ", style),
        (fit(figure, _FIGURE), style if queue.depth else colours.dim),
    )
