"""Story: one flow's states with their times, put together from what polls, destroy events and the trace told of it.

The trace is exact and tells every change of a full socket. It is blind to half-open connections, to TIME_WAIT and to an
orphan's FIN_WAIT_2 (kernel-facts: Events): there a CLOSED stands where the full socket ended, and polls tell the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tcpwatch.model.lifecycle.transitions import Origin, Transition, TransitionKind
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import State

_TICK_S = 0.02
"""Times of the kernel's timers and of its trace, and ours, put together."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A time, and how it is known."""

    time: float
    """Unix seconds."""
    origin: Origin
    slack_s: float = 0.0
    """So much earlier it may have been; NaN: nobody knows how much."""


@dataclass(frozen=True, slots=True)
class StatePeriod:
    """One state of a flow."""

    state: State
    begin: Moment
    end: Moment | None
    """None while it lasts."""
    began_earlier: bool = False
    """It was in this state when we began to look: it began earlier."""

    def duration_s(self, now: float) -> float:
        """How long it lasted, or has lasted till now."""
        return (self.end.time if self.end else now) - self.begin.time


def begins_with_last_ack(stretch: StatePeriod, first: bool) -> bool:
    """How long it lasted is not told; `first`: it is the first of its flow.

    The kernel makes the socket of an accepted connection, and traces it, when the last ACK comes: a SYN_RCVD that only
    the trace told of seems to begin there.
    """
    return first and stretch.state is State.SYN_RCVD and stretch.begin.origin is Origin.TRACE


@dataclass(frozen=True, slots=True)
class History:
    """What is known of one flow."""

    periods: tuple[StatePeriod, ...] = ()
    """In the order of time, without gaps; the last one goes on while the flow lives, or is in TIME_WAIT."""
    incidents: tuple[Transition, ...] = ()
    """Retransmissions, resets and drops."""


def build_history(told: Sequence[Transition], first: StatePeriod | None = None, now: State | None = None) -> History:
    """What `told` (of one flow, in the order of time) says.

    `first` is the state in which it was first known; it is all there is where nothing was told. `now` is the state in
    which the table has it; None where it has it no more.
    """
    changes = [one for one in told if one.kind is TransitionKind.STATE]
    incidents = tuple(one for one in told if one.kind is not TransitionKind.STATE)
    if not changes:
        return History((first,) if first else (), incidents)
    lives = list(_lives(changes))
    told_of = [_merged(life, now if life is lives[-1] else None) for life in lives]
    return History(tuple(_stretches([change for life in told_of for change in life], first)), incidents)


def _lives(changes: Sequence[Transition]) -> Iterator[list[Transition]]:
    """A socket may be connected again after it was refused, or after tcp_disconnect(): each of its lives by itself."""
    life: list[Transition] = []
    for change in changes:
        if change.new is State.SYN_SENT and any(_is_end(one) for one in life):
            yield life
            life = []
        life.append(change)
    yield life


def first_known(rows: Rows, row: int, slack_s: float, state_only: bool = False) -> StatePeriod:
    """Return the present state of this row as a period that began when the connection was first seen.

    `slack_s` is the time between two polls. With `state_only` the period begins with the present state: the states
    before it are not known any more.
    """
    state, first_seen, since = State(int(rows.state[row])), float(rows.first_seen[row]), float(rows.since[row])
    if state_only and since > first_seen:
        return StatePeriod(state, Moment(since, Origin.POLL, math.nan), None, began_earlier=True)
    seen = bool(rows.begin_seen[row])
    begin = Moment(first_seen, Origin.POLL, slack_s if seen else math.nan)
    return StatePeriod(state, begin, None, began_earlier=not seen)


_ORIGINS = {int(origin) for origin in Origin}


def record_begin(record: np.void) -> Moment:
    """Of a closed flow (past.CLOSED)."""
    slack = float(record["begin_slack"])
    return Moment(float(record["begin"]), Origin.TRACE if slack == 0 else Origin.POLL, slack)


