"""Monitor.step(): from samples to views, with a fake source."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from types import SimpleNamespace

import numpy as np
import pytest

from tcpwatch import monitor as monitor_module
from tcpwatch.model.listeners.queue_limits import Queue
from tcpwatch.model.sockets.rows import Mark
from tcpwatch.model.states import State
from tcpwatch.model.trends import TREND_S
from tcpwatch.model.view import Gauge, View
from tcpwatch.monitor import Monitor
from tcpwatch.sample import Sample, SourceInfo
from tcpwatch.sources.base import SourceError
from tests.support.views import NOW, Sock, make_rows, make_sample, sock


class FakeSource:
    """Gives the next of its samples; an error among them is raised."""

    info = SourceInfo("sock_diag", "root")

    def __init__(self, *samples: Sample | SourceError) -> None:
        self.watched: list[frozenset[int]] = []
        self.closed = False
        self._samples = list(samples)

    def sample(self, watched: Iterable[int] = ()) -> Sample:
        self.watched.append(frozenset(watched))
        sample = self._samples.pop(0)
        if isinstance(sample, SourceError):
            raise sample
        return sample

    def close(self) -> None:
        self.closed = True


def sample(second: float, *socks: Sock, **facts: object) -> Sample:
    """The wall clock runs twice as fast, so that nobody confuses the two."""
    return make_sample(make_rows(socks, time=NOW + 2 * second), monotonic=second, **facts)


def steps(*samples: Sample | SourceError) -> list[View]:
    monitor = Monitor(FakeSource(*samples))
    return [monitor.step() for _ in samples]


LISTEN = sock("LISTEN", "0.0.0.0:80", cookie=1)
OPENED = sock("ESTAB", "10.0.0.1:80", "192.0.2.1:4000", cookie=2)
CLOSED = dataclasses.replace(OPENED, state=State.CLOSE_WAIT)
HALF = sock("SYN_RCVD", "10.0.0.1:80", "192.0.2.1:4001", cookie=3)


def test_the_first_step_has_no_rates() -> None:
    (view,) = steps(sample(5, LISTEN, OPENED, counters={"InSegs": 7}))
    assert (view.step, view.elapsed_s, view.opened, view.ended) == (1, None, 0, 0)
    assert (view.count_rates, view.rates, len(view.closed)) == ({}, {}, 0)
    assert view.counts == {state: int(state in (State.LISTEN, State.ESTABLISHED)) for state in State}
    assert not view.rows.begin_seen.any()


def test_what_changed_from_step_to_step() -> None:
    views = steps(sample(5, LISTEN, OPENED), sample(7, LISTEN, CLOSED, HALF), sample(8, HALF))
    assert [(view.step, view.elapsed_s, view.opened, view.ended) for view in views] == [
        (1, None, 0, 0),
        (2, 2.0, 1, 0),
        (3, 1.0, 0, 2),
    ]
    assert [view.half_open.count for view in views] == [0, 1, 1]
    assert views[1].rows.mark.tolist() == [Mark.NONE, Mark.CHANGED, Mark.NEW]
    assert views[1].count_rates[State.ESTABLISHED] == -0.5
    assert views[1].count_rates[State.SYN_RCVD] == 0.5
    assert views[2].closed.cookie.tolist() == [1, 2]
    assert (views[2].closed.mark == Mark.CLOSED).all()
    assert views[2].rows.begin_seen.tolist() == [True]


def test_a_step_that_failed_is_left_out_and_the_time_goes_on() -> None:
    source = FakeSource(sample(5, LISTEN), SourceError("no"), sample(9, LISTEN, OPENED, counters={}))
    monitor = Monitor(source)
    monitor.step()
    with pytest.raises(SourceError, match="no"):
        monitor.step()
    view = monitor.step()
    assert (view.step, view.elapsed_s, view.opened) == (2, 4.0, 1)


def test_rates_of_counters() -> None:
    before, after = {"InSegs": 10, "CurrEstab": 1, "OutRsts": 9}, {"InSegs": 40, "CurrEstab": 9, "OutRsts": 3}
    _, view = steps(sample(5, counters=before), sample(7, counters=after))
    assert view.rates == {"InSegs": 15.0}


def test_gauges_have_their_limits() -> None:
    counters = {"TCP_orphan": 3, "TCP_mem": 40}
    sysctls = {
        "tcp_max_tw_buckets": 100, "tcp_max_orphans": 8, "tcp_mem_high": 80,
        "ip_local_port_range_low": 3000, "ip_local_port_range_high": 3009,
    }  # fmt: skip
    socks = [sock("TIME_WAIT", f"10.0.0.1:{3000 + at}", "192.0.2.1:443") for at in range(5)]
    known, unknown = steps(sample(5, *socks, counters=counters, sysctls=sysctls), sample(6, *socks))
    assert (known.time_wait, known.orphans, known.memory_pages) == (Gauge(5, 100), Gauge(3, 8), Gauge(40, 80))
    assert (known.port_usage, known.port_usage.share) == (Gauge(5, 10), 0.5)
    nothing = Gauge(None, None)
    assert (unknown.time_wait, unknown.orphans, unknown.memory_pages) == (Gauge(5, None), nothing, nothing)
    assert (unknown.port_usage, unknown.port_usage.share) == (nothing, None)


def test_drops_become_rates() -> None:
    _, view = steps(sample(5, LISTEN, drops={1: 4}), sample(7, LISTEN, drops={1: 10}))
    assert [(listener.drops, listener.drops_per_s) for listener in view.listeners] == [(10, 3.0)]


def test_the_trend_has_the_last_minutes() -> None:
    views = steps(sample(100, LISTEN), sample(101, LISTEN, OPENED), sample(103, LISTEN))
    assert views[0].state_trend[State.LISTEN] == (1.0,)
    trend = views[-1].state_trend
    assert trend.keys() == set(State)
    assert [None if math.isnan(n) else n for n in trend[State.ESTABLISHED]] == [0, 1, None, 0]
    many = steps(*(sample(second, LISTEN) for second in range(300)))
    assert len(many[-1].state_trend[State.LISTEN]) == TREND_S


def test_details_of_watched_connections() -> None:
    info = {2: {"rtt": 1500}}
    source = FakeSource(sample(5, OPENED), sample(6, CLOSED, watched_tcp_info=info), sample(7), sample(8))
    monitor = Monitor(source)
    assert monitor.step().details == {}
    monitor.watched = frozenset({2, 77})
    details = monitor.step().details
    assert (details[2].tcp_info, details[77].tcp_info, details[77].transitions) == ({"rtt": 1500}, None, ())
    closed = monitor.step().details[2]
    assert closed.tcp_info is None
    assert [(change.old, change.new) for change in closed.transitions] == [
        (State.ESTABLISHED, State.CLOSE_WAIT),
        (State.CLOSE_WAIT, None),
    ]
    assert [change.time for change in closed.transitions] == [NOW + 12, NOW + 14]
    period = closed.history.periods[0]
    assert (period.state, period.begin.time, period.began_earlier) == (State.ESTABLISHED, NOW + 10, True), (
        "also after its end"
    )
    monitor.watched = frozenset()
    assert monitor.step().details == {}
    assert source.watched == [frozenset(), {2, 77}, {2, 77}, frozenset()]


def test_a_half_open_connection_that_completed_is_reported() -> None:
    """A flood's half-open connections would push all others out of what is remembered."""
    open_ = sock("ESTAB", "10.0.0.1:80", "10.0.0.2:4000", cookie=3)
    monitor = Monitor(FakeSource(sample(5), sample(6, HALF), sample(7, open_)))
    monitor.step()
    monitor.watched = frozenset({3})
    detail = monitor.step().details[3]
    assert detail.transitions == ()
    (stretch,) = detail.history.periods
    assert (stretch.state, stretch.begin.time, stretch.begin.slack_s, stretch.began_earlier) == (
        State.SYN_RCVD, NOW + 12, 1.0, False,
    )  # fmt: skip
    birth, done = monitor.step().details[3].transitions
    assert (birth.old, birth.new, birth.time) == (None, State.SYN_RCVD, NOW + 12)
    assert (done.old, done.new, done.time) == (State.SYN_RCVD, State.ESTABLISHED, NOW + 14)


