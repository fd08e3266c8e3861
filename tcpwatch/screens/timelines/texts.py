"""Lines above and below the timelines: counts, the window, the state under the cursor; and the help."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tcpwatch import units
from tcpwatch.model.lifecycle.ending import sentence
from tcpwatch.model.lifecycle.history import Moment, StatePeriod, begins_with_last_ack
from tcpwatch.model.lifecycle.transitions import TransitionKind
from tcpwatch.model.query.timeline import Timeline
from tcpwatch.model.query.timeline_arrangement import TimelineArrangement
from tcpwatch.model.states import STATE_ORDER, State
from tcpwatch.model.view import View
from tcpwatch.screens.shared.moments import clock, is_exact, moment_clock, origin_text
from tcpwatch.screens.shared.state_marks import STATE_FILLS, STATE_LETTERS, state_style
from tcpwatch.screens.shared.table_page import filter_pieces, sort_pieces
from tcpwatch.screens.timelines.axis import TimeAxis, TimeWindow
from tcpwatch.screens.timelines.cells import MARKS
from tcpwatch.screens.timelines.columns import HELP_COLUMNS, TimelineColumn, length_text
from tcpwatch.units.printable import printable
from tcpwatch.widgets.lines import Line, Piece, cells_of
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import Entry, Section
from tcpwatch.widgets.table.lines import Sorting


def title_line(arrangement: TimelineArrangement, sorting: Sorting[TimelineColumn], colours: Palette) -> Line:
    """Return the first line: flows shown of all, live and closed, filter, sort."""
    total = arrangement.total_live + arrangement.total_closed
    of_all = f"{units.count(len(arrangement))} of " if arrangement.filter.text else ""
    pieces: list[Piece] = [
        (f" {of_all}{units.plural(total, 'flow')}", colours.strong),
        (f": {units.count(arrangement.live)} live, {units.count(arrangement.closed)} closed", colours.plain),
    ]
    return (*pieces, *filter_pieces(arrangement.filter, colours), *sort_pieces(sorting, colours))


def coverage_line(view: View, window: TimeWindow, width: int, colours: Palette) -> Line:
    """Return the second line: width of the window and precision of the times; the parts that fit."""
    pieces: list[Piece] = [
        (" <", colours.key),
        (f" {window_text(window.span_s)} ", colours.strong),
        (">", colours.key),
    ]
    pieces.append((" · following" if window.follows else " · fixed, f follows", colours.plain))
    for words, is_warning in _coverage(view):
        piece = (f" · {words}", colours.warning if is_warning else colours.dim)
        if cells_of([*pieces, piece]) <= width:
            pieces.append(piece)
    return tuple(pieces)


def _coverage(view: View) -> Iterator[tuple[str, bool]]:
    """Yield texts about lost and missing data, each with whether it is a warning."""
    trace, archive = view.trace, view.archive
    if trace.events_lost:
        yield f"{units.plural(trace.events_lost, 'trace event')} lost", True
    if trace.destroy_events_lost:
        yield f"{units.plural(trace.destroy_events_lost, 'end')} lost", True
    if trace.on:
        yield "times from the trace", False
    else:
        why = f" ({printable(trace.why_no_trace)})" if trace.why_no_trace else ""
        yield f"times exact to one poll: no trace{why}", False
    kept = sum(len(chunk) for chunk in archive.records)
    if archive.records_total > kept:
        yield f"keeps {units.count(kept)} of {units.count(archive.records_total)} closed", False
    if trace.unmatched_sockets:
        yield f"{units.plural(trace.unmatched_sockets, 'traced socket')} not matched to this namespace", False


def window_text(seconds: float) -> str:
    """Return the width of the window: `20 ms`, `60 s`, `5 m`, `24 h`."""
    if seconds < 1:
        return units.precise_duration(seconds).replace(".0 ", " ")
    if seconds >= 3_600 and seconds % 3_600 == 0:
        return f"{seconds / 3_600:.0f} h"
    return "60 s" if seconds == 60 else units.duration(seconds).replace(" 00 s", "")


# The state under the cursor


def moment_line(row: Timeline | None, at: float, is_now: bool, axis: TimeAxis, width: int, colours: Palette) -> Line:
    """Return the last line: the state of the flow under the cursor at time `at`, its duration and origin."""
    label = "now" if is_now else _clock(at, axis.cell_s)
    pieces: list[Piece] = [(" ▼ ", colours.key), (f"{label}  ", colours.strong)]
    for piece in _moment(row, axis, at, colours) if row is not None else ():
        if cells_of([*pieces, piece]) > width:
            break
        pieces.append(piece)
    return tuple(pieces)


def _clock(at: float, cell_s: float) -> str:
    """Return the clock time with as many digits as the width of a cell justifies."""
    micros = f"{round(at * 1e6) % 1000:03}" if cell_s < 0.001 else ""
    return clock(at, cell_s < 0.1) + micros


def _moment(row: Timeline, axis: TimeAxis, at: float, colours: Palette) -> Iterator[Piece]:
    """Yield what is known of this time, the most important first."""
    if at < row.begin.time:
        first = "first seen" if row.began_earlier else "begins"
        yield f"{first} {_moment_text(row.begin)}", colours.plain
        return
    period = _at(row, at)
    if period is None or (period.end is not None and at >= period.end.time):
        yield from _ended(row, at, colours)
        return
    candidates = _candidates(row, at)
    if candidates is not None:
        yield f"{candidates}: the state changed between two polls", colours.plain
        return
    yield period.state.name, state_style(period.state, colours) + colours.strong
    yield from _period(row, period, axis, at, colours)


def _at(row: Timeline, at: float) -> StatePeriod | None:
    """Return the last period that begins at or before `at`."""
    begun = [period for period in row.periods if period.begin.time <= at]
    return begun[-1] if begun else None


def _candidates(row: Timeline, at: float) -> str | None:
    """Return `ESTABLISHED or CLOSE_WAIT` where the change lies between two polls, else None."""
    for before, after in zip(row.periods, row.periods[1:], strict=False):
        if after.begin.time - after.begin.slack_s < at < after.begin.time:
            return f"{before.state.name} or {after.state.name}"
    return None


def _period(row: Timeline, period: StatePeriod, axis: TimeAxis, at: float, colours: Palette) -> Iterator[Piece]:
    if begins_with_last_ack(period, period is row.periods[0]):
        yield f": duration unknown, until the last ACK arrived · {_moment_text(period.begin)}", colours.plain
        return
    least = "at least " if period.began_earlier else ""
    yield f" for {least}{_duration_text(at - period.begin.time, period.begin)}", colours.plain
    if period.end is not None:
        whole = _duration_text(period.end.time - period.begin.time, period.begin, period.end)
        yield f" of {whole}", colours.plain
    yield from _incidents(row, axis, axis.cell(at), colours)
    since = "before" if period.began_earlier else "since"
    yield f" · {since} {_moment_text(period.begin)}", colours.dim
    if period.end is not None:
        yield f" · until {_moment_text(period.end)}", colours.dim
    if row.ending is not None:
        yield f" · {row.ending.text}", colours.plain


def _ended(row: Timeline, at: float, colours: Palette) -> Iterator[Piece]:
    end = row.end
    if end is None or row.ending is None:
        yield "no longer there", colours.plain
        return
    last = row.periods[-1].state if row.periods else row.state
    ago = _duration_text(max(0.0, at - end.time), end)
    yield f"ended {ago} {'ago' if at >= row.now else 'before'}: {row.ending.text}", colours.plain
    yield f" · {origin_text(end)}", colours.dim
    yield f" · lifetime {length_text(row)}", colours.dim
    yield f" · {sentence(row.ending, last if last is not State.TIME_WAIT else None)}", colours.dim


def _incidents(row: Timeline, axis: TimeAxis, cell: int, colours: Palette) -> Iterator[Piece]:
    kinds = [incident.kind for incident in row.incidents if axis.cell(incident.time) == cell]
    for kind, word in ((TransitionKind.RETRANSMITTED, "retransmitted"), (TransitionKind.DROPPED, "dropped")):
        if kind in kinds:
            yield f" · {kinds.count(kind)} {word}", colours.warning


def _moment_text(moment: Moment) -> str:
    return f"{moment_clock(moment)} ({origin_text(moment)})"


def _duration_text(seconds: float, *moments: Moment) -> str:
    exact = all(is_exact(moment) for moment in moments)
    return units.precise_duration(seconds) if exact and seconds < 10 else units.duration(seconds)


# Help


def help_sections() -> Sequence[Section]:
    """Return the help of this screen: signs, letters of the states, columns."""
    states = (state for state in STATE_ORDER if state not in (State.LISTEN, State.CLOSED))
    return [
        Section("Timelines", [
            Entry("", "One row per flow: open and half-open connections, and those that closed recently. "
                  "A cell shows the state that takes most of its time."),
            Entry("", "The right edge follows the time (f) until you move the time cursor; < and > zoom around it."),
            *(Entry(sign, meaning) for sign, meaning in MARKS),
        ], 6),
        Section("State lines", [Entry(STATE_LETTERS[state] + STATE_FILLS[state] * 3,
            state.name) for state in states], 6),
        Section("Timelines' columns", [Entry(column.title, column.help) for column in HELP_COLUMNS], 8),
    ]  # fmt: skip
