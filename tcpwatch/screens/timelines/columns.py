"""The columns left of the axis, and which of them a table of a given width has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from rich.cells import cell_len

from tcpwatch import units
from tcpwatch.model.columns.socket_values import show_endpoint
from tcpwatch.model.query.timeline import Timeline
from tcpwatch.model.states import Role
from tcpwatch.screens.shared.moments import clock, is_exact
from tcpwatch.screens.shared.state_marks import STATE_LETTERS, state_style
from tcpwatch.screens.timelines.cells import ENDINGS, ending_style
from tcpwatch.widgets.lines import Line
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.table.record_columns import CellContext, RecordColumn

TimelineColumn = RecordColumn[Timeline]
AXIS = "axis"
_ARROWS = {Role.CLIENT: "→", Role.SERVER: "←"}


def endpoints_text(row: Timeline, exact_names: bool, host: bool = False) -> str:
    """`:443 ← 10.0.0.9:51234`: the arrow goes from who called; `host` adds the local address."""
    arrow = _ARROWS.get(row.role, "·")
    here = show_endpoint(row.local, exact_names) if host else f":{_port(row.local[1], exact_names)}"
    return f"{here} {arrow} {show_endpoint(row.remote, exact_names)}"


def _port(port: int, exact_names: bool) -> str:
    return str(port) if exact_names else units.service(port)


def _flow(row: Timeline, look: CellContext) -> Line:
    words = endpoints_text(row, look.exact, host=look.width >= _WIDE_FLOW)
    if cell_len(words) > look.width:  # a number may fit where a name does not
        words = min(words, endpoints_text(row, True), key=len)
    return ((words, look.colours.plain if row.live else look.colours.dim),)


def status(row: Timeline, colours: Palette) -> Line:
    """The state of a flow that lives, or how it ended."""
    if row.live and row.state is not None:
        return ((row.state.name, state_style(row.state, colours)),)
    if row.ending is None:
        return (("closed", colours.dim),)
    return ((row.ending.word, ending_style(row.ending, colours)),)


def _sign(row: Timeline, look: CellContext) -> Line:
    if row.live and row.state is not None:
        return ((STATE_LETTERS[row.state], state_style(row.state, look.colours) + look.colours.strong),)
    return ((ENDINGS[row.ending], ending_style(row.ending, look.colours)),) if row.ending is not None else ()


def length_text(row: Timeline) -> str:
    """How long it lived, or has lived; `>` where it began before we looked."""
    slack = row.begin.slack_s
    if row.began_earlier or slack != slack:
        return f">{units.duration(row.length_s)}" if row.length_s else units.UNKNOWN
    if slack > row.length_s:
        return f"<{units.duration(row.length_s + slack)}"
    fine = is_exact(row.begin) and row.end is not None and is_exact(row.end)
    return units.precise_duration(row.length_s) if fine and row.length_s < 10 else units.duration(row.length_s)


def _begin(row: Timeline, look: CellContext) -> Line:
    words = clock(row.begin.time, is_exact(row.begin))
    return ((f"<{words}" if row.began_earlier else words, look.colours.plain),)


def _end(row: Timeline, look: CellContext) -> Line:
    return ((clock(row.end.time, is_exact(row.end)), look.colours.plain),) if row.end is not None else ()


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
    "flow", "Flow", "Local port and remote end; the arrow goes from who called", _flow, None, 24
)
PROCESS: TimelineColumn = RecordColumn(
    "process", "Process", "Process that holds or held the socket",
    lambda row, look: ((row.process, look.colours.plain),), None, 15,
)  # fmt: skip
BEGIN: TimelineColumn = RecordColumn("begin", "Begin", "When it began; <: or before", _begin, None, 13)
END: TimelineColumn = RecordColumn(
    "end", "End", "When its full socket ended: TIME_WAIT comes after that", _end, None, 12
)
BYTES: TimelineColumn = RecordColumn(
    "bytes", "Bytes", "Bytes received and sent, as tcp_info counts them (SYN and FIN are one each)", _bytes, None, 7,
    right=True,
)  # fmt: skip
LENGTH: TimelineColumn = RecordColumn(
    "length", "Length", "From its beginning to the end of its full socket, or till now; >: at least",
    lambda row, look: ((length_text(row), look.colours.plain),), None, 10, right=True,
)  # fmt: skip
ENDING: TimelineColumn = RecordColumn("ending", "Ending", "How it ended, what went wrong first", _sign, None, 1)

SORT_COLUMNS: tuple[TimelineColumn, ...] = (BEGIN, LENGTH, END, STATUS, ENDING)
"""What one can sort by, seen or not; the keys are those of model.timelines.By."""
HELP_COLUMNS: tuple[TimelineColumn, ...] = (STATUS, FLOW, PROCESS, BEGIN, END, BYTES, LENGTH)

_WIDE_FLOW = 44
_LEAST: tuple[tuple[TimelineColumn, int, int], ...] = (
    (SIGN, 0, 1), (STATUS, 104, 14), (FLOW, 0, 16), (FLOW, 64, 26), (FLOW, 112, 28), (FLOW, 190, 46),
    (PROCESS, 126, 15), (BEGIN, 144, 13), (END, 200, 12), (BYTES, 154, 7), (LENGTH, 54, 10),
)  # fmt: skip
"""Column, from how many cells of the table on, and how wide it is there."""


def columns_for(width: int, draw_axis: Callable[[Timeline, CellContext], Line]) -> Sequence[TimelineColumn]:
    """The columns of a table of so many cells; the axis, the last, has all that the others leave."""
    widths = {column.key: (column, cells) for column, least, cells in _LEAST if width >= least}
    shown = [_sized(column, cells) for column, cells in widths.values()]
    left = width - sum(column.width + 1 for column in shown) - 1
    return [*shown, RecordColumn(AXIS, "", "", draw_axis, None, max(4, left), priority=0)]


def _sized(column: TimelineColumn, width: int) -> TimelineColumn:
    return replace(column, width=width, priority=0)
