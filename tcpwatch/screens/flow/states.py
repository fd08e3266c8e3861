"""states_block and incident_blocks: the states of a connection with times and their origin, and its incidents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tcpwatch import units
from tcpwatch.model.lifecycle.history import History
from tcpwatch.model.lifecycle.trace.stats import TraceStats
from tcpwatch.model.lifecycle.transitions import Origin, Transition, TransitionKind
from tcpwatch.model.states import State
from tcpwatch.screens.shared.moments import UNKNOWN_DURATION, clock, duration_text, moment_clock, origin_text
from tcpwatch.screens.shared.state_marks import STATE_LETTERS, state_style
from tcpwatch.widgets.blocks import Block
from tcpwatch.widgets.lines import Line, cells_of, fit
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import wrapped

_INDENT = "   "
_NAME, _CLOCK = 13, 12
_NAN = float("nan")
_LISTED = 6
"""Number of incidents that are listed."""


class _StateLine(NamedTuple):
    state: State
    clock: str
    duration: str
    origin: str


_UNKNOWN = "Its states are unknown: no poll saw it, or they are no longer kept."


@dataclass(frozen=True, slots=True)
class _States:
    history: History
    now: float
    no_trace: str
    """Why there is no trace; empty if there is one."""
    has_detail: bool

    @property
    def state_lines(self) -> Iterator[_StateLine]:
        for at, period in enumerate(self.history.periods):
            duration = duration_text(period, self.now, at == 0)
            begin = units.UNKNOWN if duration == UNKNOWN_DURATION else moment_clock(period.begin)
            # If it began earlier, the slack is that of the first sample.
            slack_s = _NAN if period.began_earlier else period.begin.slack_s
            yield _StateLine(period.state, begin, duration, origin_text(replace(period.begin, slack_s=slack_s)))
        end = self.history.periods[-1].end if self.history.periods else None
        if end is not None:
            yield _StateLine(State.CLOSED, moment_clock(end), "", origin_text(end))

    @property
    def why_no_trace(self) -> str:
        return f"No trace ({self.no_trace}): times are exact to one poll." if self.no_trace else ""

    def draw(self, width: int, colours: Palette) -> Sequence[Line]:
        entries = list(self.state_lines)
        if not _fits(entries, width):
            entries = [_shortened(entry) for entry in entries]
        cells = max((len(entry.duration) for entry in entries), default=0)
        one_line_width = width if _fits(entries, width) else 0
        lines = [line for entry in entries for line in _drawn(entry, cells, one_line_width, colours)]
        missing = "" if entries else _UNKNOWN if self.has_detail else "Expected with the next poll."
        texts = [text for note in (missing, self.why_no_trace) if note for text in wrapped(note, width - 4)]
        return [*lines, *(((_INDENT + text, colours.dim),) for text in texts)]

    def plain(self) -> Sequence[str]:
        lines = [f"{entry.state.name}: {', '.join(filter(None, entry[1:]))}" for entry in self.state_lines]
        return [*lines, self.why_no_trace] if self.why_no_trace else lines


def _fits(entries: Sequence[_StateLine], width: int) -> bool:
    """Return whether each entry fits on one line."""
    cells = max((len(entry.duration) for entry in entries), default=0)
    cells += max((len(entry.origin) for entry in entries), default=0)
    return len(_INDENT) + _NAME + 1 + _CLOCK + 2 + cells + 3 <= width


def _shortened(entry: _StateLine) -> _StateLine:
    """Return the entry with abbreviations, for a narrow column."""
    duration = entry.duration.replace("at least", "≥").replace("at most", "≤")
    origin = entry.origin.replace("polled ", "").replace("destroy event", "event")
    return entry._replace(duration=duration, origin=origin)


def _drawn(entry: _StateLine, cells: int, width: int, colours: Palette) -> Iterator[Line]:
    """Yield one line of `width` cells, or two short lines if `width` is 0."""
    style = state_style(entry.state, colours) if entry.duration else colours.strong
    name = (_INDENT, colours.plain), (f"{STATE_LETTERS[entry.state]} {entry.state.name:<{_NAME - 2}} ", style)
    unknown = entry.duration == UNKNOWN_DURATION
    duration = (f"{entry.duration:>{cells}}", colours.dim if unknown else colours.plain)
    if width:
        line: Line = (*name, (f"{entry.clock:<{_CLOCK}}  ", colours.plain), duration)
        gap = width - 1 - cells_of(line) - len(entry.origin)
        yield (*line, (" " * gap + entry.origin, colours.dim))
    else:
        yield (*name, duration)
        yield ((f"{_INDENT}  {entry.clock} {entry.origin}", colours.dim),)


def states_block(history: History, now: float, no_trace: str, has_detail: bool = True) -> Block:
    """Return each state with its beginning, its duration and the origin of these times.

    `has_detail`: a poll has already requested the detail of the connection.
    """
    states = _States(history, now, no_trace, has_detail)
    return Block("States", states.draw, states.plain)


# Incidents ---------------------------------------------------------------------------------------

_TEXTS = {
    TransitionKind.RETRANSMITTED: ("retransmitted", "retransmission", "retransmissions"),
    TransitionKind.RESET_SENT: ("reset sent", "reset sent", "resets sent"),
    TransitionKind.RESET_RECEIVED: ("reset received", "reset received", "resets received"),
    TransitionKind.DROPPED: ("dropped", "segment dropped", "segments dropped"),
    TransitionKind.ERROR: ("socket error", "socket error", "socket errors"),
}
"""Kind of incident → its text in the list, and as a counted noun in singular and plural."""
_KIND = max(len(text) for text, _, _ in _TEXTS.values())


@dataclass(frozen=True, slots=True)
class _Incidents:
    incidents: Sequence[Transition]
    trace: TraceStats

    @property
    def counts(self) -> str:
        """`3 retransmissions, 1 reset received`."""
        counted = Counter(incident.kind for incident in self.incidents)
        return ", ".join(units.plural(counted[kind], *nouns) for kind, (_, *nouns) in _TEXTS.items() if counted[kind])

    @property
    def listed(self) -> list[tuple[str, TransitionKind, str]]:
        """Clock time, kind and reason of the last incidents."""
        return [
            (clock(incident.time, incident.origin is not Origin.POLL), incident.kind, self._reason(incident))
            for incident in self.incidents[-_LISTED:]
        ]

    def _reason(self, incident: Transition) -> str:
        """Return the kernel's name of the reason, or its number."""
        reason = incident.reason
        return self.trace.reasons(incident.kind).get(reason, f"reason {reason}") if reason else ""

    @property
    def list_title(self) -> str:
        """`The last 6 of 9:`; empty if all are listed."""
        total = len(self.incidents)
        return f"The last {_LISTED} of {units.count(total)}:" if total > _LISTED else ""

    def draw(self, width: int, colours: Palette) -> Sequence[Line]:
        lines: list[Line] = [((_INDENT + text, colours.plain),) for text in wrapped(self.counts, width - 4)]
        if self.list_title:
            lines.append(((_INDENT + fit(self.list_title, width - 4), colours.dim),))
        for time, kind, reason in self.listed:
            head = f"{_INDENT}{time:<{_CLOCK}}  "
            text = fit(_TEXTS[kind][0], max(1, min(_KIND, width - len(head) - 1)))
            line: Line = ((head, colours.dim), (text, colours.warning))
            if cells_of(line) + 2 + len(reason) < width:
                lines.append((*line, (f"  {reason}" if reason else "", colours.plain)))
            else:
                lines += [line, ((fit("     " + reason, max(1, width - 1)), colours.plain),)]
        return lines

    def plain(self) -> Sequence[str]:
        listed = [" ".join(filter(None, (time, _TEXTS[kind][0], reason))) for time, kind, reason in self.listed]
        return [self.counts, *filter(None, [self.list_title]), *listed]


def incident_blocks(history: History, trace: TraceStats) -> list[Block]:
    """Return a block of retransmissions, resets, drops and errors; no block if there were none."""
    if not history.incidents:
        return []
    incidents = _Incidents(history.incidents, trace)
    return [Block("Incidents", incidents.draw, incidents.plain)]
