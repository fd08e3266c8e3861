"""What the Tracker makes of polls, destroy events and the trace, compared with simulated connections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from tcpwatch.config.memory import EventBudget
from tcpwatch.model.lifecycle import tracker
from tcpwatch.model.lifecycle.archive import Archive
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.history import History, build_history, first_known
from tcpwatch.model.lifecycle.trace import traced_sockets
from tcpwatch.model.lifecycle.tracker import Tracker
from tcpwatch.model.lifecycle.transitions import Origin
from tcpwatch.model.states import Role, State
from tests.support.flow_world import PATHS, Flow, sample, traced
from tests.support.polls import polls as joined
from tests.support.views import NOW

ENDINGS = {
    "a client that closes": Ending.BY_US,
    "a client that is left": Ending.BY_PEER,
    "a server that closes": Ending.BY_US,
    "a server that is left": Ending.BY_PEER,
    "both at once": Ending.AT_ONCE,
    "a reset": Ending.RESET_RECEIVED,
}
HONEST = {
    Ending.BY_US: {Ending.BY_US},
    Ending.BY_PEER: {Ending.BY_PEER, Ending.ORDERLY},
    # Where no poll saw CLOSING, TIME_WAIT looks like an active close.
    Ending.AT_ONCE: {Ending.AT_ONCE, Ending.BY_US},
    Ending.RESET_RECEIVED: {Ending.RESET, Ending.UNKNOWN},
}


class Result:
    """The model after some polls."""

    def __init__(
        self, flows: Sequence[Flow], polls: Sequence[float], trace: bool, events: bool = True, late_s: float = 0.0
    ) -> None:
        """`late_s` after the rows of a poll, its trace events were read."""
        self.opened = self.ended = 0
        flows = [replace(one, polls=tuple(polls)) for one in flows]
        self._cookies = {one.cookie: one.cookie_in_the_end for one in flows}
        model = Tracker()
        samples = [sample(flows, polls[0], 0.0, trace, events)]
        samples += [sample(flows, time, before, trace, events) for before, time in pairwise(polls)]
        if late_s:
            ends = [0.0, *(time + late_s for time in polls)]
            traces = (traced(flows, *both) for both in pairwise(ends))
            samples = [replace(one, trace_events=table) for one, table in zip(samples, traces, strict=True)]
        for poll in joined(*samples):
            step = model.step(poll)
            self.opened += len(step.opened)
            self.ended += len(step.ended)
        self.archive: Archive = model.archive
        self.rows = poll.rows
        self.foreign = step.foreign_sockets

    def history(self, cookie: int) -> History:
        cookie = self._cookies[cookie]
        at = self.rows.find(cookie)
        transitions = self.archive.transitions_of([cookie])[cookie]
        if at is None:
            return build_history(transitions)
        return build_history(transitions, first_known(self.rows, at, 0.0), State(int(self.rows.state[at])))

    def polled(self, cookie: int) -> list[tuple[State | None, State | None]]:
        """The changes that polls reported."""
        cookie = self._cookies[cookie]
        changes = self.archive.transitions_of([cookie])[cookie]
        return [(change.old, change.new) for change in changes if change.origin is Origin.POLL]

    def closed(self, cookie: int) -> np.void | None:
        return self.archive.last_record(self._cookies[cookie])

    def ending(self, cookie: int) -> Ending | None:
        closed = self.closed(cookie)
        return None if closed is None else Ending(int(closed["ending"]))


def flow(path: str, *durations: float, begin: float = 10.2, cookie: int = 1000, held_s: float = 0.0) -> Flow:
    times = [begin]
    if PATHS[path][-1] is State.TIME_WAIT:
        durations = (*durations[:-1], 30.0)
    for duration in durations:
        times.append(times[-1] + duration)
    assert len(times) == len(PATHS[path]) + 1
    return Flow(cookie, path, tuple(times), held_s)


POLLS = [float(second) for second in range(1, 70)]
QUICK = 0.001


def one_of_each(pace_s: float, begin: float = 10.2) -> list[Flow]:
    """Return a flow of each path, each state of which but TIME_WAIT takes `pace_s`."""
    return [flow(path, *[pace_s] * len(PATHS[path]), begin=begin, cookie=1000 + at) for at, path in enumerate(PATHS)]


@pytest.mark.parametrize("pace_s", [QUICK, 2.5])
def test_the_trace_reports_every_state_and_the_ending(pace_s: float) -> None:
    flows = one_of_each(pace_s)
    result = Result(flows, POLLS, trace=True)
    assert (result.opened, result.ended) == (len(flows), len(flows))
    for one in flows:
        seen = result.history(one.cookie)
        assert [period.state for period in seen.periods] == list(one.states), one.path
        exact = [period for period in seen.periods if period.state is not State.SYN_RCVD]
        for period in exact:
            truth = one.times[one.states.index(period.state)]
            assert period.begin.time == pytest.approx(NOW + truth, abs=1e-4), (one.path, period.state)
            assert period.begin.origin is Origin.TRACE, (one.path, period.state)
        assert result.ending(one.cookie) is ENDINGS[one.path], one.path
        half_open = [(None, State.SYN_RCVD)] * (one.server and pace_s > 1)  # the trace reports neither
        waited = [(State.TIME_WAIT, None)] * (State.TIME_WAIT in one.states)
        assert result.polled(one.cookie) == [*half_open, *waited], one.path


def test_polls_do_not_repeat_what_the_trace_reported_in_the_previous_step() -> None:
    """Each state begins just after the rows were read, and before the events were."""
    flows = one_of_each(2.0, begin=10.001)
    result = Result(flows, POLLS, trace=True, late_s=0.02)
    for one in flows:
        half_open = [(None, State.SYN_RCVD)] * one.server
        waited = [(State.TIME_WAIT, None)] * (State.TIME_WAIT in one.states)
        assert result.polled(one.cookie) == [*half_open, *waited], one.path
        assert [period.state for period in result.history(one.cookie).periods] == list(one.states), one.path


@pytest.mark.parametrize("pace_s", [QUICK, 0.4, 2.5])
def test_without_the_trace_nothing_false_is_reported(pace_s: float) -> None:
    flows = one_of_each(pace_s)
    result = Result(flows, POLLS, trace=False)
    assert (result.opened, result.ended) == (len(flows), len(flows))
    for one in flows:
        seen = [period.state for period in result.history(one.cookie).periods]
        assert seen == [state for state in one.states if state in seen], one.path
        assert result.ending(one.cookie) in HONEST[ENDINGS[one.path]], one.path
        closed = result.closed(one.cookie)
        assert closed is not None, one.path
        assert closed["role"] == (Role.SERVER if one.server else Role.CLIENT), one.path
        assert closed["end"] - closed["end_slack"] - 0.01 <= NOW + one.full_end <= closed["end"], one.path


def test_a_dead_socket_that_is_held_is_counted_once() -> None:
    one = flow("a reset", 1.5, 3.0, held_s=40.0)
    for trace in (True, False):
        result = Result([one], POLLS, trace)
        assert (result.opened, result.ended) == (1, 1)
        closed = result.closed(one.cookie)
        assert closed is not None
        assert closed["info_bytes"] > 0  # the last figures came with the event
        assert closed["end"] == pytest.approx(NOW + one.full_end, abs=1.01)
        assert result.ending(one.cookie) is (Ending.RESET_RECEIVED if trace else Ending.RESET)


def test_a_flow_of_another_namespace_is_not_ours() -> None:
    foreign = [replace(one, foreign=True) for one in one_of_each(QUICK)]
    result = Result(foreign, POLLS, trace=True)
    assert (result.opened, result.ended, result.foreign) == (0, 0, len(PATHS))
    assert not result.archive.transitions or not len(result.archive.transitions[0])


def test_an_address_is_reused_before_its_owner_is_known() -> None:
    other = replace(flow("a reset", 0.1, 0.1, begin=10.5, cookie=2000), foreign=True, address=0xFFFF_8880_1234_0000)
    ours = replace(flow("a client that is left", 0.1, 0.1, 0.5, 0.1, begin=10.8), address=other.address)
    result = Result([other, ours], POLLS, trace=True)
    periods = result.history(ours.cookie).periods
    assert [one.state for one in periods] == list(ours.states)
    assert all(one.begin.origin is Origin.TRACE for one in periods)
    closed = result.closed(ours.cookie)
    assert closed is not None
    assert (closed["begin_slack"], closed["end_slack"]) == (0.0, 0.0)
    assert (result.opened, result.ended, result.foreign) == (1, 1, 1)


@pytest.mark.parametrize("begin", [0.5, 1.0005])
def test_a_flow_that_opened_around_the_first_poll_has_its_beginning(begin: float) -> None:
    one = flow("a client that is left", 0.0001, 2.0, 0.5, 0.1, begin=begin)
    result = Result([one], POLLS, trace=True)
    periods = result.history(one.cookie).periods
    assert [period.state for period in periods] == list(one.states)
    assert periods[0].begin.time == pytest.approx(NOW + begin, abs=1e-4)
    closed = result.closed(one.cookie)
    assert closed is not None
    assert (closed["begin_slack"], closed["end_slack"]) == (0.0, 0.0)


def test_without_any_event_polls_report_every_state() -> None:
    flows = one_of_each(2.5)
    result = Result(flows, POLLS, trace=False, events=False)
    for one in flows:
        seen = result.history(one.cookie)
        assert [period.state for period in seen.periods] == list(one.states)
        for period, truth in zip(seen.periods, one.times, strict=False):
            assert -1e-6 <= period.begin.time - (NOW + truth) <= period.begin.slack_s
            assert period.begin.slack_s == pytest.approx(
                0.25 if period.state is State.TIME_WAIT else 1.0
            )  # from its timer
    assert (result.opened, result.ended) == (len(flows), len(flows))


DURATIONS = st.sampled_from([0.0005, 0.01, 0.3, 0.9, 1.0, 3.7])
FLOWS = st.builds(
    lambda path, begin, durations, held_s: flow(path, *durations[: len(PATHS[path])], begin=begin, held_s=held_s),
    st.sampled_from(sorted(PATHS)),
    st.floats(2.0, 20.0),
    st.lists(DURATIONS, min_size=5, max_size=5),
    st.sampled_from([0.0, 0.0, 0.002, 0.7, 15.0]),
)


HELD = flow("a server that is left", 1.0, 0.0005, 0.0005, 0.0005, begin=14.157, held_s=15.0)
"""Half-open in one poll and ended before the next; its destroy event comes when the application closes the socket."""


def around_changes(polls: Sequence[float], flows: Sequence[Flow]) -> list[float]:
    """Leave out the polls that have no change just before or after them, but for the first and the last."""
    changes = [
        time for one in flows for time in (*one.times, one.full_end + one.held_s, one.full_end + one.held_s + 0.002)
    ]
    polls_around = zip(polls, polls[1:], polls[2:], strict=False)
    kept = [poll for before, poll, after in polls_around if any(before < time <= after for time in changes)]
    return [polls[0], *kept, polls[-1]]


@example(drawn=[HELD], trace=False, pace_s=1.4917)
@settings(deadline=None, max_examples=25, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.lists(FLOWS, min_size=1, max_size=6), st.booleans(), st.floats(0.2, 2.0))
def test_each_flow_is_counted_once_whatever_reports_it(drawn: list[Flow], trace: bool, pace_s: float) -> None:
    flows = [replace(one, cookie=1000 + at) for at, one in enumerate(drawn)]
    end = max(one.times[-1] + one.held_s for one in flows)
    polls = [1.0 + pace_s * step for step in range(int(end / pace_s) + 5)]
    result = Result(flows, around_changes(polls, flows), trace)
    assert (result.opened, result.ended) == (len(flows), len(flows))
    for one in flows:
        seen = [period.state for period in result.history(one.cookie).periods]
        assert seen == [state for state in one.states if state in seen]
        if trace:
            assert seen == list(one.states)
            assert result.ending(one.cookie) is ENDINGS[one.path]
        else:
            assert result.ending(one.cookie) in HONEST[ENDINGS[one.path]]


@pytest.mark.parametrize("pace_s", [QUICK, 2.5])
def test_a_step_in_parts_finds_the_same(pace_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step works on some events at a time: its memory does not depend on their number."""
    flows = one_of_each(pace_s)
    whole = Result(flows, POLLS, trace=True)
    for module in (tracker, traced_sockets):
        monkeypatch.setattr(module, "BUDGET", EventBudget(slice=2))
    parts = Result(flows, POLLS, trace=True)
    assert (parts.opened, parts.ended) == (whole.opened, whole.ended) == (len(flows), len(flows))
    for name, order in (("records", ["cookie"]), ("transitions", ["cookie", "time", "origin", "new"])):
        ordered = [np.sort(np.concatenate(getattr(one.archive, name)), order=order) for one in (whole, parts)]
        assert ordered[0].tobytes() == ordered[1].tobytes()