# Pace ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpu_s", "asked_s", "budget", "interval_s"),
    [
        (0.1, 1.0, 0.25, 1.0),
        (0.25, 1.0, 0.25, 1.0),
        (0.5, 1.0, 0.25, 2.0),
        (0.5, 0.1, 0.5, 1.0),
        (2.0, 10.0, 0.1, 20.0),
    ],
)
def test_a_step_that_costs_more_than_the_budget_stretches_the_interval(
    monkeypatch: pytest.MonkeyPatch, cpu_s: float, asked_s: float, budget: float, interval_s: float
) -> None:
    clock = SimpleNamespace(thread_time=iter([0.0, cpu_s]).__next__, monotonic=iter([0.0, 2 * cpu_s]).__next__)
    monkeypatch.setattr(monitor_module, "time", clock)
    pace = Monitor(FakeSource(sample(5)), interval_s=asked_s, budget=budget).step().pace
    assert (pace.cpu_s, pace.duration_s) == (cpu_s, 2 * cpu_s)
    assert (pace.asked_s, pace.interval_s, pace.slowed) == (asked_s, interval_s, interval_s > asked_s)
    assert pace.core_share <= budget


def test_the_interval_may_be_changed_meanwhile() -> None:
    monitor = Monitor(FakeSource(sample(5), sample(6)), interval_s=1.0)
    assert monitor.step().pace.asked_s == 1.0
    monitor.interval_s = 5.0
    assert monitor.step().pace.asked_s == 5.0


