"""A flow's life in the cells of an axis: each state its letter and a line, and a mark where the flow ended.

The state that takes most of a cell has it, of equals the later one; a flow that lived less than a cell is its mark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.style import Style

from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.history import StatePeriod
from tcpwatch.model.lifecycle.transitions import TransitionKind
from tcpwatch.model.query.timeline import Timeline
from tcpwatch.model.states import State
from tcpwatch.screens.shared.state_marks import EDGE_EARLIER, STATE_FILLS, STATE_LETTERS, state_style
from tcpwatch.screens.timelines.axis import TimeAxis
from tcpwatch.widgets.lines import Piece
from tcpwatch.widgets.palette import Palette

BETWEEN_POLLS = "~"
"""Between two polls: it began somewhere here."""
CURSOR = "│"
INCIDENT = "*"

ENDINGS: dict[Ending, str] = {
    Ending.UNKNOWN: "?",
    Ending.BY_US: "|",
    Ending.BY_PEER: "|",
    Ending.AT_ONCE: "|",
    Ending.ORDERLY: "|",
    Ending.RESET_SENT: "x",
    Ending.RESET_RECEIVED: "x",
    Ending.RESET: "x",
    Ending.TIMED_OUT: "!",
    Ending.REFUSED: "x",
    Ending.GIVEN_UP: "/",
    Ending.KILLED: "x",
    Ending.NOT_ACCEPTED: "x",
    Ending.UNREACHABLE: "x",
}
"""A mark for each ending, that no state has for its letter."""

MARKS = (
    ("E━━━", "a state: its letter, then its line; see below"),
    ("|", "the flow has ended in order, with a FIN from both ends"),
    ("x", "it was reset, refused, unreachable, or killed"),
    ("!", "it has timed out"),
    ("/", "given up before the handshake was done"),
    ("?", "it has gone, and nothing tells how"),
    (BETWEEN_POLLS * 3, "the next state began somewhere in this time, between two polls"),
    (EDGE_EARLIER, "it was there before tcpwatch looked, or nobody knows for how long"),
    (INCIDENT, "a segment was repeated or dropped here; the last line says what"),
    (CURSOR, "the time that the last line speaks of"),
)
"""Sign → meaning, for the help."""


def ending_style(ending: Ending, colours: Palette) -> Style:
    """What went wrong stands out."""
    if ENDINGS[ending] in "|/":
        return colours.teardown
    return colours.dim if ending is Ending.UNKNOWN else colours.warning


@dataclass(frozen=True, slots=True)
class _Segment:
    """From `begin` to `end` (Unix seconds); `of` is None where the state is not sure."""

    begin: float
    end: float
    of: StatePeriod | None


def line_pieces(row: Timeline, axis: TimeAxis, cursor: int | None, colours: Palette) -> list[Piece]:
    """The flow in exactly `axis.cells` cells; `cursor` is the cell that is marked."""
    cells: list[Piece] = [(" ", colours.plain)] * axis.cells
    drawn = _drawn(row, axis)
    before: _Segment | None = None
    for cell, segment in enumerate(drawn):
        if segment is not None:
            cells[cell] = _glyph(segment, segment is not before, colours)
        before = segment
    _mark_incidents(row, axis, cells, drawn, colours)
    if row.began_earlier and 0 <= (cell := axis.cell(row.begin.time) - 1) < axis.cells:
        cells[cell] = (EDGE_EARLIER, colours.dim)
    ending = row.ending
    if ending is not None and row.end is not None and not row.live and not _waits(row, row.end.time):
        cell = axis.cell(row.end.time)
        if 0 <= cell < axis.cells:
            cells[cell] = (ENDINGS[ending], ending_style(ending, colours))
    if cursor is not None and 0 <= cursor < axis.cells:
        glyph, style = cells[cursor]
        cells[cursor] = (CURSOR, colours.dim) if glyph == " " else (glyph, style + Style(reverse=True))
    return [("".join(glyph for glyph, _ in some), style) for style, some in groupby(cells, lambda cell: cell[1])]


def _waits(row: Timeline, end: float) -> bool:
    """It went on in TIME_WAIT, whose letter tells the end; some were seen in nothing but TIME_WAIT, and end with it."""
    last = row.stretches[-1] if row.stretches else None
    return last is not None and last.state is State.TIME_WAIT and end - last.begin.time < row.line_end_s - end


def _glyph(segment: _Segment, is_first: bool, colours: Palette) -> Piece:
    if segment.of is None:
        return BETWEEN_POLLS, colours.dim
    state = segment.of.state
    return (STATE_LETTERS if is_first else STATE_FILLS)[state], state_style(state, colours)


def _drawn(row: Timeline, axis: TimeAxis) -> Sequence[_Segment | None]:
    """What each cell shows; what is not sure, only where nothing is."""
    drawn: list[_Segment | None] = [None] * axis.cells
    most = [-1.0] * axis.cells
    for segment in _segments(row, axis):
        first, last = max(0, axis.cell(segment.begin)), min(axis.cells - 1, axis.cell(segment.end))
        for cell in range(first, last + 1):
            begin, end = axis.begin(cell), axis.begin(cell + 1)
            share = max(0.0, min(segment.end, end) - max(segment.begin, begin))
            if segment.of is None:
                drawn[cell] = drawn[cell] or segment
            elif share >= most[cell] and (share > 0 or (cell == first and most[cell] <= 0)):
                most[cell], drawn[cell] = share, segment
    return drawn


def _segments(row: Timeline, axis: TimeAxis) -> Iterator[_Segment]:
    """The stretches, and where it is not sure which it was, when that is longer than a cell."""
    known = 0.0
    until = row.line_end_s
    for at, stretch in enumerate(row.stretches):
        begin, slack = stretch.begin.time, stretch.begin.slack_s
        if slack >= axis.cell_s and not stretch.began_earlier:  # not of NaN
            yield _Segment(max(known, begin - slack), begin, None)
        end = stretch.end
        last = at + 1 == len(row.stretches)
        known = begin
        if end is None or (last and row.live):
            yield _Segment(begin, max(begin, until), stretch)
            continue
        sure = max(begin, end.time - end.slack_s) if end.slack_s >= axis.cell_s else end.time
        yield _Segment(begin, sure, stretch)
        if last and sure < end.time:
            yield _Segment(sure, end.time, None)


_SHOWN = (TransitionKind.RETRANSMITTED, TransitionKind.DROPPED)


def _mark_incidents(
    row: Timeline, axis: TimeAxis, cells: list[Piece], drawn: Sequence[_Segment | None], colours: Palette
) -> None:
    """Repeats and drops, where they leave the letter of a state in sight; a reset is how the flow ended."""
    for incident in row.incidents:
        cell = axis.cell(incident.time)
        if incident.kind in _SHOWN and 0 < cell < axis.cells and drawn[cell] in (None, drawn[cell - 1]):
            cells[cell] = (INCIDENT, colours.warning)
