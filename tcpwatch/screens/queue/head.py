"""The two queues of one listener as meters, for the screen that looks into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tcpwatch import units
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_limits import LimitSource, Queue
from tcpwatch.screens.listeners.columns import depth_sparkline, limit_source_text
from tcpwatch.screens.listeners.rows import ListenerRow
from tcpwatch.widgets.charts.meter import limit_style, meter, usage_text
from tcpwatch.widgets.lines import Line, fit
from tcpwatch.widgets.palette import Palette

_INDENT = " "
_LABEL, _FIGURE, _PEAK, _CAP, _SMALL = 18, 11, 11, 13, 8
_TREND_SHARE = 0.55
"""Share of the sparkline in the cells of bar and sparkline."""


def head_lines(row: ListenerRow, width: int, room: int, colours: Palette, exact: bool) -> list[Line]:
    """Return a line for each queue and, for a group, as many of its sockets as fit, the fullest first."""
    form = _Form(width, colours, exact)
    lines = [
        form.meter(
            "accept queue",
            row.accept_queue,
            None if row.is_group else row.peak,
            row.fullest.accept_limit_source,
            row.accept_history,
        ),
        form.meter("SYN queue", row.fullest.syn_queue, row.syn_peak, row.fullest.syn_limit_source, row.syn_history),
    ]
    return lines + form.members(row, max(1, room - len(lines))) if row.is_group else lines


@dataclass(frozen=True, slots=True)
class _Form:
    """Layout of a line in `width` cells."""

    width: int
    colours: Palette
    exact: bool

    def meter(self, label: str, queue: Queue, peak: Queue | None, cap: LimitSource, history: Sequence[float]) -> Line:
        """Return depth and limit, the peak if it was deeper, who sets the limit, the last two minutes."""
        colours = self.colours
        figure = usage_text(queue.depth, queue.limit, self.exact)
        cells = max(_FIGURE, len(figure))
        free = max(0, self.width - len(_INDENT) - _LABEL - 1 - cells - 2 - _PEAK - _CAP - 1)
        trend = round(free * _TREND_SHARE)
        deepest, limit = (peak.depth, peak.limit) if peak else (None, None)
        return (
            (_INDENT + fit(label, _LABEL), colours.plain),
            *meter(queue.depth, queue.limit, free - trend, cells, colours, self.exact, right=True),
            ("  ", colours.plain),
            (
                fit(f"peak {units.count(deepest, self.exact)}" if peak else "", _PEAK),
                limit_style(deepest, limit, colours),
            ),
            (fit(f"by {limit_source_text(cap)}", _CAP), colours.dim),
            depth_sparkline(history, trend, colours),
        )

    def members(self, row: ListenerRow, room: int) -> list[Line]:
        """Return the accept queues of a group's sockets."""
        fits = len(row.members) if len(row.members) <= room else max(1, room - 1)
        labels = ["  fullest of them", *[""] * fits]
        lines = [self._member(member, label) for member, label in zip(row.members[:fits], labels, strict=False)]
        left_out = len(row.members) - fits
        if left_out and room > 1:
            lines.append(((f"{_INDENT}{'':{_LABEL}}and {left_out:,} less full", self.colours.dim),))
        return lines

    def _member(self, member: Listener, label: str) -> Line:
        colours, queue, peak = self.colours, member.accept_queue, member.accept_peak or 0
        cells = max(_FIGURE, len(usage_text(queue.depth, queue.limit, self.exact)))
        return (
            (_INDENT + fit(label, _LABEL), colours.dim),
            *meter(queue.depth, queue.limit, _SMALL, cells, colours, self.exact, right=True),
            (f"  {member.process or '?'} · inode {member.inode or units.UNKNOWN}", colours.plain),
            (f" · peak {units.count(peak, self.exact)}" if peak > (queue.depth or 0) else "", colours.plain),
        )