# Bounds -------------------------------------------------------------------------------------------


def test_memory_does_not_grow_over_a_night() -> None:
    """Flows that come and go each step: the memory for history stays within its setting."""
    churn = [sock("ESTAB", "10.0.0.1:80", f"192.0.2.1:{4000 + at}", cookie=10 + at) for at in range(600)]
    halves = [make_rows(churn[at::2]) for at in range(2)]
    night = (
        make_sample(dataclasses.replace(halves[step % 2], time=NOW + 1200.0 * step), monotonic=600.0 * step)
        for step in range(150)
    )
    source = FakeSource()
    monitor = Monitor(source, memory_mib=1)
    for poll in night:
        source._samples.append(poll)
        view = monitor.step()
        assert max(map(len, view.state_trend.values())) <= TREND_S
    assert view.archive.transitions_total == 149 * 600
    kept = (*view.archive.transitions, *view.archive.records)
    assert 2**18 < sum(chunk.nbytes for chunk in kept) <= 2**20
    assert sum(map(len, view.archive.transitions)) < view.archive.transitions_total
    assert (view.opened, view.ended, len(view.rows)) == (300, 300, 300)
    assert np.array_equal(view.rows.first_seen, np.full(300, view.sample.time))


def test_closing_closes_the_source() -> None:
    source = FakeSource()
    Monitor(source).close()
    assert source.closed


def test_unsupported_facts_are_not_zero() -> None:
    listener, half_open = sock("LISTEN", "0.0.0.0:80"), sock("SYN_RCVD", "10.0.0.1:80", "10.0.0.2:4000")
    psutil = SourceInfo("psutil", "user")
    (view,) = steps(sample(0, listener, half_open, source=psutil))
    assert view.listeners[0].accept_queue == Queue(None, None)
    assert view.listeners[0].syn_queue == Queue(1, None)
    assert view.listeners[0].accept_queue.share == 0


def test_after_an_unexpected_exception_the_history_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The analyses that have seen the sample do not fit to those that have not."""
    monitor = Monitor(FakeSource(*(sample(second, LISTEN, OPENED) for second in (5, 6, 7, 8))))
    monitor.step()
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(monitor._queues, "step", lambda poll: 1 // 0)
        monitor.step()
    view = monitor.step()
    assert (view.step, view.elapsed_s, view.opened, view.rates) == (1, None, 0, {})
    assert monitor.step().elapsed_s == 1.0
