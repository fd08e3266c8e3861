"""The columns of the table of listeners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.cells import cell_len

from tcpwatch import units
from tcpwatch.model.columns.socket_values import show_endpoint
from tcpwatch.model.listeners.queue_limits import LimitSource, Queue
from tcpwatch.model.trends import TREND_S
from tcpwatch.screens.listeners.rows import ListenerRow
from tcpwatch.widgets.charts.bars import sparkline
from tcpwatch.widgets.charts.meter import limit_style, meter, usage_text
from tcpwatch.widgets.lines import Line, Piece
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.table.layout import ESSENTIAL
from tcpwatch.widgets.table.record_columns import CellContext, RecordColumn, without_commas

_FIGURE = 11
"""Cells for `1,024/1,024`, so that the bars beside the figures are aligned."""
_NO_BAR_BELOW = 3


def _address(row: ListenerRow, look: CellContext) -> Line:
    fullest = row.fullest
    if row.is_member:
        return ((f"  inode {fullest.inode}" if fullest.inode else f"  cookie {fullest.cookie}", look.colours.plain),)
    value = fullest.local_address, fullest.local_port, fullest.key.device
    group = f" ×{len(row.members)}" if row.is_group else ""
    shown = show_endpoint(value, look.exact) + group
    if cell_len(shown) > look.width:
        shown = min(shown, show_endpoint(value, True).replace("0.0.0.0:", "*:") + group, key=len)
    return ((shown, look.colours.plain),)


def _process(row: ListenerRow, look: CellContext) -> Line:
    named = {process for member in row.members if member.owner for process in member.owner.shown}
    others = f" +{len(named) - 1}" if len(named) > 1 else ""
    fullest = row.fullest.owner
    return ((f"{fullest.processes[0].label}{others}" if fullest else "?", look.colours.plain),)


def _queue(queue: Queue, fullest: Queue, look: CellContext) -> Line:
    """Return `███     513/512`: the figure of `queue`, the bar and the colour of `fullest`; a bar only if it fits."""
    figure = without_commas(usage_text(queue.depth, queue.limit, look.exact), look.width)
    cells = max(_FIGURE, cell_len(figure))
    length = look.width - cells - 1
    bar, _ = meter(fullest.depth, fullest.limit, length, 0, look.colours, look.exact)
    style = bar[1] if queue.depth else look.colours.dim
    return ((figure, style),) if length < _NO_BAR_BELOW else (bar, (" " + figure.rjust(cells), style))


def _accept(row: ListenerRow, look: CellContext) -> Line:
    return _queue(row.accept_queue, row.fullest.accept_queue, look)


def _peak(row: ListenerRow, look: CellContext) -> Line:
    if not row.is_group:
        return _depth(row.peak, look)
    if row.peak is None:
        return ()
    depth, limit = row.peak.depth, row.peak.limit
    figure = usage_text(depth, limit, look.exact)
    if cell_len(figure) > look.width:
        return _depth(row.peak, look)
    return ((figure, limit_style(depth, limit, look.colours) if depth else look.colours.dim),)


def _syn_peak(row: ListenerRow, look: CellContext) -> Line:
    return () if row.is_member else _depth(row.syn_peak, look)


def _depth(queue: Queue | None, look: CellContext) -> Line:
    if queue is None:
        return ()
    figure = without_commas(units.count(queue.depth, look.exact), look.width)
    return ((figure, limit_style(queue.depth, queue.limit, look.colours)),)


def _syn(row: ListenerRow, look: CellContext) -> Line:
    if row.is_member:
        return ()
    return _queue(row.fullest.syn_queue, row.fullest.syn_queue, look)


def _drops(row: ListenerRow, look: CellContext) -> Line:
    return ((units.rate(row.drops_per_s), look.colours.alarm if _moves(row.drops_per_s) else look.colours.dim),)


def _accepted(row: ListenerRow, look: CellContext) -> Line:
    per_s = row.fullest.accepted_per_s
    if row.is_member:
        return ()
    return ((row.accepted_sign + units.rate(per_s), look.colours.plain if _moves(per_s) else look.colours.dim),)


def _moves(per_s: float | None) -> bool:
    return per_s is not None and per_s >= 0.05


def _oldest(row: ListenerRow, look: CellContext) -> Line:
    fullest = row.fullest
    if row.is_member or (row.accept_queue_known and fullest.waiting_s is None):
        return ()
    text = ("≥" if fullest.waiting_is_minimum else "") + units.duration(fullest.waiting_s)
    return ((text, look.colours.plain if row.accept_queue_known else look.colours.dim),)


def _closed(row: ListenerRow, look: CellContext) -> Line:
    closed = row.fullest.gave_up if row.accept_queue_known else None
    return () if row.is_member else _count(closed, look)


def _repeated(row: ListenerRow, look: CellContext) -> Line:
    return () if row.is_member else _count(row.fullest.retransmitted, look)


def _count(number: int | None, look: CellContext) -> Line:
    return ((units.count(number, look.exact), look.colours.plain if number else look.colours.dim),)


def depth_sparkline(values: Sequence[float], width: int, colours: Palette) -> Piece:
    """Return the last two minutes of a queue."""
    style = colours.handshake if any(value > 0 for value in values) else colours.dim
    return sparkline(values, TREND_S, width, from_zero=True), style


def _history(values: Sequence[float], look: CellContext) -> Line:
    return (depth_sparkline(values, look.width, look.colours),)


_CAPS = {LimitSource.SOMAXCONN: "somaxconn"}


def limit_source_text(cap: LimitSource) -> str:
    """Return a short text for who sets the limit."""
    return _CAPS.get(cap, cap.value)


def _cap(row: ListenerRow, look: CellContext) -> Line:
    cap, syn_cap = row.fullest.accept_limit_source, row.fullest.syn_limit_source
    text = limit_source_text(cap) + ("" if syn_cap is cap else f", SYN {limit_source_text(syn_cap)}")
    return ((text, look.colours.dim if cap is LimitSource.UNKNOWN else look.colours.plain),)


def _share(queue: Queue | None) -> float | None:
    return None if queue is None or queue.depth is None else queue.share


def _of_address(row: ListenerRow) -> Any:
    key = row.fullest.key
    return key.port, key.high, key.low, key.interface


ListenerColumns = tuple[RecordColumn[ListenerRow], ...]

ACCEPT_QUEUE: RecordColumn[ListenerRow] = RecordColumn(
    "accept", "Accept-Q", "Connections waiting for accept(), and the limit; one more than the limit fits in. For a "
    "group the sum, with the bar and the colour of its fullest socket",
    _accept, lambda row: _share(row.fullest.accept_queue), 9, 7, 1, True)  # fmt: skip
_OWNER: ListenerColumns = (
    RecordColumn("address", "Listener", "Address and port; * is any. ×4: four sockets share them (SO_REUSEPORT); "
                 "+ and -: o shows them one by one, and hides them again", _address, _of_address, 17, 7, 0),
    RecordColumn("process", "Process", "Process that accepts, with pid; +n: n more that do, or may; ?: not visible",
                 _process, lambda row: row.fullest.process or None, 12, 6, 2),
)  # fmt: skip
_QUEUES: ListenerColumns = (
    RecordColumn("peak", "Peak", "The deepest accept queue since the last poll if it was deeper than now; for a "
                 "group that of its fullest socket, which the sum may hide",
                 _peak, lambda row: _share(row.peak), 7, 4, 5, True),
    RecordColumn("syn", "SYN-Q", "Half-open connections, and the limit; a group has one figure for all its sockets",
                 _syn, lambda row: _share(row.fullest.syn_queue), 9, 7, 3, True),
    RecordColumn("syn_peak", "peak 10 s", "The deepest SYN queue of the last 10 s, where it was deeper than now: a "
                 "flooded one loses half of its members at once every 7 s or so",
                 _syn_peak, lambda row: _share(row.syn_peak), 9, 0, 10, True),
)  # fmt: skip
_TRAFFIC: ListenerColumns = (
    RecordColumn("accepted", "acc/s", "Connections accepted per second. Those that opened and closed between two polls "
                 "are not counted; ≥: a minimum, as more were accepted", _accepted,
                 lambda row: row.fullest.accepted_per_s, 6, 2, 4, True),
    RecordColumn("drops", "drops/s", "Segments dropped by the listener per second, such as SYNs and last ACKs",
                 _drops, lambda row: row.drops_per_s, 7, 0, 4, True),
    RecordColumn("oldest", "Oldest", "Waiting time of the first connection in the accept queue; ≥: it is older "
                 "than tcpwatch", _oldest, lambda row: row.fullest.waiting_s, 10, 0, 6, True),
    RecordColumn("gave_up", "Closed", "Connections in the accept queue that the client has closed or reset",
                 _closed, lambda row: row.fullest.gave_up, 7, 0, 7, True),
    RecordColumn("repeated", "Retries", "Half-open connections whose SYN+ACK was retransmitted", _repeated,
                 lambda row: row.fullest.retransmitted, 7, 0, 11, True),
    RecordColumn("cap", "Capped by", "Who sets the limit: net.core.somaxconn or the application's argument of "
                 "listen(); both need a new listen()",
                 _cap, lambda row: row.fullest.accept_limit_source.value, 9, 24, 8),
)  # fmt: skip
_HISTORY: ListenerColumns = (
    RecordColumn("accept_history", "Accept-Q 2 min", "The deepest accept queue of each second",
                 lambda row, look: _history(row.accept_history, look), None, 14, 15, 9),
    RecordColumn("syn_history", "SYN-Q 2 min", "The SYN queue of each second",
                 lambda row, look: () if row.is_member else _history(row.syn_history, look), None, 12, 18, 9),
)  # fmt: skip

ALL_COLUMNS: ListenerColumns = (*_OWNER, ACCEPT_QUEUE, *_QUEUES, *_TRAFFIC, *_HISTORY)
"""All columns at their narrowest; on a small screen the essential ones widen before others get a place."""

WIDE_FROM = 150
"""Width from which on all important columns fit before any widens."""
_ROOMIER = {"address": (20, 17), "process": (16, 10), "accept": (16, 4), "syn": (16, 4)}


def _wide(column: RecordColumn[ListenerRow]) -> RecordColumn[ListenerRow]:
    width, grow = _ROOMIER.get(column.key, (column.width, column.grow))
    priority = column.priority if column.priority > 9 else min(column.priority, ESSENTIAL)
    return replace(column, width=width, grow=grow, priority=priority)


_WIDE = tuple(map(_wide, ALL_COLUMNS))


def columns_for(width: int) -> ListenerColumns:
    """Return the columns for a screen of this width."""
    return _WIDE if width >= WIDE_FROM else ALL_COLUMNS
