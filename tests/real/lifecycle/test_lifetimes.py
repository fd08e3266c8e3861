"""Every path through the state diagram that the lab can make: its timeline and its ending words are right.

All scenarios are played at the same time, four times: with and without the trace, with a poll in each state and with
none in between. The kernel's own text of the trace is the truth; where there is none, what the test saw and when.
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
from tests.lab.lifetimes.lifetimes import GONE, LIVES, Life, Played, played
from tests.lab.machine.requirements import tracefs
from tests.lab.trace_text import Told, TraceText
from tests.support import ss

MADE_BY = (orderly, torn, killed, queued, silent, unreachable)  # each fills LIVES
EXACT_S = 0.001
LENIENT_S = 0.002  # what changes while a sample is taken, and one clock against the other
SETTLED_S = 2.0  # destroy events are late, some ms
ORDERLY = {"BY_US", "BY_PEER", "AT_ONCE"}


class Mode(NamedTuple):
    trace: bool
    polls: bool

    def __str__(self) -> str:
        return f"{'trace' if self.trace else 'no trace'}, {'polls' if self.polls else 'no polls'}"


MODES = [Mode(trace, polls) for trace in (True, False) for polls in (True, False)]


class Interval(NamedTuple):
    """The truth lies between; time.monotonic()."""

    earliest: float
    latest: float


Times = dict[str, list[Interval]]


@dataclass(frozen=True, slots=True)
class Shown:
    """One scenario, and what is shown of it."""

    played: Played
    mode: Mode
    story: History
    ending: Ending | None
    record: np.void | None
    traced: Times
    """When it came into each state, says the trace's text; GONE: when the full socket closed."""
    seen: Times
    """The same, says the test; GONE: when the kernel had no row of it any more."""
    wall: float
    """What turns time.monotonic() into Unix seconds."""

    @property
    def life(self) -> Life:
        return self.played.life

    @property
    def states(self) -> tuple[str, ...]:
        """As the timeline shows them; CLOSED between two lives of one socket is no state of a connection."""
        return short(it.state.name for it in self.story.periods if it.state is not State.CLOSED)

    @property
    def is_known(self) -> bool:
        """Polls or the end of a full socket reported it."""
        return self.mode.polls or (self.life.full and self.life.freed)


def short(states: Iterator[str] | Sequence[str]) -> tuple[str, ...]:
    """Each once, as long as it lasts."""
    return tuple(state for state, _ in groupby(states))


def is_within(part: Sequence[str], whole: Sequence[str]) -> bool:
    """A subsequence."""
    left = iter(whole)
    return all(it in left for it in part)


# Playing and watching ---------------------------------------------------------------------------


@pytest.fixture(scope="module", params=MODES, ids=str)
def mode(request: pytest.FixtureRequest) -> Mode:
    found: Mode = request.param
    return found


@pytest.fixture(scope="module")
def shown(mode: Mode) -> Iterator[dict[str, Shown]]:
    """All lives, by name."""
    lab.require(lab.namespaces, lab.tun, lab.ipv6, lab.program("ip"))
    if mode.trace:
        lab.require(tracefs)
    with ExitStack() as stack:
        namespace = stack.enter_context(lab.Namespace())
        peer = stack.enter_context(lab.Peer(namespace))
        text = stack.enter_context(TraceText()) if not tracefs() else None
        stack.enter_context(socket.create_server(("127.0.0.1", 0)))  # somebody who is there all the time
        monitor = stack.enter_context(closing(Monitor(LiveSource(events=True, trace=mode.trace))))
        watch = Watch(monitor, mode)
        watch.look()
        cast = stack.enter_context(played(namespace, peer, LIVES.values(), watch.look if mode.polls else None))
        watch.settle(cast)
        yield {it.life.name: it for it in watch.shown(cast, text.read() if text else [])}


class Watch:
    """Polls, and finds out which cookies the lives have."""

    def __init__(self, monitor: Monitor, mode: Mode) -> None:
        self._monitor = monitor
        self._mode = mode
        self._cookies: dict[str, list[int]] = defaultdict(list)
        """By the peer's address, which stays when tcp_disconnect() takes the ports; oldest first."""

    def look(self) -> View:
        view = self._monitor.step()
        self._note(view.rows.table)
        return view

    def settle(self, cast: Sequence[Played]) -> None:
        """Until the end of each is known that has one."""
        due = [it for it in cast if it.life.full and it.life.freed and it.life.endings]
        with suppress(TimeoutError):  # the tests say what is missing
            lab.wait_until(lambda: self._all_ended(due), "the ends", SETTLED_S)

    def shown(self, cast: Sequence[Played], reported: Sequence[Told]) -> list[Shown]:
        past = self.look().archive
        cookies = []
        for each in cast:
            known = self._cookies[each.actor.host]
            ended = [it for it in known if past.last_record(it) is not None]
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
        past = self.look().archive
        for chunk in past.records:
            self._note(chunk["row"])
        return all(any(past.last_record(cookie) is not None for cookie in self._cookies[it.actor.host]) for it in due)

    def _note(self, table: NDArray[np.void]) -> None:
        for row in table:
            known, cookie = self._cookies[ss.row_ends(row)[1].address], int(row["idiag_cookie"])
            if cookie not in known:
                known.append(cookie)


