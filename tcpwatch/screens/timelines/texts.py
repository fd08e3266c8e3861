"""What is said above and below the timelines: how many, how well their times are known, and what the cursor is on."""

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
from tcpwatch.screens.shared.moments import clock, is_exact, origin_text
from tcpwatch.screens.shared.state_marks import STATE_FILLS, STATE_LETTERS, state_style
from tcpwatch.screens.timelines.axis import TimeAxis, TimeWindow
from tcpwatch.screens.timelines.cells import MARKS
from tcpwatch.screens.timelines.columns import HELP_COLUMNS, TimelineColumn, length_text
from tcpwatch.units.printable import printable
from tcpwatch.widgets.lines import Line, Piece, cells_of
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import Entry, Section
from tcpwatch.widgets.table.lines import Sorting


def title_line(chosen: TimelineArrangement, sorting: Sorting[TimelineColumn], colours: Palette) -> Line:
    """Shown of total, live and closed, filter, sort."""
    total = chosen.total_live + chosen.total_closed
    of_all = f"{units.count(len(chosen))} of " if chosen.filter.text else ""
    pieces: list[Piece] = [
        (f" {of_all}{units.count(total)} flow{'s' * (total != 1)}", colours.strong),
        (f": {units.count(chosen.live)} live, {units.count(chosen.closed)} closed", colours.plain),
    ]
    if chosen.filter.text:
        pieces += [(" · filter ", colours.dim), (printable(chosen.filter.text), colours.plain)]
    pieces += [(" · sort ", colours.dim), (f"{sorting.column.title} {sorting.arrow}", colours.plain)]
    return tuple(pieces)


def coverage_line(view: View, window: TimeWindow, width: int, colours: Palette) -> Line:
    """How much time is seen, and how well it is known; what does not fit is left out, warnings last."""
    pieces: list[Piece] = [
        (" <", colours.key),
        (f" {window_text(window.span_s)} ", colours.strong),
        (">", colours.key),
    ]
    pieces.append((" · following" if window.follows else " · held, f follows", colours.plain))
    for words, is_warning in _trust(view):
        piece = (f" · {words}", colours.warning if is_warning else colours.dim)
        if cells_of([*pieces, piece]) <= width:
            pieces.append(piece)
    return tuple(pieces)


def _trust(view: View) -> Iterator[tuple[str, bool]]:
    trace, past = view.trace, view.archive
    if trace.events_lost:
        yield f"{units.count(trace.events_lost)} trace event{'s' * (trace.events_lost != 1)} lost", True
    if trace.destroy_events_lost:
        yield f"{units.count(trace.destroy_events_lost)} end{'s' * (trace.destroy_events_lost != 1)} lost", True
    if trace.on:
        yield "times by the trace", False
    else:
        why = f" ({printable(trace.why_no_trace)})" if trace.why_no_trace else ""
        yield f"times poll-exact: no trace{why}", False
    kept = sum(len(chunk) for chunk in past.records)
    if past.records_total > kept:
        yield f"kept: {units.count(kept)} of {units.count(past.records_total)} closed", False
    if trace.unmatched_sockets:
        many = f"{units.count(trace.unmatched_sockets)} traced socket{'s' * (trace.unmatched_sockets != 1)}"
        yield f"{many} of another namespace, or unsure", False


def window_text(seconds: float) -> str:
    """`20 ms`, `60 s`, `5 m 00 s`, `24 h`: the width of the window."""
    if seconds < 1:
        return units.precise_duration(seconds).replace(".0 ", " ")
    if seconds >= 3_600 and seconds % 3_600 == 0:
        return f"{seconds / 3_600:.0f} h"
    return "60 s" if seconds == 60 else units.duration(seconds).replace(" 00 s", "")


# The moment


def moment_line(row: Timeline | None, at: float, is_now: bool, axis: TimeAxis, width: int, colours: Palette) -> Line:
    """What the flow under the cursor was at that time, since when, for how long, and how that is known."""
    label = "now" if is_now else _clock(at, axis.cell_s)
    pieces: list[Piece] = [(" ▼ ", colours.key), (f"{label}  ", colours.strong)]
    for piece in _moment(row, axis, at, colours) if row is not None else ():
        if cells_of([*pieces, piece]) > width:
            break
        pieces.append(piece)
    return tuple(pieces)


def _clock(at: float, cell_s: float) -> str:
    """As exact as the cells are wide."""
    micros = f"{round(at * 1e6) % 1000:03}" if cell_s < 0.001 else ""
    return clock(at, cell_s < 0.1) + micros


