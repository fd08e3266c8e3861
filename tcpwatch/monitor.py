"""Monitor.step(): one Sample in, one frozen View out. The analyses read no clock, they use the times of the samples."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from tcpwatch.arrays.heap import Heap
from tcpwatch.config.memory import BUDGET
from tcpwatch.config.thresholds import DEFAULT, Thresholds
from tcpwatch.model.analyses.ephemeral_ports import EphemeralPortAnalysis, EphemeralPorts
from tcpwatch.model.analyses.port_scans import PortScanAnalysis
from tcpwatch.model.analyses.retransmits import RetransmitAnalysis
from tcpwatch.model.analyses.stalls import StallAnalysis
from tcpwatch.model.analyses.teardown import TeardownAnalysis
from tcpwatch.model.lifecycle.archive import Archive
from tcpwatch.model.lifecycle.connection_detail import connection_detail
from tcpwatch.model.lifecycle.trace.stats import TraceStatsCounter
from tcpwatch.model.lifecycle.tracker import Tracker
from tcpwatch.model.listeners.listener_drops import ListenerDropAnalysis
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.listeners.queue_analysis import QueueAnalysis
from tcpwatch.model.listeners.queue_detail import queue_detail
from tcpwatch.model.poll import Poll, SampleJoiner
from tcpwatch.model.rules.engine import RuleEngine
from tcpwatch.model.sockets.flow_graphs import FlowGraphs
from tcpwatch.model.sockets.flow_totals import FlowTotalsCounter
from tcpwatch.model.states import State
from tcpwatch.model.trends import RateHistory, StateCounter
from tcpwatch.model.view import FlowDetail, Gauge, Pace, View
from tcpwatch.sources.base import Source, SourceError


class Monitor:
    """Polls a source and runs the analyses on each sample. One thread calls `step`."""

    def __init__(
        self,
        source: Source,
        interval_s: float = 1.0,
        budget: float = 0.25,
        thresholds: Thresholds = DEFAULT,
        memory_mib: int = 64,
    ) -> None:
        """`budget` is the share of one core that polling may take; `memory_mib` is for transitions and records."""
        self.interval_s = interval_s
        """The interval that a person asked for, in seconds; may be set at any time."""
        self.watched: frozenset[int] = frozenset()
        """Cookies of the connections whose detail the next View should contain; may be set at any time."""
        self.watched_queue: ListenerKey | None = None
        """The listening address and port whose queues the next View should list; may be set at any time."""
        self._source = source
        self._budget = budget
        self._thresholds = thresholds
        self._memory_mib = memory_mib
        self._heap = Heap()
        self._had_many_events = False
        self._begin_history()

    def _begin_history(self) -> None:
        """Make new analyses."""
        thresholds = self._thresholds
        self._step = 0
        self._joiner = SampleJoiner()
        self._state_counter = StateCounter()
        self._rate_history = RateHistory()
        self._tracker = Tracker(self._memory_mib)
        self._flow_totals = FlowTotalsCounter()
        self._trace_stats = TraceStatsCounter()
        self._graphs = FlowGraphs()
        self._queues = QueueAnalysis(thresholds.syn_queue_share)
        self._listener_drops = ListenerDropAnalysis(thresholds.listener_drops_s)
        self._teardown = TeardownAnalysis(
            thresholds.close_wait_age_s, thresholds.half_closed_age_s, thresholds.close_wait_count
        )
        self._stalls = StallAnalysis(thresholds)
        self._retransmits = RetransmitAnalysis(thresholds.retransmissions_window_s)
        self._ephemeral_ports = EphemeralPortAnalysis()
        self._port_scans = PortScanAnalysis()
        self._rules = RuleEngine()

    def step(self) -> View:
        """Poll once. Raises SourceError where no sample can be had; the next step tries again.

        After any other exception the analyses do not fit together: the next step begins without a history.
        """
        try:
            return self._poll()
        except (SourceError, OSError):
            raise
        except Exception:
            self._begin_history()
            raise
        finally:
            self._heap.after_step(self._had_many_events)

    def _poll(self) -> View:
        begin_s, begin_cpu_s = time.monotonic(), time.thread_time()
        watched, watched_queue = self.watched, self.watched_queue
        wanted = self._queues.wanted_tcp_info | self._teardown.wanted_tcp_info | self._stalls.wanted_tcp_info
        sample = self._source.sample(watched | wanted | self._joiner.wanted_tcp_info)
        self._step += 1
        self._had_many_events = sample.event_count > BUDGET.slice
        poll = self._joiner.step(sample)
        states = self._state_counter.step(poll)
        lifecycle = self._tracker.step(poll)
        queues = self._queues.step(poll)
        ports = self._ephemeral_ports.step(poll)
        self._graphs.step(poll, watched)
        view = View(
            step=self._step,
            sample=sample.without_events(),
            rows=poll.rows,
            closed=poll.join.closed,
            opened=len(poll.join.new),
            ended=len(poll.join.ended_cookie),
            elapsed_s=poll.elapsed_s,
            counts=states.counts,
            count_rates=states.per_s,
            state_trend=states.trend,
            rates=poll.rates,
            rate_trend=self._rate_history.step(poll, queues.syn_arrivals_per_s),
            listeners=queues.listeners,
            listener_drops=self._listener_drops.step(poll, queues.listeners.busy(), self._thresholds.syn_queue_share),
            queue_trend=queues.trend,
            half_open=queues.half_open,
            half_open_by_listener=queues.half_open_by_listener,
            half_open_without_listener=queues.facts.without_listener,
            syn_arrivals_per_s=queues.syn_arrivals_per_s,
            accepted_at_most_per_s=queues.accepted_at_most_per_s,
            queue_detail=queue_detail(watched_queue, poll.rows, queues.facts) if watched_queue is not None else None,
            time_wait=Gauge(states.counts[State.TIME_WAIT], sample.sysctls.get("tcp_max_tw_buckets")),
            orphans=Gauge(sample.counters.get("TCP_orphan"), sample.sysctls.get("tcp_max_orphans")),
            memory_pages=Gauge(sample.counters.get("TCP_mem"), sample.sysctls.get("tcp_mem_high")),
            port_usage=_port_usage(ports),
            ephemeral_ports=ports,
            teardown=self._teardown.step(poll),
            stalls=self._stalls.step(poll, lifecycle),
            retransmits=self._retransmits.step(poll),
            port_scans=self._port_scans.step(poll),
            archive=lifecycle.archive,
            flow_totals=self._flow_totals.step(poll, lifecycle),
            trace=self._trace_stats.step(poll, lifecycle),
            details={cookie: self._detail(poll, lifecycle.archive, cookie) for cookie in watched},
            thresholds=self._thresholds,
            pace=self._pace(time.monotonic() - begin_s, time.thread_time() - begin_cpu_s),
        )
        return replace(view, findings=self._rules.step(view))

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _detail(self, poll: Poll, archive: Archive, cookie: int) -> FlowDetail:
        transitions, record = archive.transitions_of([cookie])[cookie], archive.last_record(cookie)
        slack_s = poll.elapsed_s or math.nan
        detail = connection_detail(transitions, poll.rows, poll.rows.find(cookie), record, slack_s)
        tcp_info, graph = poll.sample.watched_tcp_info.get(cookie), self._graphs.get(cookie)
        return FlowDetail(tcp_info, transitions, detail.history, detail.ending, graph)

    def _pace(self, duration_s: float, cpu_s: float) -> Pace:
        asked_s = self.interval_s
        return Pace(duration_s, cpu_s, asked_s, max(asked_s, cpu_s / self._budget))


def _port_usage(ports: EphemeralPorts | None) -> Gauge:
    """Return the usage toward the destination that uses most ports, or of the range if that is nearer to its limit."""
    return Gauge(None, None) if ports is None else Gauge(*ports.meter)