def traced_times(played: Played, reported: Sequence[Told]) -> Times:
    """What the text of the trace says of this life."""
    connections = (*played.actor.earlier, played.actor.connection)
    # Called again it may begin with the port that it had before.
    ends = {(one.local.port, it.remote.port) for it in connections for one in connections}
    changes = [it for it in reported if it.event == "inet_sock_set_state"]
    sockets = {it.socket for it in changes if (it.local_port, it.remote_port) in ends}
    # A socket that calls has no port of its own at first.
    ends.update((0, it.remote.port) for it in connections)
    times: Times = defaultdict(list)
    for it in changes:
        if it.socket in sockets and (it.local_port, it.remote_port) in ends:
            state = it.new if it.new != "CLOSED" else GONE
            times[state].append(Interval(it.time, it.time))
    # Where the full socket closed TIME_WAIT begins, unless an orphan in FIN_WAIT_2 comes in between.
    waits = [it for it in played.marks if it.state == "TIME_WAIT"]
    times["TIME_WAIT"] = [
        one for one in times[GONE] if any(it.earliest <= one.latest and one.earliest <= it.latest for it in waits)
    ]
    return times


def seen_times(played: Played) -> Times:
    times: Times = defaultdict(list)
    for mark in played.marks:
        times[mark.state].append(Interval(mark.earliest, mark.latest))
    return times


# States -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIVES)
def test_the_timeline_is_right(shown: dict[str, Shown], name: str) -> None:
    it = shown[name]
    truth = short(it.life.states)
    if not it.is_known:
        assert it.states in ((), truth)
    elif not it.mode.trace:
        assert is_within(it.states, truth)
        assert is_within(short(it.played.sights), it.states)
    elif it.mode.polls:
        assert it.states == truth
    else:
        # Nobody gave it a cookie before it became small: then the small socket has one of its own.
        assert it.states in (truth, tuple(state for state in truth if state != "TIME_WAIT"))

    check_times(it)


def check_times(it: Shown) -> None:
    periods = it.story.periods
    for one, following in pairwise(periods):
        assert one.end == following.begin
        assert one.begin.time <= following.begin.time
    for period in periods:
        if not period.began_earlier:
            check_moment(it, period.begin, period.state.name)
    if periods and it.played.state == GONE:
        assert periods[-1].end is not None
        check_moment(it, periods[-1].end, GONE)


def check_moment(it: Shown, moment: Moment, state: str) -> None:
    """The truth is within the moment: exact if the trace reported it, within the slack otherwise."""
    time = moment.time - it.wall
    if moment.origin is Origin.TRACE and it.traced:
        times, within_s, slack_s = it.traced[state], EXACT_S, 0.0
    else:
        both = state in (GONE, "SYN_RCVD")  # a half-open connection comes before its socket, a small one after it
        times = it.seen[state] + it.traced[state] if both else it.traced[state] or it.seen[state]
        within_s, slack_s = LENIENT_S, moment.slack_s
    if times:
        late = [time - one.earliest for one in times]
        early = [one.latest - (time - (math.inf if math.isnan(slack_s) else slack_s)) for one in times]
        fits = [a >= -within_s and b >= -within_s for a, b in zip(late, early, strict=True)]
        assert any(fits), f"{state or 'the end'}: {moment}, so much too late: {late}, within the slack: {early}"


# Endings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIVES)
def test_the_ending_is_right(shown: dict[str, Shown], name: str) -> None:
    it = shown[name]
    assert (it.ending.name if it.ending is not None else None) in honest(it)
    if it.record is not None:
        check_record(it, it.record)


def honest(it: Shown) -> set[str | None]:
    """What may be said of its end."""
    if not it.life.endings:
        return {None}
    right: set[str | None] = set(it.life.endings if it.mode.trace or not it.life.full else it.life.less)
    if it.mode.polls and it.life.endings[0] in ORDERLY and len(it.life.endings) == 1:
        right = set(it.life.endings)  # the states that were seen tell it
    if not it.mode.polls and "NOT_ACCEPTED" in right:
        right.add("RESET_SENT")  # that nobody had accepted it, only a poll can see
    return right if it.is_known else {*right, None}


def check_record(it: Shown, record: np.void) -> None:
    """What is kept of it: when it ended, and in which state."""
    slack_s = float(record["end_slack"])
    # When the full socket of one that went on as a small one closed, only the trace's text knows.
    if it.traced[GONE] or it.life.states[-1] not in ("TIME_WAIT", "FIN_WAIT_2"):
        check_moment(it, Moment(float(record["end"]), Origin(int(record["origin"])), slack_s), GONE)
    last = State(int(record["state"])) if record["state"] else None
    if it.mode.trace and it.life.full:
        assert last is not None
        assert last.name == [state for state in it.life.states if state != "TIME_WAIT"][-1]
    assert last is None or last.name in it.life.states
    said = sentence(Ending(int(record["ending"])), last)
    assert said.endswith(".")
    assert not any(f" {state.name}" in said for state in State if state.name not in it.life.states)
