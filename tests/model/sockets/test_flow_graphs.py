"""Graphs of watched flows: what a slot holds, halving, gaps and bounds."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.model.sockets.flow_graphs import FlowGraph, FlowGraphs
from tcpwatch.sample import Sample, SourceInfo
from tests.support.polls import first_poll
from tests.support.views import NOW, Sock, make_rows, make_sample, sock

COOKIE = 7
WATCHED = frozenset({COOKIE})
BEGIN = 1000.0
NAN = math.nan


def _flow(**given: Any) -> Sock:
    facts = {"state": "ESTAB", "cookie": COOKIE, **given}
    return sock(facts.pop("state"), "10.0.0.1:80", "10.0.0.2:4000", **facts)


def _sample(at: float, *socks: Sock, info: dict[str, int] | None = None, **overrides: Any) -> Sample:
    """`at` seconds after the first."""
    rows = make_rows(socks, time=NOW + at)
    infos = {} if info is None else {COOKIE: info}
    return make_sample(rows, monotonic=BEGIN + at, watched_tcp_info=infos, **overrides)


def _step(graphs: FlowGraphs, at: float, watched: frozenset[int] = WATCHED, **info: int) -> None:
    sample = _sample(at, _flow(), info=info)
    graphs.step(first_poll(sample), watched)


def _of(graphs: FlowGraphs) -> FlowGraph:
    graph = graphs.get(COOKIE)
    assert graph is not None
    return graph


def _known(values: tuple[float, ...]) -> list[float | None]:
    return [None if math.isnan(value) else round(value, 3) for value in values]


def test_rates_are_differences_over_time_and_other_figures_are_unchanged() -> None:
    graphs = FlowGraphs()
    for at, received, acked, rtt in ((0.0, 0, 100, 0), (1.0, 500, 100, 20_000), (2.0, 500, 300, 30_000)):
        flow = _flow(recv_queue=int(at), send_queue=10)
        info = {"bytes_received": received, "bytes_acked": acked, "rtt": rtt, "snd_cwnd": 10}
        graphs.step(first_poll(_sample(at, flow, info=info)), WATCHED)
    graph = _of(graphs)
    assert (graph.begin, graph.slot_s) == (NOW, 1.0)
    assert _known(graph.rx_bytes_per_s) == [500, 0]
    assert _known(graph.tx_bytes_per_s) == [0, 200]
    assert _known(graph.rtt_us) == [20_000, 30_000]  # 0 was not measured yet
    assert _known(graph.cwnd) == [10, 10]
    assert _known(graph.recv_queue) == [1, 2]
    assert _known(graph.send_queue) == [10, 10]


def test_a_poll_stands_for_the_time_since_the_one_before() -> None:
    graphs = FlowGraphs()
    _step(graphs, 0.0, bytes_received=0, snd_cwnd=10)
    _step(graphs, 2.5, bytes_received=2500, snd_cwnd=20)
    _step(graphs, 3.0, bytes_received=2500, snd_cwnd=15)
    graph = _of(graphs)
    assert _known(graph.rx_bytes_per_s) == [1000, 1000, 500]
    assert _known(graph.cwnd) == [10, 20, 15]


def test_unknown_figures_are_a_gap() -> None:
    graphs = FlowGraphs()
    _step(graphs, 0.0, bytes_received=0, rtt=5)
    _step(graphs, 1.0, bytes_received=100)
    _step(graphs, 2.0, bytes_received=90, rtt=7)  # set back
    graph = _of(graphs)
    assert _known(graph.rx_bytes_per_s) == [100, None]
    assert _known(graph.tx_bytes_per_s) == [None, None]
    assert _known(graph.rtt_us) == [5, 7]
    assert _known(graph.cwnd) == [None, None]


def test_a_time_in_which_nobody_watched_is_a_gap() -> None:
    graphs = FlowGraphs()
    for at in (0.0, 1.0, 2.0, 5.0, 6.0):
        watched = frozenset[int]() if at == 2.0 else WATCHED
        _step(graphs, at, watched, bytes_received=int(100 * at), rtt=7)
    graph = _of(graphs)
    assert _known(graph.rx_bytes_per_s) == [100, None, None, None, None, 100]
    assert _known(graph.rtt_us) == [7, None, None, None, 7, 7]
    assert _known(graph.recv_queue) == [0, None, None, None, 0, 0]


def test_when_full_two_slots_become_one() -> None:
    graphs = FlowGraphs(slots=4)
    queues = [0, 9, 1, 2, 3, 0]
    for at, queue in enumerate(queues):
        flow = _flow(recv_queue=queue)
        info = {"bytes_received": 100 * at * at, "rtt": 1 + at}
        graphs.step(first_poll(_sample(at, flow, info=info)), WATCHED)
    graph = _of(graphs)
    assert (graph.slot_s, graph.begin) == (2.0, NOW)
    assert _known(graph.rx_bytes_per_s) == [200, 600, 900]  # of 0..2 s, 2..4 s, and the first half of 4..6 s
    assert _known(graph.recv_queue) == [9, 3, 0]
    assert _known(graph.rtt_us) == [3, 5, 6]


def test_a_time_without_a_rate_has_no_weight() -> None:
    graphs = FlowGraphs(slots=2)
    _step(graphs, 0.0, bytes_received=0)
    _step(graphs, 0.5, bytes_received=100)
    _step(graphs, 0.75)
    _step(graphs, 1.0, bytes_received=100)
    _step(graphs, 2.0, bytes_received=500)
    _step(graphs, 2.5, bytes_received=500)
    # 200 bytes/s are known of half a second, and 400 of a whole one.
    assert _known(_of(graphs).rx_bytes_per_s) == [333.333, 0]


def test_a_long_absence_halves_as_often_as_needed() -> None:
    graphs = FlowGraphs(slots=4)
    _step(graphs, 0.0, snd_cwnd=1)
    _step(graphs, 1.0, frozenset(), snd_cwnd=1)
    _step(graphs, 60.0, snd_cwnd=2)
    graph = _of(graphs)
    assert graph.slot_s == 16.0
    assert _known(graph.cwnd) == [1, None, None, 2]


@given(st.lists(st.tuples(st.floats(0.01, 40), st.integers(0, 10**9)), min_size=1, max_size=40))
def test_no_byte_is_lost_and_memory_is_bounded(steps: list[tuple[float, int]]) -> None:
    graphs, at, received = FlowGraphs(slots=8), 0.0, 0
    _step(graphs, 0.0, bytes_received=0)
    for seconds, grown in steps:
        at, received = at + seconds, received + grown
        _step(graphs, at, bytes_received=received)
    graph = _of(graphs)
    size = len(graph.rx_bytes_per_s)
    assert size <= 8
    assert (size - 1) * graph.slot_s <= at + 1e-6
    assert at <= size * graph.slot_s + 1e-6
    last = at - (size - 1) * graph.slot_s
    went = [rate * graph.slot_s for rate in graph.rx_bytes_per_s[:-1]] + [graph.rx_bytes_per_s[-1] * last]
    # A sliver of the last slot may be too thin for a float's time.
    assert sum(value for value in went if value == value) == pytest.approx(received, rel=1e-6, abs=1.0)


def test_the_graph_of_a_flow_that_ended_stays() -> None:
    graphs = FlowGraphs()
    _step(graphs, 0.0, bytes_received=0)
    _step(graphs, 1.0, bytes_received=5)
    before = _of(graphs)
    graphs.step(first_poll(_sample(2.0)), WATCHED)
    assert str(_of(graphs)) == str(before)  # NaN is not equal to itself


def test_time_wait_and_psutil_have_no_queues() -> None:
    graphs = FlowGraphs()
    waiting = _flow(state="TIME_WAIT")
    graphs.step(first_poll(_sample(0.0, waiting)), WATCHED)
    assert _known(_of(graphs).recv_queue) == [None]
    graphs = FlowGraphs()
    graphs.step(first_poll(_sample(0.0, _flow(), source=SourceInfo("psutil", "user"))), WATCHED)
    assert _known(_of(graphs).send_queue) == [None]


def test_a_flow_that_was_never_there_has_no_graph() -> None:
    graphs = FlowGraphs()
    graphs.step(first_poll(_sample(0.0)), WATCHED)
    assert graphs.get(COOKIE) is None
    assert len(graphs) == 0


def test_those_watched_last_are_kept() -> None:
    graphs = FlowGraphs(kept=2)
    flows = [_flow(cookie=cookie) for cookie in (1, 2, 3)]
    for at, cookie in enumerate((1, 2, 1, 3)):
        graphs.step(first_poll(_sample(at, *flows)), frozenset({cookie}))
    assert [graphs.get(cookie) is not None for cookie in (1, 2, 3)] == [True, False, True]
