"""Timeline and ending of every path through the state diagram that the lab can produce.

All scenarios are played at the same time, four times: with and without the trace, with a poll in each state and without
polls in between. They are compared with the kernel's own text of the trace; without the trace, with what the test saw.
"""

from __future__ import annotations

import math
import socket
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from tcpwatch.model.lifecycle.ending import Ending, sentence
from tcpwatch.model.lifecycle.history import History, Moment
from tcpwatch.model.lifecycle.transitions import Origin
from tcpwatch.model.states import State
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.lab.lifetimes import killed, orderly, queued, silent, torn, unreachable
from tests.lab.lifetimes.lifetimes import NO_SOCKET, SCENARIOS, Played, Scenario, played
from tests.lab.machine.requirements import tracefs
from tests.lab.trace_text import TraceEvent, TraceText
from tests.support.kernel import ss

MODULES = (orderly, torn, killed, queued, silent, unreachable)  # importing them fills SCENARIOS
EXACT_S = 0.001
LENIENT_S = 0.002  # changes during a sample, and the difference of two clocks
SETTLED_S = 2.0  # destroy events arrive some ms late
ORDERLY = {"BY_US", "BY_PEER", "AT_ONCE"}


class Mode(NamedTuple):
    trace: bool
    polls: bool

    def __str__(self) -> str:
        return f"{'trace' if self.trace else 'no trace'}, {'polls' if self.polls else 'no polls'}"


MODES = [Mode(trace, polls) for trace in (True, False) for polls in (True, False)]


class Interval(NamedTuple):
    """The true time lies between these two; time.monotonic()."""

    earliest: float
    latest: float


Times = dict[str, list[Interval]]


@dataclass(frozen=True, slots=True)
class Shown:
    """One scenario, and what tcpwatch shows of it."""

    played: Played
    mode: Mode
    history: History
    ending: Ending | None
    record: np.void | None
    traced: Times
    """Times of each state by the text of the trace; NO_SOCKET: when the full socket closed."""
    seen: Times
    """Times of each state as the test saw them; NO_SOCKET: when the kernel no longer had a row."""
    wall: float
    """Add this to time.monotonic() to get Unix seconds."""

    @property
    def scenario(self) -> Scenario:
        return self.played.scenario

    @property
    def states(self) -> tuple[str, ...]:
        """States on the timeline, without CLOSED: a socket that connects twice is CLOSED between its connections."""
        return short(it.state.name for it in self.history.periods if it.state is not State.CLOSED)

    @property
    def is_known(self) -> bool:
        """Whether tcpwatch must know the connection: by a poll, or by the end of its full socket."""
        return self.mode.polls or (self.scenario.full and self.scenario.freed)


def short(states: Iterator[str] | Sequence[str]) -> tuple[str, ...]:
    """Drop states that repeat the one before."""
    return tuple(state for state, _ in groupby(states))


def is_within(part: Sequence[str], whole: Sequence[str]) -> bool:
    """Return whether `part` is a subsequence of `whole`."""
    left = iter(whole)
    return all(it in left for it in part)


# Playing and watching ---------------------------------------------------------------------------


@pytest.fixture(scope="module", params=MODES, ids=str)
def mode(request: pytest.FixtureRequest) -> Mode:
    found: Mode = request.param
    return found


@pytest.fixture(scope="module")
def shown(mode: Mode) -> Iterator[dict[str, Shown]]:
    """All scenarios, by name."""
    lab.require(lab.namespaces, lab.tun, lab.ipv6, lab.program("ip"))
    if mode.trace:
        lab.require(tracefs)
    with ExitStack() as stack:
        namespace = stack.enter_context(lab.Namespace())
        peer = stack.enter_context(lab.Peer(namespace))
        text = stack.enter_context(TraceText()) if not tracefs() else None
        stack.enter_context(socket.create_server(("127.0.0.1", 0)))  # a socket that is always there
        monitor = stack.enter_context(closing(Monitor(LiveSource(events=True, trace=mode.trace))))
        watch = Watch(monitor, mode)
        watch.look()
        cast = stack.enter_context(played(namespace, peer, SCENARIOS.values(), watch.look if mode.polls else None))
        watch.settle(cast)
        yield {it.scenario.name: it for it in watch.shown(cast, text.read() if text else [])}


class Watch:
    """Polls, and notes the cookies of each scenario."""

    def __init__(self, monitor: Monitor, mode: Mode) -> None:
        self._monitor = monitor
        self._mode = mode
        self._cookies: dict[str, list[int]] = defaultdict(list)
        """By the peer's address, which stays when tcp_disconnect() clears the ports; oldest first."""

    def look(self) -> View:
        view = self._monitor.step()
        self._note(view.rows.table)
        return view

    def settle(self, cast: Sequence[Played]) -> None:
        """Wait until every end that must be reported is known."""
        due = [it for it in cast if it.scenario.full and it.scenario.freed and it.scenario.endings]
        with suppress(TimeoutError):  # the tests say what is missing
            lab.wait_until(lambda: self._all_ended(due), "the ends", SETTLED_S)

    def shown(self, cast: Sequence[Played], reported: Sequence[TraceEvent]) -> list[Shown]:
        archive = self.look().archive
        cookies = []
        for each in cast:
            known = self._cookies[each.actor.host]
            ended = [it for it in known if archive.last_record(it) is not None]
            cookies.append(next(iter(ended or known), 0))
        self._monitor.watched = frozenset(cookies)
        view = self.look()
        wall = view.sample.time - view.sample.monotonic
        return [
            Shown(
                each,
                self._mode,
                view.details[cookie].history,
                view.details[cookie].ending,
                view.archive.last_record(cookie),
                traced_times(each, reported),
                seen_times(each),
                wall,
            )
            for each, cookie in zip(cast, cookies, strict=True)
        ]

    def _all_ended(self, due: Sequence[Played]) -> bool:
        archive = self.look().archive
        for chunk in archive.records:
            self._note(chunk["row"])
        return all(
            any(archive.last_record(cookie) is not None for cookie in self._cookies[it.actor.host]) for it in due
        )

    def _note(self, table: NDArray[np.void]) -> None:
        for row in table:
            known, cookie = self._cookies[ss.row_ends(row)[1].address], int(row["idiag_cookie"])
            if cookie not in known:
                known.append(cookie)


