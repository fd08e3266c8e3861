"""Counts by state and rates, and their last minutes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tcpwatch.model.states import State
from tcpwatch.model.trends import SYN_ARRIVALS, RateHistory, StateCounter, StateCounts, Trend
from tcpwatch.sample import Sample
from tests.support.polls import polls
from tests.support.views import NOW, Sock, make_rows, make_sample, sock

LISTEN = sock("LISTEN", "0.0.0.0:80", cookie=1)
OPEN = sock("ESTAB", "10.0.0.1:80", "192.0.2.1:1", cookie=2)
CLOSING = sock("CLOSING", "10.0.0.1:80", "192.0.2.1:2", cookie=3)


def sample(second: float, *socks: Sock, **counters: int) -> Sample:
    return make_sample(make_rows(socks, time=NOW + second), monotonic=second, counters=counters)


def counted(*samples: Sample) -> list[StateCounts]:
    counter = StateCounter()
    return [counter.step(poll) for poll in polls(*samples)]


def known(values: tuple[float, ...]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values]


def test_sockets_in_each_state_and_the_change_per_second() -> None:
    first, second = counted(sample(0, LISTEN, OPEN), sample(2, LISTEN, CLOSING))
    assert {state: count for state, count in first.counts.items() if count} == {State.LISTEN: 1, State.ESTABLISHED: 1}
    assert set(first.counts) == set(State)
    assert first.per_s == {}
    assert {state: change for state, change in second.per_s.items() if change} == {
        State.ESTABLISHED: -0.5, State.CLOSING: 0.5,
    }  # fmt: skip


def test_a_second_in_which_nothing_was_polled_is_a_gap() -> None:
    trend = counted(sample(0, LISTEN), sample(1, LISTEN, OPEN), sample(3, OPEN))[-1].trend
    assert known(trend[State.ESTABLISHED]) == [0, 1, None, 1]
    assert known(trend[State.LISTEN]) == [1, 1, None, 0]


def test_a_trend_covers_two_minutes() -> None:
    trend = counted(*(sample(second, *[OPEN] * (second == 3)) for second in range(123)))[-1].trend
    assert len(trend[State.ESTABLISHED]) == 120
    assert trend[State.ESTABLISHED][:2] == (1, 0)


def test_two_polls_at_the_same_time_have_no_change_per_second() -> None:
    assert counted(sample(5, LISTEN), sample(5, OPEN))[-1].per_s == {}


def test_rates_of_the_last_seconds() -> None:
    history, trends = RateHistory(), list[Mapping[str, Trend]]()
    arrivals = (None, 7.0, 0.0)
    samples = (sample(0, OutRsts=5), sample(1, OutRsts=8, ListenDrops=4), sample(2, OutRsts=8, ListenDrops=5))
    for poll, per_s in zip(polls(*samples), arrivals, strict=True):
        trends.append(history.step(poll, per_s))
    assert trends[0]["OutRsts"] == (), "one poll gives no rate"
    assert known(trends[-1]["OutRsts"]) == [3, 0]
    assert known(trends[-1]["ListenDrops"]) == [None, 1]
    assert known(trends[-1][SYN_ARRIVALS]) == [7, 0]
    assert known(trends[-1]["RetransSegs"]) == [None, None]
