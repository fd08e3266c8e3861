"""History: the states of one connection with their times, from polls, destroy events and the trace.

The trace is exact and reports every change of a full socket. It reports neither half-open connections, nor TIME_WAIT,
nor the FIN_WAIT_2 of an orphan: its CLOSED is the end of the full socket, and polls report what follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tcpwatch.model.lifecycle.transitions import Origin, Transition, TransitionKind
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import State

TICK_S = 0.02
"""Error from combining the times of kernel timers, of the trace, and of our clock."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A time, and what reported it."""

    time: float
    """Unix seconds."""
    origin: Origin
    slack_s: float = 0.0
    """Uncertainty in seconds: it happened in [time - slack_s, time]; NaN if there is no lower limit."""


@dataclass(frozen=True, slots=True)
class StatePeriod:
    """A time that a connection spent in one state."""

    state: State
    begin: Moment
    end: Moment | None
    """None while it lasts."""
    began_earlier: bool = False
    """The first sample saw it in this state already: it began before `begin`."""

    def duration_s(self, now: float) -> float:
        """Return how long it lasted, or has lasted until now."""
        return (self.end.time if self.end else now) - self.begin.time


def begins_with_last_ack(period: StatePeriod, first: bool) -> bool:
    """Return whether the period seems to begin with the last ACK of the handshake, so that its length is not known.

    The kernel creates and traces the socket of an accepted connection when the last ACK arrives. A SYN_RCVD that only
    the trace reported seems to begin then. `first`: the period is the first of its connection.
    """
    return first and period.state is State.SYN_RCVD and period.begin.origin is Origin.TRACE


@dataclass(frozen=True, slots=True)
class History:
    """The known states of one connection."""

    periods: tuple[StatePeriod, ...] = ()
    """In the order of time, without gaps; the last one has no end while the socket exists."""
    incidents: tuple[Transition, ...] = ()
    """Retransmissions, resets, drops and errors."""


def build_history(
    transitions: Sequence[Transition], first: StatePeriod | None = None, now: State | None = None
) -> History:
    """Return the history of one connection from its transitions, which are in the order of time.

    `first` is the state in which it was first known, used alone if there are no changes of state. `now` is its present
    state; None if the socket does not exist any more.
    """
    changes = [change for change in transitions if change.kind is TransitionKind.STATE]
    incidents = tuple(change for change in transitions if change.kind is not TransitionKind.STATE)
    if not changes:
        return History((first,) if first else (), incidents)
    uses = list(_split_at_reconnects(changes))
    merged = [_merged(use, now if use is uses[-1] else None) for use in uses]
    return History(tuple(_periods([change for use in merged for change in use], first)), incidents)


def _split_at_reconnects(changes: Sequence[Transition]) -> Iterator[list[Transition]]:
    """Yield the changes of each use of a socket: after a refusal or tcp_disconnect() it may be connected again."""
    use: list[Transition] = []
    for change in changes:
        if change.new is State.SYN_SENT and any(_is_end(earlier) for earlier in use):
            yield use
            use = []
        use.append(change)
    yield use


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
    """Return the begin of a closed connection (archive.RECORD)."""
    slack = float(record["begin_slack"])
    return Moment(float(record["begin"]), Origin.TRACE if slack == 0 else Origin.POLL, slack)


def record_end(record: np.void) -> Moment:
    """Return the end of a closed connection (archive.RECORD)."""
    origin = int(record["origin"])
    known = Origin(origin) if origin in _ORIGINS else Origin.POLL
    return Moment(float(record["end"]), known, float(record["end_slack"]))


def first_known_of_record(record: np.void) -> StatePeriod | None:
    """Like first_known, for a closed connection: assume that the last known state lasted for the whole connection."""
    begin, state = record_begin(record), int(record["state"])
    return StatePeriod(State(state), begin, record_end(record), math.isnan(begin.slack_s)) if state else None


