"""Monitor.step(): one Sample in, one frozen View out; the only place where time enters."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np

from tcpwatch.arrays.time_series import Series
from tcpwatch.config.thresholds import DEFAULT, Thresholds
from tcpwatch.model.analyses.ephemeral_ports import Ephemeral, PortTrend, ephemeral
from tcpwatch.model.analyses.port_scans import Scans
from tcpwatch.model.analyses.stalls import PathSteps
from tcpwatch.model.analyses.teardown import Ages, TeardownSteps
from tcpwatch.model.lifecycle.archive import Past
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.history import first_known, first_recorded, story
from tcpwatch.model.lifecycle.trace_stats import Trace
from tcpwatch.model.lifecycle.tracker import Lives
from tcpwatch.model.listeners.listener_keys import Key
from tcpwatch.model.listeners.queue_analysis import Queues
from tcpwatch.model.listeners.queue_detail import focus
from tcpwatch.model.poll import rates
from tcpwatch.model.rules.engine import Diagnosis
from tcpwatch.model.sockets import join
from tcpwatch.model.sockets.flow_graphs import FlowGraphs
from tcpwatch.model.sockets.flow_totals import Tally
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import LIFE_ORDER, State
from tcpwatch.model.view import ARRIVALS, FlowDetail, Gauge, Pace, RateTrend, Trend, View
from tcpwatch.sample import Sample
from tcpwatch.sources.base import Source

TREND_S = 120
"""Seconds of history that a View carries for its sparklines."""
TRENDS = (
    ARRIVALS, "SyncookiesSent", "SyncookiesRecv", "SyncookiesFailed", "TCPReqQFullDoCookies",
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
        self.focus: Key | None = None
        """The listening address and port whose queues the next View is to look into; may be set at any time."""
        self._source = source
        self._budget = budget
        self._step = 0
        self._sample: Sample | None = None
        self._joined: join.Joined | None = None
        self._counts: dict[State, int] = {}
        self._history = Series([state.name for state in LIFE_ORDER])
        self._rate_history = Series(TRENDS)
        self._lives = Lives(memory_mib)
        self._tally = Tally()
        self._trace = Trace()
        self._graphs = FlowGraphs()
        self._scans = Scans()
        self._thresholds = thresholds
        self._queues = Queues(thresholds.syn_queue_share)
        self._port_trend = PortTrend()
        self._teardown = TeardownSteps(Ages(thresholds.close_wait_age_s, thresholds.half_closed_age_s))
        self._path = PathSteps(thresholds.connect_stuck_repeats)
        self._diagnosis = Diagnosis()

    def step(self) -> View:
        """Poll once. Raises SourceError where no sample can be had; the next step tries again."""
        wall, cpu = time.monotonic(), time.thread_time()
        watched, key = self.watched, self.focus
        asked = watched.union(self._queues.unknown, self._teardown.unknown, self._path.unknown)
        sample, before = self._source.sample(asked), self._sample
        earlier = self._joined
        joined = join.join(earlier, sample) if earlier else join.first(sample)
        lived = None
        if earlier and before:
            lived = self._lives.step(joined, earlier, sample, before)
        else:
            self._lives.begin(joined, sample)
        past = self._lives.past
        elapsed_s = sample.monotonic - before.monotonic if before else None
        counts, counted = _counted(sample), self._counts
        self._history.add(sample.monotonic, {state.name: count for state, count in counts.items()})
        moved = rates(before, sample) if before else {}
        queues = self._queues.step(joined, sample, before, moved)
        if queues.arrivals_per_s is not None:
            self._rate_history.add(sample.monotonic, {**moved, ARRIVALS: queues.arrivals_per_s})
        self._step += 1
        self._sample, self._joined, self._counts = sample, joined, counts
        rows = joined.rows
        self._graphs.step(sample, rows, watched)
        tells_ends = sample.destroyed is not None
        ports = self._port_trend.step(sample.monotonic, ephemeral(rows, sample))
        view = View(
            step=self._step,
            sample=sample,
            rows=rows,
            closed=joined.closed,
            opened=len(joined.new),
            ended=len(joined.ended_cookie),
            elapsed_s=elapsed_s,
            counts=counts,
            count_rates={s: (n - counted[s]) / elapsed_s for s, n in counts.items()} if elapsed_s else {},
            rates=moved,
            trend=self._trend(),
            listeners=queues.listeners,
            queue_trend=queues.trend,
            half_open=queues.half_open,
            crowded=queues.crowded,
            stray=queues.traffic.stray,
            arrivals_per_s=queues.arrivals_per_s,
            rate_trend=self._rate_trend(),
            time_wait=Gauge(counts[State.TIME_WAIT], sample.sysctls.get("tcp_max_tw_buckets")),
            orphans=Gauge(sample.counters.get("TCP_orphan"), sample.sysctls.get("tcp_max_orphans")),
            memory_pages=Gauge(sample.counters.get("TCP_mem"), sample.sysctls.get("tcp_mem_high")),
            ports=_fullest(ports),
            ephemeral=ports,
            teardown=self._teardown.step(rows, sample, moved),
            path=self._path.step(rows, sample, moved),
            details={
                cookie: self._detail(joined.rows, sample, past, elapsed_s or math.nan, cookie) for cookie in watched
            },
            focus=focus(key, rows, queues.traffic) if key is not None else None,
            pace=self._pace(time.monotonic() - wall, time.thread_time() - cpu),
            thresholds=self._thresholds,
            past=past,
            flows=self._tally.step(sample.monotonic, lived, past) if tells_ends else None,
            trace=self._trace.step(sample, elapsed_s, self._lives.foreign, self._lives.unsure),
            scans=self._scans.step(sample.monotonic, sample.traced, sample.table) if sample.traced else (),
        )
        return replace(view, findings=self._diagnosis.step(view))

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _trend(self) -> Trend:
        slot_s, values = self._history.window(TREND_S)
        return Trend(
            slot_s, {state: tuple(column) for state, column in zip(LIFE_ORDER, values.T.tolist(), strict=True)}
        )

    def _rate_trend(self) -> RateTrend:
        slot_s, values = self._rate_history.window(TREND_S)
        return RateTrend(slot_s, {name: tuple(column) for name, column in zip(TRENDS, values.T.tolist(), strict=True)})

    def _detail(self, rows: Rows, sample: Sample, past: Past, slack_s: float, cookie: int) -> FlowDetail:
        told, at, closed = past.of([cookie])[cookie], rows.find(cookie), past.closed_of(cookie)
        now = State(int(rows.state[at])) if at is not None else None
        first = first_known(rows, at, slack_s)
        if first is None and told and closed is not None:
            first = first_recorded(closed)  # it may have been there before the first thing that is told of it
        return FlowDetail(
            sample.tcp_info.get(cookie),
            told,
            story(told, first, now),
            Ending(int(closed["ending"])) if closed is not None else None,
            self._graphs.of(cookie),
        )

    def _pace(self, duration_s: float, cpu_s: float) -> Pace:
        asked_s = self.interval_s
        return Pace(duration_s, cpu_s, asked_s, max(asked_s, cpu_s / self._budget))


def _counted(sample: Sample) -> dict[State, int]:
    per_number = np.bincount(sample.state, minlength=max(State) + 1)
    return {state: int(per_number[state]) for state in LIFE_ORDER}


def _fullest(ports: Ephemeral | None) -> Gauge:
    if ports is None:
        return Gauge(None, None)
    return Gauge(ports.fullest.used if ports.fullest else 0, ports.range.usable)
