"""Draw one flow in the cells of an axis: each state as its letter and a line, and a mark where the flow ended.

A cell shows the state that takes most of its time, or the later of two equal ones. A flow shorter than a cell is only
the mark of its ending.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.style import Style

from tcpwatch.model.lifecycle.ending import ORDERLY_ENDINGS, Ending
from tcpwatch.model.lifecycle.history import StatePeriod
from tcpwatch.model.lifecycle.transitions import TransitionKind
from tcpwatch.model.query.timeline import Timeline
from tcpwatch.model.states import State
from tcpwatch.screens.shared.state_marks import EDGE_EARLIER, STATE_FILLS, STATE_LETTERS, state_style
from tcpwatch.screens.timelines.axis import TimeAxis
from tcpwatch.widgets.lines import Piece
from tcpwatch.widgets.palette import Palette

BETWEEN_POLLS = "~"
"""The state changed between two polls, somewhere in these cells."""
CURSOR = "│"
INCIDENT = "*"

ENDINGS: dict[Ending, str] = {
    **dict.fromkeys(Ending, "x"),
    **dict.fromkeys(ORDERLY_ENDINGS, "|"),
    Ending.UNKNOWN: "?",
    Ending.TIMED_OUT: "!",
    Ending.GIVEN_UP: "/",
}
"""A mark for each ending, none of which is the letter of a state."""

MARKS = (
    ("E━━━", "a state: its letter, then its line (see below)"),
    ("|", "closed with a FIN from each side"),
    ("x", "reset, refused, unreachable, killed, or no local port"),
    ("!", "timed out"),
    ("/", "closed before connecting"),
    ("?", "ended, cause unknown"),
    (BETWEEN_POLLS * 3, "the state changed somewhere in this time, between two polls"),
    (EDGE_EARLIER, "existed before tcpwatch first saw it"),
    (INCIDENT, "a segment was retransmitted or dropped; see the last line"),
    (CURSOR, "the time cursor; the last line is about this time"),
)
"""Sign → meaning, for the help."""


def ending_style(ending: Ending, colours: Palette) -> Style:
    """Return the style of an ending's mark: failures stand out."""
    if ENDINGS[ending] in "|/":
        return colours.teardown
    return colours.dim if ending is Ending.UNKNOWN else colours.warning


@dataclass(frozen=True, slots=True)
class _Segment:
    """A part of the line, from `begin` to `end` (Unix seconds); `period` is None where the state is not known."""

    begin: float
    end: float
    period: StatePeriod | None


def line_pieces(row: Timeline, axis: TimeAxis, cursor: int | None, colours: Palette) -> list[Piece]:
    """Return the flow in exactly `axis.cells` cells; `cursor` is the marked cell."""
    cells: list[Piece] = [(" ", colours.plain)] * axis.cells
    segments = _segment_per_cell(row, axis)
    before: _Segment | None = None
    for cell, segment in enumerate(segments):
        if segment is not None:
            cells[cell] = _glyph(segment, segment is not before, colours)
        before = segment
    _mark_incidents(row, axis, cells, segments, colours)
    if row.began_earlier and 0 <= (cell := axis.cell(row.begin.time) - 1) < axis.cells:
        cells[cell] = (EDGE_EARLIER, colours.dim)
    ending = row.ending
    if ending is not None and row.end is not None and not row.live and not _ends_in_time_wait(row, row.end.time):
        cell = axis.cell(row.end.time)
        if 0 <= cell < axis.cells:
            cells[cell] = (ENDINGS[ending], ending_style(ending, colours))
    if cursor is not None and 0 <= cursor < axis.cells:
        glyph, style = cells[cursor]
        cells[cursor] = (CURSOR, colours.dim) if glyph == " " else (glyph, style + Style(reverse=True))
    return [("".join(glyph for glyph, _ in some), style) for style, some in groupby(cells, lambda cell: cell[1])]


def _ends_in_time_wait(row: Timeline, end: float) -> bool:
    """Whether the line goes on in TIME_WAIT after the full socket's end, so that it needs no mark of the ending."""
    last = row.periods[-1] if row.periods else None
    return last is not None and last.state is State.TIME_WAIT and end - last.begin.time < row.line_end_s - end


def _glyph(segment: _Segment, is_first: bool, colours: Palette) -> Piece:
    if segment.period is None:
        return BETWEEN_POLLS, colours.dim
    state = segment.period.state
    return (STATE_LETTERS if is_first else STATE_FILLS)[state], state_style(state, colours)


def _segment_per_cell(row: Timeline, axis: TimeAxis) -> Sequence[_Segment | None]:
    """Return the segment that each cell shows: an unknown state only where no known one is."""
    shown: list[_Segment | None] = [None] * axis.cells
    most = [-1.0] * axis.cells
    for segment in _segments(row, axis):
        first, last = max(0, axis.cell(segment.begin)), min(axis.cells - 1, axis.cell(segment.end))
        for cell in range(first, last + 1):
            begin, end = axis.begin(cell), axis.begin(cell + 1)
            share = max(0.0, min(segment.end, end) - max(segment.begin, begin))
            if segment.period is None:
                shown[cell] = shown[cell] or segment
            elif share >= most[cell] and (share > 0 or (cell == first and most[cell] <= 0)):
                most[cell], shown[cell] = share, segment
    return shown


def _segments(row: Timeline, axis: TimeAxis) -> Iterator[_Segment]:
    """Yield the periods, and the times between two polls in which the state is not known, where longer than a cell."""
    known = 0.0
    until = row.line_end_s
    for at, period in enumerate(row.periods):
        begin, slack = period.begin.time, period.begin.slack_s
        if slack >= axis.cell_s and not period.began_earlier:  # not of NaN
            yield _Segment(max(known, begin - slack), begin, None)
        end = period.end
        last = at + 1 == len(row.periods)
        known = begin
        if end is None or (last and row.live):
            yield _Segment(begin, max(begin, until), period)
            continue
        known_end = max(begin, end.time - end.slack_s) if end.slack_s >= axis.cell_s else end.time
        yield _Segment(begin, known_end, period)
        if last and known_end < end.time:
            yield _Segment(known_end, end.time, None)


_SHOWN = (TransitionKind.RETRANSMITTED, TransitionKind.DROPPED)


def _mark_incidents(
    row: Timeline, axis: TimeAxis, cells: list[Piece], segments: Sequence[_Segment | None], colours: Palette
) -> None:
    """Mark retransmitted and dropped segments, but never over the letter of a state."""
    for incident in row.incidents:
        cell = axis.cell(incident.time)
        if incident.kind in _SHOWN and 0 < cell < axis.cells and segments[cell] in (None, segments[cell - 1]):
            cells[cell] = (INCIDENT, colours.warning)