def traced_times(played: Played, reported: Sequence[TraceEvent]) -> Times:
    """Return the times of each state by the text of the trace."""
    connections = (*played.actor.earlier, played.actor.connection)
    # A second connect() may begin with the previous port.
    ends = {(one.local.port, it.remote.port) for it in connections for one in connections}
    changes = [it for it in reported if it.event == "inet_sock_set_state"]
    sockets = {it.socket for it in changes if (it.local_port, it.remote_port) in ends}
    # A connecting socket has no local port at first.
    ends.update((0, it.remote.port) for it in connections)
    times: Times = defaultdict(list)
    for it in changes:
        if it.socket in sockets and (it.local_port, it.remote_port) in ends:
            state = it.new if it.new != "CLOSED" else NO_SOCKET
            times[state].append(Interval(it.time, it.time))
    # TIME_WAIT begins when the full socket closes, unless an orphan in FIN_WAIT_2 comes in between.
    waits = [it for it in played.marks if it.state == "TIME_WAIT"]
    times["TIME_WAIT"] = [
        one for one in times[NO_SOCKET] if any(it.earliest <= one.latest and one.earliest <= it.latest for it in waits)
    ]
    return times


def seen_times(played: Played) -> Times:
    times: Times = defaultdict(list)
    for mark in played.marks:
        times[mark.state].append(Interval(mark.earliest, mark.latest))
    return times


# States -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENARIOS)
def test_timeline(shown: dict[str, Shown], name: str) -> None:
    it = shown[name]
    truth = short(it.scenario.states)
    if not it.is_known:
        assert it.states in ((), truth)
    elif not it.mode.trace:
        assert is_within(it.states, truth)
        assert is_within(short(it.played.sights), it.states)
    elif it.mode.polls:
        assert it.states == truth
    else:
        # Without a cookie before it became small, the small socket gets a cookie of its own.
        assert it.states in (truth, tuple(state for state in truth if state != "TIME_WAIT"))

    check_times(it)


def check_times(it: Shown) -> None:
    periods = it.history.periods
    for one, following in pairwise(periods):
        assert one.end == following.begin
        assert one.begin.time <= following.begin.time
    for period in periods:
        if not period.began_earlier:
            check_moment(it, period.begin, period.state.name)
    if periods and it.played.state == NO_SOCKET:
        assert periods[-1].end is not None
        check_moment(it, periods[-1].end, NO_SOCKET)


def check_moment(it: Shown, moment: Moment, state: str) -> None:
    """Compare a moment with the true time: exactly if the trace reported it, within the slack otherwise."""
    time = moment.time - it.wall
    if moment.origin is Origin.TRACE and it.traced:
        times, within_s, slack_s = it.traced[state], EXACT_S, 0.0
    else:
        # A half-open connection precedes its full socket, a small socket follows it.
        both = state in (NO_SOCKET, "SYN_RCVD")
        times = it.seen[state] + it.traced[state] if both else it.traced[state] or it.seen[state]
        within_s, slack_s = LENIENT_S, moment.slack_s
    if times:
        late = [time - one.earliest for one in times]
        early = [one.latest - (time - (math.inf if math.isnan(slack_s) else slack_s)) for one in times]
        fits = [a >= -within_s and b >= -within_s for a, b in zip(late, early, strict=True)]
        assert any(fits), f"{state or 'the end'}: {moment}, late by {late}, left of the slack: {early}"


# Endings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENARIOS)
def test_ending(shown: dict[str, Shown], name: str) -> None:
    it = shown[name]
    assert (it.ending.name if it.ending is not None else None) in possible_endings(it)
    if it.record is not None:
        check_record(it, it.record)


def possible_endings(it: Shown) -> set[str | None]:
    """Return the endings that tcpwatch may show."""
    if not it.scenario.endings:
        return {None}
    right: set[str | None] = set(it.scenario.endings if it.mode.trace or not it.scenario.full else it.scenario.less)
    if it.mode.polls and it.scenario.endings[0] in ORDERLY and len(it.scenario.endings) == 1:
        right = set(it.scenario.endings)  # known from the polled states
    if not it.mode.polls and "NOT_ACCEPTED" in right:
        right.add("RESET_SENT")  # only a poll can see that it was not accepted
    return right if it.is_known else {*right, None}


def check_record(it: Shown, record: np.void) -> None:
    """Check the time of the end and the last state that the record keeps."""
    slack_s = float(record["end_slack"])
    # If a small socket followed, only the text of the trace has the time when the full socket closed.
    if it.traced[NO_SOCKET] or it.scenario.states[-1] not in ("TIME_WAIT", "FIN_WAIT_2"):
        check_moment(it, Moment(float(record["end"]), Origin(int(record["origin"])), slack_s), NO_SOCKET)
    last = State(int(record["state"])) if record["state"] else None
    if it.mode.trace and it.scenario.full:
        assert last is not None
        assert last.name == [state for state in it.scenario.states if state != "TIME_WAIT"][-1]
    assert last is None or last.name in it.scenario.states
    text = sentence(Ending(int(record["ending"])), last)
    assert text.endswith(".")
    assert not any(f" {state.name}" in text for state in State if state.name not in it.scenario.states)
