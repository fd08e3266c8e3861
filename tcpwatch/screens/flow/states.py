"""What happened to a flow, as lines: its states with times and how these are known, and its incidents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tcpwatch import units
from tcpwatch.model.lifecycle.history import History
from tcpwatch.model.lifecycle.trace_stats import TraceStats
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
_LATEST = 6
"""Incidents that are listed."""


class _Told(NamedTuple):
    state: State
    clock: str
    duration: str
    known: str


_UNKNOWN = "Nothing tells its states: no poll saw it, or they are forgotten."


@dataclass(frozen=True, slots=True)
class _States:
    story: History
    now: float
    no_trace: str
    """Why there is none; empty where there is one."""
    asked: bool

    @property
    def told(self) -> Iterator[_Told]:
        for at, one in enumerate(self.story.periods):
            duration = duration_text(one, self.now, at == 0)
            begin = units.UNKNOWN if duration == UNKNOWN_DURATION else moment_clock(one.begin)
            slack_s = _NAN if one.began_earlier else one.begin.slack_s  # then it says nothing of the beginning
            yield _Told(one.state, begin, duration, origin_text(replace(one.begin, slack_s=slack_s)))
        end = self.story.periods[-1].end if self.story.periods else None
        if end is not None:
            yield _Told(State.CLOSED, moment_clock(end), "", origin_text(end))

    @property
    def why(self) -> str:
        return f"No trace ({self.no_trace}): times are exact to a poll." if self.no_trace else ""

    def draw(self, width: int, colours: Palette) -> Sequence[Line]:
        told = list(self.told)
        if not _fits(told, width):
            told = [_shorter(one) for one in told]
        cells, over = max((len(one.duration) for one in told), default=0), width if _fits(told, width) else 0
        lines = [line for one in told for line in _state_lines(one, cells, over, colours)]
        if not told:
            silent = _UNKNOWN if self.asked else "They come with the next poll."
            lines += [((_INDENT + words, colours.dim),) for words in wrapped(silent, width - 4)]
        lines += [((_INDENT + words, colours.dim),) for words in wrapped(self.why, width - 4) if words]
        return lines

    def plain(self) -> Sequence[str]:
        lines = [f"{one.state.name}: {', '.join(filter(None, one[1:]))}" for one in self.told]
        return [*lines, self.why] if self.why else lines


def _fits(told: Sequence[_Told], width: int) -> bool:
    rest = max((len(one.duration) for one in told), default=0) + max((len(one.known) for one in told), default=0)
    return len(_INDENT) + _NAME + 1 + _CLOCK + 2 + rest + 3 <= width


def _shorter(one: _Told) -> _Told:
    """For a narrow column."""
    duration = one.duration.replace("at least", "≥").replace("at most", "≤")
    known = one.known.replace("polled ", "").replace("destroy event", "event")
    return one._replace(duration=duration, known=known)


def _state_lines(one: _Told, cells: int, width: int, colours: Palette) -> Iterator[Line]:
    """One line over `width` cells, or two short ones where that is 0."""
    style = state_style(one.state, colours) if one.duration else colours.strong
    name = (_INDENT, colours.plain), (f"{STATE_LETTERS[one.state]} {one.state.name:<{_NAME - 2}} ", style)
    duration = (f"{one.duration:>{cells}}", colours.dim if one.duration == UNKNOWN_DURATION else colours.plain)
    if width:
        line: Line = (*name, (f"{one.clock:<{_CLOCK}}  ", colours.plain), duration)
        gap = width - 1 - cells_of(line) - len(one.known)
        yield (*line, (" " * gap + one.known, colours.dim))
    else:
        yield (*name, duration)
        yield ((f"{_INDENT}  {one.clock} {one.known}", colours.dim),)


def states_block(story: History, now: float, no_trace: str, asked: bool = True) -> Block:
    """Each state, when it began, how long it lasted, and how that is known; `asked`: since it is watched, in a poll."""
    states = _States(story, now, no_trace, asked)
    return Block("States", states.draw, states.plain)


# Incidents ---------------------------------------------------------------------------------------

_WORDS = {
    TransitionKind.RETRANSMITTED: ("retransmitted", "retransmissions"),
    TransitionKind.RESET_SENT: ("reset sent", "resets sent"),
    TransitionKind.RESET_RECEIVED: ("reset received", "resets received"),
    TransitionKind.DROPPED: ("dropped", "segments dropped"),
    TransitionKind.ERROR: ("error told", "errors told"),
}
_ONE = {TransitionKind.RETRANSMITTED: "retransmission", TransitionKind.DROPPED: "segment dropped"}
_WHAT = max(len(each) for each, _ in _WORDS.values())


@dataclass(frozen=True, slots=True)
class _Incidents:
    incidents: Sequence[Transition]
    trace: TraceStats

    @property
    def counts(self) -> str:
        """`3 retransmissions, 1 reset received`."""
        counted = Counter(one.kind for one in self.incidents)
        return ", ".join(
            f"{units.count(counted[what])} {several if counted[what] > 1 else _ONE.get(what, single)}"
            for what, (single, several) in _WORDS.items()
            if counted[what]
        )

    @property
    def latest(self) -> list[tuple[str, TransitionKind, str]]:
        """Clock, what and why of the last ones."""
        return [
            (clock(one.time, one.origin is not Origin.POLL), one.kind, self._why(one))
            for one in self.incidents[-_LATEST:]
        ]

    def _why(self, one: Transition) -> str:
        """The kernel's name of the reason, or its number."""
        return self.trace.reasons(one.kind).get(one.reason, f"reason {one.reason}") if one.reason else ""

    @property
    def left_out(self) -> str:
        more = len(self.incidents) - _LATEST
        return f"The last {_LATEST} of {units.count(len(self.incidents))}:" if more > 0 else ""

    def draw(self, width: int, colours: Palette) -> Sequence[Line]:
        lines: list[Line] = [((_INDENT + words, colours.plain),) for words in wrapped(self.counts, width - 4)]
        if self.left_out:
            lines.append(((_INDENT + fit(self.left_out, width - 4), colours.dim),))
        for when, what, why in self.latest:
            head = f"{_INDENT}{when:<{_CLOCK}}  "
            word = fit(_WORDS[what][0], max(1, min(_WHAT, width - len(head) - 1)))
            line: Line = ((head, colours.dim), (word, colours.warning))
            if cells_of(line) + 2 + len(why) < width:
                lines.append((*line, (f"  {why}" if why else "", colours.plain)))
            else:
                lines += [line, ((fit("     " + why, max(1, width - 1)), colours.plain),)]
        return lines

    def plain(self) -> Sequence[str]:
        told = [" ".join(filter(None, (when, _WORDS[what][0], why))) for when, what, why in self.latest]
        return [self.counts, *filter(None, [self.left_out]), *told]


def incident_blocks(story: History, trace: TraceStats) -> list[Block]:
    """Retransmissions, resets and drops; nothing where there were none."""
    if not story.incidents:
        return []
    incidents = _Incidents(story.incidents, trace)
    return [Block("Incidents", incidents.draw, incidents.plain)]