def _merged(changes: Sequence[Transition], now: State | None) -> list[Transition]:
    """Return the changes without those that another origin reported better; CLOSED only at the end."""
    traced = [change for change in changes if change.origin is Origin.TRACE]
    kept = [change for change in changes if not _is_in_trace(change, traced)]
    kept = sorted(_with_small_socket(kept, now), key=lambda change: change.time)
    ends = [change for change in kept if _is_end(change)]
    if not ends:
        return kept
    # The trace, or else the first report, has the best time of the end: ignore the later ones.
    end = next((change for change in ends if change.origin is Origin.TRACE), ends[0])
    return [change for change in kept if not _is_end(change) and change.time <= end.time] + [end]


def _is_end(change: Transition) -> bool:
    return change.new is None or change.new is State.CLOSED


def _is_in_trace(change: Transition, traced: Sequence[Transition]) -> bool:
    """Return whether the trace had reported the state of this poll before the poll saw it."""
    if change.origin is not Origin.POLL or change.new is None:
        return False
    return any(earlier.time <= change.time and change.new in (earlier.old, earlier.new) for earlier in traced)


def _with_small_socket(changes: Sequence[Transition], now: State | None) -> list[Transition]:
    """Return the changes where the CLOSED of a full socket is replaced if a small socket continued the connection.

    TIME_WAIT then begins with that CLOSED, or FIN_WAIT_2 continues.
    """
    closed = _best(change for change in changes if change.new is State.CLOSED)
    if closed is None:
        return list(changes)
    time_wait = _best(change for change in changes if change.new is State.TIME_WAIT)
    if time_wait is not None:
        others = [change for change in changes if change.new not in (State.CLOSED, State.TIME_WAIT)]
        orphan = any(change.new is State.FIN_WAIT_2 and change.time >= closed.time for change in others)
        orphan |= closed.origin is Origin.TRACE and time_wait.old is State.FIN_WAIT_2
        # A destroy event reports the end of the full socket; an orphan may be in FIN_WAIT_2 for a while after that.
        exact = closed.origin is Origin.TRACE and abs(closed.time - time_wait.time) <= time_wait.slack_s + TICK_S
        begin = replace(closed, new=State.TIME_WAIT, old=time_wait.old) if exact and not orphan else time_wait
        return [*others, begin]
    waited = any(change.new is None and change.old is State.TIME_WAIT for change in changes)
    if waited or now is State.TIME_WAIT:
        return [replace(change, new=State.TIME_WAIT) if change is closed else change for change in changes]
    orphan = any(
        change.new is None and change.old is State.FIN_WAIT_2 and change.time >= closed.time for change in changes
    )
    if orphan or now is State.FIN_WAIT_2:
        return [change for change in changes if change is not closed]
    return list(changes)


def _best(changes: Iterable[Transition]) -> Transition | None:
    """Return the change with the most exact origin, the earliest of equal ones."""
    return min(changes, key=lambda change: (-change.origin, change.time), default=None)


def _periods(changes: Sequence[Transition], first: StatePeriod | None) -> Iterable[StatePeriod]:
    present: StatePeriod | None = None
    opening = changes[0]
    if opening.old is not None:
        if first is not None and first.begin.time < opening.time:
            present = StatePeriod(opening.old, first.begin, None, first.began_earlier)
        else:
            present = StatePeriod(opening.old, _moment(opening), None, began_earlier=True)
    for change in changes:
        if present is not None and change.new is present.state:
            continue
        if present is not None:
            yield replace(present, end=_moment(change))
        present = None if _is_end(change) else StatePeriod(State(change.new or 0), _moment(change), None)
        if present is None and change is not changes[-1]:
            present = StatePeriod(State.CLOSED, _moment(change), None)
    if present is not None:
        yield present


def _moment(change: Transition) -> Moment:
    return Moment(change.time, change.origin, change.slack_s)