def _moment(row: Timeline, axis: TimeAxis, at: float, colours: Palette) -> Iterator[Piece]:
    """The most important first."""
    if at < row.begin.time:
        first = "known first" if row.began_earlier else "begins"
        yield f"{first} {_told(row.begin)}", colours.plain
        return
    stretch = _at(row, at)
    if stretch is None or (stretch.end is not None and at >= stretch.end.time):
        yield from _ended(row, at, colours)
        return
    change = _unsure(row, at)
    if change is not None:
        yield f"{change}: the change is known to a poll only", colours.plain
        return
    yield stretch.state.name, state_style(stretch.state, colours) + colours.strong
    yield from _stretch(row, stretch, at, colours)
    yield from _incidents(row, axis, axis.cell(at), colours)


def _at(row: Timeline, at: float) -> StatePeriod | None:
    """The state at this time; the last one of those that begin in the same instant."""
    begun = [stretch for stretch in row.stretches if stretch.begin.time <= at]
    return begun[-1] if begun else None


def _unsure(row: Timeline, at: float) -> str | None:
    """`ESTABLISHED or CLOSE_WAIT`, where it is not known which."""
    for before, after in zip(row.stretches, row.stretches[1:], strict=False):
        if after.begin.time - after.begin.slack_s < at < after.begin.time:
            return f"{before.state.name} or {after.state.name}"
    return None


def _stretch(row: Timeline, stretch: StatePeriod, at: float, colours: Palette) -> Iterator[Piece]:
    if begins_with_last_ack(stretch, stretch is row.stretches[0]):
        yield f": how long is not told, till the last ACK came · {_told(stretch.begin)}", colours.plain
        return
    least = "at least " if stretch.began_earlier else ""
    yield f" for {least}{_words(at - stretch.begin.time, stretch.begin)}", colours.plain
    if stretch.end is not None:
        whole = _words(stretch.end.time - stretch.begin.time, stretch.begin, stretch.end)
        yield f" of {whole}", colours.plain
    since = "before" if stretch.began_earlier else "since"
    yield f" · {since} {_told(stretch.begin)}", colours.dim
    if stretch.end is not None:
        yield f" · till {_told(stretch.end)}", colours.dim
    if row.ending is not None:
        yield f" · {row.ending.word}", colours.plain


def _ended(row: Timeline, at: float, colours: Palette) -> Iterator[Piece]:
    end = row.end
    if end is None or row.ending is None:
        yield "has gone", colours.plain
        return
    last = row.stretches[-1].state if row.stretches else row.state
    ago = _words(max(0.0, at - end.time), end)
    yield f"ended {ago} {'ago' if at >= row.now else 'before'}: {row.ending.word}", colours.plain
    yield f" · {origin_text(end)}", colours.dim
    yield f" · lived {length_text(row)}", colours.dim
    yield f" · {sentence(row.ending, last if last is not State.TIME_WAIT else None)}", colours.dim


def _incidents(row: Timeline, axis: TimeAxis, cell: int, colours: Palette) -> Iterator[Piece]:
    here = [one.kind for one in row.incidents if axis.cell(one.time) == cell]
    for what, word in ((TransitionKind.RETRANSMITTED, "repeated"), (TransitionKind.DROPPED, "dropped")):
        if what in here:
            yield f" · {here.count(what)} {word}", colours.warning


def _told(moment: Moment) -> str:
    return f"{clock(moment.time, is_exact(moment))} ({origin_text(moment)})"


def _words(seconds: float, *moments: Moment) -> str:
    fine = all(is_exact(moment) for moment in moments)
    return units.precise_duration(seconds) if fine and seconds < 10 else units.duration(seconds)


# Help


def help_sections() -> Sequence[Section]:
    """What the signs mean."""
    flows = (state for state in STATE_ORDER if state not in (State.LISTEN, State.CLOSED))
    return [
        Section("Timelines", [
            Entry("", "A row a flow: connections that live, half-open ones among them, and those that closed lately. "
                  "What takes most of a cell is what the cell shows."),
            Entry("", "The window follows the time (f), until the cursor of time is moved; < and > zoom around that."),
            *(Entry(sign, meaning) for sign, meaning in MARKS),
        ], 6),
        Section("Lines of time", [Entry(STATE_LETTERS[state] + STATE_FILLS[state] * 3,
            state.name) for state in flows], 6),
        Section("Timelines' columns", [Entry(column.title, column.help) for column in HELP_COLUMNS], 8),
    ]  # fmt: skip
