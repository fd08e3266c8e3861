"""Monitor.step(): one Sample in, one frozen View out; the only place where time enters."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np

from tcpwatch.arrays.time_series import TimeSeries
from tcpwatch.config.thresholds import DEFAULT, Thresholds
from tcpwatch.model.analyses.ephemeral_ports import EphemeralPortAnalysis, EphemeralPorts
from tcpwatch.model.analyses.port_scans import PortScanAnalysis
from tcpwatch.model.analyses.stalls import StallAnalysis
from tcpwatch.model.analyses.teardown import AgeThresholds, TeardownAnalysis
from tcpwatch.model.lifecycle.archive import Archive
from tcpwatch.model.lifecycle.connection_detail import connection_detail
from tcpwatch.model.lifecycle.trace_stats import TraceStatsCounter
from tcpwatch.model.lifecycle.tracker import Tracker
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.listeners.queue_analysis import QueueAnalysis
from tcpwatch.model.listeners.queue_detail import queue_detail
from tcpwatch.model.poll import Poll, SampleJoiner, TcpInfoAnalysis
from tcpwatch.model.rules.engine import RuleEngine
from tcpwatch.model.sockets.flow_graphs import FlowGraphs
from tcpwatch.model.sockets.flow_totals import FlowTotalsCounter
from tcpwatch.model.states import STATE_ORDER, State
from tcpwatch.model.view import SYN_ARRIVALS, FlowDetail, Gauge, Pace, RateTrend, StateTrend, View
from tcpwatch.sample import Sample
from tcpwatch.sources.base import Source

TREND_S = 120
"""Seconds of history that a View carries for its sparklines."""
TRENDS = (
    SYN_ARRIVALS, "SyncookiesSent", "SyncookiesRecv", "SyncookiesFailed", "TCPReqQFullDoCookies",
    "TCPReqQFullDrop", "ListenOverflows", "ListenDrops", "OutRsts", "EmbryonicRsts", "EstabResets", "RetransSegs",
    "TCPSynRetrans", "TCPOrigDataSent",
)  # fmt: skip
"""The rates of which a View carries history."""


class Monitor:
    """Polls a source and remembers what it needs to tell what changed. One thread calls `step`."""

    def __init__(
        self,
        source: Source,
        interval_s: float = 1.0,
        budget: float = 0.25,
        thresholds: Thresholds = DEFAULT,
        memory_mib: int = 64,
    ) -> None:
        """`budget` is the share of one core that polling may take, `thresholds` are those of the diagnosis.

        `memory_mib` is for what happened to flows, and those that closed.
        """
        self.interval_s = interval_s
        """Seconds between steps that a person asked for; may be set at any time."""
        self.watched: frozenset[int] = frozenset()
        """Cookies of the flows whose detail is wanted in the next View; may be set at any time."""
        self.watched_queue: ListenerKey | None = None
        """The listening address and port whose queues the next View is to look into; may be set at any time."""
        self._source = source
        self._budget = budget
        self._step = 0
        self._joiner = SampleJoiner()
        self._counts: dict[State, int] = {}
        self._history = TimeSeries([state.name for state in STATE_ORDER])
        self._rate_history = TimeSeries(TRENDS)
        self._tracker = Tracker(memory_mib)
        self._flow_totals = FlowTotalsCounter()
        self._trace_stats = TraceStatsCounter()
        self._graphs = FlowGraphs()
        self._port_scans = PortScanAnalysis()
        self._thresholds = thresholds
        self._queues = QueueAnalysis(thresholds.syn_queue_share)
        self._ephemeral_ports = EphemeralPortAnalysis()
        self._teardown = TeardownAnalysis(AgeThresholds(thresholds.close_wait_age_s, thresholds.half_closed_age_s))
        self._stalls = StallAnalysis(thresholds.connect_stuck_repeats)
        self._asking: tuple[TcpInfoAnalysis[object], ...] = (self._queues, self._teardown, self._stalls)
        self._rules = RuleEngine()

    def step(self) -> View:
        """Poll once. Raises SourceError where no sample can be had; the next step tries again."""
        wall, cpu = time.monotonic(), time.thread_time()
        watched, queue = self.watched, self.watched_queue
        sample = self._source.sample(watched.union(*(analysis.wanted_tcp_info for analysis in self._asking)))
        poll = self._joiner.step(sample)
        lifecycle = self._tracker.step(poll)
        queues = self._queues.step(poll)
        ports = self._ephemeral_ports.step(poll)
        self._graphs.step(poll, watched)
        self._step += 1
        counts, previous_counts = _state_counts(sample), self._counts
        self._counts = counts
        self._history.add(sample.monotonic, {state.name: count for state, count in counts.items()})
        if queues.syn_arrivals_per_s is not None:
            self._rate_history.add(sample.monotonic, {**poll.rates, SYN_ARRIVALS: queues.syn_arrivals_per_s})
        view = View(
            step=self._step,
            sample=sample,
            rows=poll.rows,
            closed=poll.join.closed,
            opened=len(poll.join.new),
            ended=len(poll.join.ended_cookie),
            elapsed_s=poll.elapsed_s,
            counts=counts,
            count_rates=_per_second(previous_counts, counts, poll.elapsed_s),
            rates=poll.rates,
            state_trend=self._trend(),
            listeners=queues.listeners,
            queue_trend=queues.trend,
            half_open=queues.half_open,
            half_open_by_listener=queues.half_open_by_listener,
            half_open_without_listener=queues.facts.without_listener,
            syn_arrivals_per_s=queues.syn_arrivals_per_s,
            rate_trend=self._rate_trend(),
            time_wait=Gauge(counts[State.TIME_WAIT], sample.sysctls.get("tcp_max_tw_buckets")),
            orphans=Gauge(sample.counters.get("TCP_orphan"), sample.sysctls.get("tcp_max_orphans")),
            memory_pages=Gauge(sample.counters.get("TCP_mem"), sample.sysctls.get("tcp_mem_high")),
            port_usage=_fullest(ports),
            ephemeral_ports=ports,
            teardown=self._teardown.step(poll),
            stalls=self._stalls.step(poll),
            details={cookie: self._detail(poll, lifecycle.archive, cookie) for cookie in watched},
            queue_detail=queue_detail(queue, poll.rows, queues.facts) if queue is not None else None,
            pace=self._pace(time.monotonic() - wall, time.thread_time() - cpu),
            thresholds=self._thresholds,
            archive=lifecycle.archive,
            flow_totals=self._flow_totals.step(poll, lifecycle),
            trace=self._trace_stats.step(poll, lifecycle),
            port_scans=self._port_scans.step(poll),
        )
        return replace(view, findings=self._rules.step(view))

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _trend(self) -> StateTrend:
        slot_s, values = self._history.window(TREND_S)
        return StateTrend(
            slot_s, {state: tuple(column) for state, column in zip(STATE_ORDER, values.T.tolist(), strict=True)}
        )

    def _rate_trend(self) -> RateTrend:
        slot_s, values = self._rate_history.window(TREND_S)
        return RateTrend(slot_s, {name: tuple(column) for name, column in zip(TRENDS, values.T.tolist(), strict=True)})

    def _detail(self, poll: Poll, archive: Archive, cookie: int) -> FlowDetail:
        transitions, record = archive.transitions_of([cookie])[cookie], archive.last_record(cookie)
        slack_s = poll.elapsed_s or math.nan
        detail = connection_detail(transitions, poll.rows, poll.rows.find(cookie), record, slack_s)
        tcp_info, graph = poll.sample.watched_tcp_info.get(cookie), self._graphs.get(cookie)
        return FlowDetail(tcp_info, transitions, detail.history, detail.ending, graph)

    def _pace(self, duration_s: float, cpu_s: float) -> Pace:
        asked_s = self.interval_s
        return Pace(duration_s, cpu_s, asked_s, max(asked_s, cpu_s / self._budget))


def _state_counts(sample: Sample) -> dict[State, int]:
    per_number = np.bincount(sample.state, minlength=max(State) + 1)
    return {state: int(per_number[state]) for state in STATE_ORDER}


def _per_second(before: dict[State, int], now: dict[State, int], elapsed_s: float | None) -> dict[State, float]:
    return {state: (count - before[state]) / elapsed_s for state, count in now.items()} if elapsed_s else {}


def _fullest(ports: EphemeralPorts | None) -> Gauge:
    if ports is None:
        return Gauge(None, None)
    return Gauge(ports.fullest.used if ports.fullest else 0, ports.range.usable)
