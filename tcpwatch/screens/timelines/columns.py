"""The columns left of the axis, and which of them fit a given width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from rich.cells import cell_len

from tcpwatch import units
from tcpwatch.model.columns.socket_values import show_endpoint
from tcpwatch.model.query.timeline import Timeline
from tcpwatch.model.states import Role
from tcpwatch.screens.shared.moments import is_exact, moment_clock
from tcpwatch.screens.shared.state_marks import STATE_LETTERS, state_style
from tcpwatch.screens.timelines.cells import ENDINGS, ending_style
from tcpwatch.widgets.lines import Line
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.table.record_columns import CellContext, RecordColumn

TimelineColumn = RecordColumn[Timeline]
AXIS = "axis"
_ARROWS = {Role.CLIENT: "→", Role.SERVER: "←"}


def endpoints_text(row: Timeline, exact_names: bool, host: bool = False) -> str:
    """Return `:443 ← 10.0.0.9:51234`; the arrow points from client to server, `host` adds the local address."""
    arrow = _ARROWS.get(row.role, "·")
    local = show_endpoint(row.local, exact_names) if host else f":{_port(row.local[1], exact_names)}"
    return f"{local} {arrow} {show_endpoint(row.remote, exact_names)}"


def _port(port: int, exact_names: bool) -> str:
    if port == 0:  # connect() found none
        return "*"
    return str(port) if exact_names else units.service(port)


def _flow(row: Timeline, look: CellContext) -> Line:
    shown = endpoints_text(row, look.exact, host=look.width >= _WIDE_FLOW)
    if cell_len(shown) > look.width:  # a number may fit where a name does not
        shown = min(shown, endpoints_text(row, True), key=len)
    return ((shown, look.colours.plain if row.live else look.colours.dim),)


def status(row: Timeline, colours: Palette) -> Line:
    """Return the state of a live flow, or how a closed one ended."""
    if row.live and row.state is not None:
        return ((row.state.name, state_style(row.state, colours)),)
    if row.ending is None:
        return (("closed", colours.dim),)
    return ((row.ending.short, ending_style(row.ending, colours)),)


def _sign(row: Timeline, look: CellContext) -> Line:
    if row.live and row.state is not None:
        return ((STATE_LETTERS[row.state], state_style(row.state, look.colours) + look.colours.strong),)
    return ((ENDINGS[row.ending], ending_style(row.ending, look.colours)),) if row.ending is not None else ()


def length_text(row: Timeline) -> str:
    """Return the lifetime so far; `>` where the flow existed before it was first seen, `<` where it is a maximum."""
    slack = row.begin.slack_s
    if row.began_earlier or slack != slack:
        return f">{units.duration(row.length_s)}" if row.length_s else units.UNKNOWN
    if slack > row.length_s:
        return f"<{units.duration(row.length_s + slack)}"
    exact = is_exact(row.begin) and row.end is not None and is_exact(row.end)
    return units.precise_duration(row.length_s) if exact and row.length_s < 10 else units.duration(row.length_s)


def _begin(row: Timeline, look: CellContext) -> Line:
    begin = moment_clock(row.begin)
    return ((f"<{begin}" if row.began_earlier else begin, look.colours.plain),)


def _end(row: Timeline, look: CellContext) -> Line:
    return ((moment_clock(row.end), look.colours.plain),) if row.end is not None else ()


def _bytes(row: Timeline, look: CellContext) -> Line:
    known = row.received_bytes is not None and row.sent_bytes is not None
    total = (row.received_bytes or 0) + (row.sent_bytes or 0) if known else None
    return ((units.size(total, look.exact), look.colours.plain),)


SIGN: TimelineColumn = RecordColumn(
    "sign", "", "The letter of the state, or the mark of the ending", _sign, None, 1, priority=0
)
STATUS: TimelineColumn = RecordColumn(
    "state", "State", "The state, or how the flow ended", lambda row, look: status(row, look.colours), None, 14
)
FLOW: TimelineColumn = RecordColumn(
    "flow", "Flow", "Local port and remote endpoint; the arrow points from client to server", _flow, None, 24
)
PROCESS: TimelineColumn = RecordColumn(
    "process", "Process", "Process that holds or held the socket",
    lambda row, look: ((row.process, look.colours.plain),), None, 15,
)  # fmt: skip
BEGIN: TimelineColumn = RecordColumn("begin", "Begin", "When it began; <: or earlier", _begin, None, 13)
END: TimelineColumn = RecordColumn("end", "End", "When the full socket ended; TIME_WAIT follows", _end, None, 12)
BYTES: TimelineColumn = RecordColumn(
    "bytes", "Bytes", "Bytes of data received, and sent and acknowledged", _bytes, None, 7,
    right=True,
)  # fmt: skip
LENGTH: TimelineColumn = RecordColumn(
    "length", "Length", "From the beginning to the end of the full socket, or until now; >: at least",
    lambda row, look: ((length_text(row), look.colours.plain),), None, 10, right=True,
)  # fmt: skip
ENDING: TimelineColumn = RecordColumn("ending", "Ending", "How it ended, failures first", _sign, None, 1)

SORT_COLUMNS: tuple[TimelineColumn, ...] = (BEGIN, LENGTH, END, STATUS, ENDING)
"""Columns to sort by, shown or not; the keys are those of TimelineSort."""
HELP_COLUMNS: tuple[TimelineColumn, ...] = (STATUS, FLOW, PROCESS, BEGIN, END, BYTES, LENGTH)

_WIDE_FLOW = 44
_LEAST: tuple[tuple[TimelineColumn, int, int], ...] = (
    (SIGN, 0, 1), (STATUS, 104, 14), (FLOW, 0, 16), (FLOW, 64, 26), (FLOW, 112, 28), (FLOW, 190, 46),
    (PROCESS, 126, 15), (BEGIN, 144, 13), (END, 200, 12), (BYTES, 154, 7), (LENGTH, 54, 10),
)  # fmt: skip
"""Column, the narrowest table (in cells) that has it, and its width there."""


def columns_for(width: int, draw_axis: Callable[[Timeline, CellContext], Line]) -> Sequence[TimelineColumn]:
    """Return the columns of a table `width` cells wide; the axis is the last and takes the rest."""
    widths = {column.key: (column, cells) for column, least, cells in _LEAST if width >= least}
    shown = [_sized(column, cells) for column, cells in widths.values()]
    left = width - sum(column.width + 1 for column in shown) - 1
    return [*shown, RecordColumn(AXIS, "", "", draw_axis, None, max(4, left), priority=0)]


def _sized(column: TimelineColumn, width: int) -> TimelineColumn:
    return replace(column, width=width, priority=0)