def record_end(record: np.void) -> Moment:
    """The same."""
    origin = int(record["origin"])
    known = Origin(origin) if origin in _ORIGINS else Origin.POLL
    return Moment(float(record["end"]), known, float(record["end_slack"]))


def first_known_of_record(record: np.void) -> StatePeriod | None:
    """As first_known, of a closed flow: as if all its life it had been in its last state, if that is known."""
    begin, state = record_begin(record), int(record["state"])
    return StatePeriod(State(state), begin, record_end(record), math.isnan(begin.slack_s)) if state else None


def _merged(changes: Sequence[Transition], now: State | None) -> list[Transition]:
    """The changes without those that others tell better; CLOSED only where the flow ended there."""
    traced = [one for one in changes if one.origin is Origin.TRACE]
    kept = [one for one in changes if not _told_better(one, traced)]
    kept = sorted(_after_full(kept, now), key=lambda one: one.time)
    ends = [one for one in kept if _is_end(one)]
    if not ends:
        return kept
    # What a poll or a late event said of the end, the trace, or whoever was first, said already.
    end = next((one for one in ends if one.origin is Origin.TRACE), ends[0])
    return [one for one in kept if not _is_end(one) and one.time <= end.time] + [end]


def _is_end(one: Transition) -> bool:
    return one.new is None or one.new is State.CLOSED


def _told_better(one: Transition, traced: Sequence[Transition]) -> bool:
    """A poll says what the trace had said by then."""
    if one.origin is not Origin.POLL or one.new is None:
        return False
    return any(it.time <= one.time and one.new in (it.old, it.new) for it in traced)


def _after_full(changes: Sequence[Transition], now: State | None) -> list[Transition]:
    """The full socket's CLOSED, where a small one went on: then it began there, or FIN_WAIT_2 did not end."""
    closed = _first(one for one in changes if one.new is State.CLOSED)
    if closed is None:
        return list(changes)
    waits = _first(one for one in changes if one.new is State.TIME_WAIT)
    if waits is not None:
        others = [one for one in changes if one.new not in (State.CLOSED, State.TIME_WAIT)]
        half = any(one.new is State.FIN_WAIT_2 and one.time >= closed.time for one in others)
        # An event tells that the full socket ended: an orphan may have been in FIN_WAIT_2 for a while after that.
        exact = closed.origin is Origin.TRACE and abs(closed.time - waits.time) <= waits.slack_s + _TICK_S
        begin = replace(closed, new=State.TIME_WAIT, old=waits.old) if exact and not half else waits
        return [*others, begin]
    if now is State.TIME_WAIT:
        return [replace(one, new=now) if one is closed else one for one in changes]
    half = any(one.new is None and one.old is State.FIN_WAIT_2 and one.time >= closed.time for one in changes)
    return [one for one in changes if one is not closed] if half or now is State.FIN_WAIT_2 else list(changes)


def _first(changes: Iterable[Transition]) -> Transition | None:
    """The one whose origin is the most exact; of equal ones the earliest."""
    return min(changes, key=lambda one: (-one.origin, one.time), default=None)


def _stretches(changes: Sequence[Transition], first: StatePeriod | None) -> Iterable[StatePeriod]:
    begun: StatePeriod | None = None
    opening = changes[0]
    if opening.old is not None:
        known = first is not None and first.begin.time < opening.time
        begin = first.begin if first and known else _moment(opening)
        begun = StatePeriod(opening.old, begin, None, began_earlier=first.began_earlier if first and known else True)
    for change in changes:
        if begun is not None and change.new is begun.state:
            continue
        if begun is not None:
            yield replace(begun, end=_moment(change))
        begun = None if _is_end(change) else StatePeriod(State(change.new or 0), _moment(change), None)
        if begun is None and change is not changes[-1]:
            begun = StatePeriod(State.CLOSED, _moment(change), None)
    if begun is not None:
        yield begun


def _moment(change: Transition) -> Moment:
    return Moment(change.time, change.origin, change.slack_s)
