"""View: what one step means; frozen, and all that any front end draws from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tcpwatch.config.thresholds import DEFAULT, Thresholds
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_PERMISSION
from tcpwatch.model.analyses.ephemeral_ports import EphemeralPorts
from tcpwatch.model.analyses.port_scans import PortScan
from tcpwatch.model.analyses.stalls import Stalls
from tcpwatch.model.analyses.teardown import Teardown
from tcpwatch.model.finding import Finding
from tcpwatch.model.lifecycle.archive import Archive
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.history import History
from tcpwatch.model.lifecycle.trace_stats import TraceStats
from tcpwatch.model.lifecycle.transitions import Transition
from tcpwatch.model.listeners.half_open import HalfOpenSummary
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_detail import QueueDetail
from tcpwatch.model.listeners.queue_history import QueueTrend
from tcpwatch.model.sockets.flow_graphs import FlowGraph
from tcpwatch.model.sockets.flow_totals import FlowTotals
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import State
from tcpwatch.sample import Sample


@dataclass(frozen=True, slots=True)
class Gauge:
    """A figure against its limit; either is None where it is not known."""

    value: int | None
    limit: int | None

    @property
    def share(self) -> float | None:
        """Value / limit, or None."""
        return self.value / self.limit if self.limit and self.value is not None else None


@dataclass(frozen=True, slots=True)
class Pace:
    """What polling costs and how often it happens."""

    duration_s: float
    """Wall time of this step."""
    cpu_s: float
    """Processor time of this step, this thread alone."""
    asked_s: float
    """The interval that was asked for."""
    interval_s: float
    """The interval that the budget allows: longer than `asked_s` where a step costs too much."""

    @property
    def slowed(self) -> bool:
        """The budget made the interval longer than was asked."""
        return self.interval_s > self.asked_s * 1.001

    @property
    def core_share(self) -> float:
        """Share of one core that polling takes."""
        return self.cpu_s / max(self.interval_s, 1e-9)


@dataclass(frozen=True, slots=True, eq=False)
class StateTrend:
    """The last minutes of the state counts: one value a slot, oldest first, NaN where nothing was polled."""

    slot_s: float
    counts: Mapping[State, tuple[float, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class RateTrend:
    """The last minutes of some rates: one value a slot, oldest first, NaN where nothing was polled."""

    slot_s: float
    per_s: Mapping[str, tuple[float, ...]]
    """Kernel counter, or ARRIVALS, → increase per second."""


SYN_ARRIVALS = "arrivals"
"""SYNs that left a trace: new half-open connections, cookies sent, and SYNs dropped at a full SYN queue."""


@dataclass(frozen=True, slots=True, eq=False)
class FlowDetail:
    """More about a flow that somebody looks at."""

    tcp_info: Mapping[str, int] | None
    """Fields without `tcpi_`; None where the socket has none or has gone."""
    transitions: tuple[Transition, ...]
    """What happened to it, oldest first, whoever told it."""
    history: History = field(default_factory=History)
    """The same put together: its states, each with its time and how that is known."""
    ending: Ending | None = None
    """How its full socket ended, though it may go on in TIME_WAIT; None while it has not."""
    graph: FlowGraph | None = None
    """Its figures since it is watched; None where the source does not tell them."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One step's result."""

    step: int
    """1 for the first."""
    sample: Sample
    rows: Rows
    """Every socket of the sample, sorted by cookie."""
    closed: Rows
    """Flows that ended since the step before (the first ones, where they are very many), marked CLOSED."""
    opened: int
    ended: int
    """Flows that appeared and vanished between the two samples; 0 on the first step."""
    elapsed_s: float | None
    """Time between the two samples; None on the first step."""
    counts: Mapping[State, int]
    """Sockets in each of the eleven states."""
    count_rates: Mapping[State, float]
    """Change of those counts per second; empty on the first step."""
    rates: Mapping[str, float]
    """Kernel counter → increase per second; counters that went backwards, gauges, and the first step are absent."""
    state_trend: StateTrend
    listeners: tuple[Listener, ...]
    """By fullest accept queue, then port."""
    queue_trend: QueueTrend
    half_open: HalfOpenSummary
    half_open_by_listener: Mapping[ListenerKey, HalfOpenSummary]
    """The half-open connections of each listener whose SYN queue is, or was in the last seconds, nearly full."""
    half_open_without_listener: int
    """Half-open connections whose listener has gone."""
    syn_arrivals_per_s: float | None
    """SYNs that left a trace (see ARRIVALS); None on the first step."""
    rate_trend: RateTrend
    time_wait: Gauge
    orphans: Gauge
    memory_pages: Gauge
    """TCP's memory (sockstat `mem`, pages) against the last of the three figures of tcp_mem."""
    port_usage: Gauge
    """Ephemeral ports in use toward the fullest destination, of those that connect() may use toward it."""
    ephemeral_ports: EphemeralPorts | None
    """Ephemeral ports, by destination; None where the kernel does not tell their range."""
    teardown: Teardown
    stalls: Stalls
    details: Mapping[int, FlowDetail]
    """Cookie → detail, for the flows that are watched."""
    queue_detail: QueueDetail | None
    """What is inside the queues that somebody looks into."""
    pace: Pace
    thresholds: Thresholds = DEFAULT
    """Where the rules begin to speak."""
    findings: tuple[Finding, ...] = ()
    """What is wrong, the most severe first."""
    archive: Archive = field(default_factory=Archive)
    """What happened to flows, and those that closed lately."""
    flow_totals: FlowTotals | None = None
    """How many open and end, and how long they live; None where the source does not tell of ends."""
    trace: TraceStats = field(default_factory=TraceStats)
    port_scans: tuple[PortScan, ...] = ()
    """Who met a reset at several ports of this host in the last seconds; needs the trace."""

    @property
    def hidden_owners(self) -> int:
        """Sockets whose owner is not shown for want of privilege."""
        return int(np.count_nonzero(self.rows.owner == UNKNOWN_PERMISSION))

    @property
    def fullest_accept_queue(self) -> Listener | None:
        """The listener whose accept queue is nearest to its limit."""
        return max(self.listeners, key=lambda one: one.accept_queue.share, default=None)

    @property
    def fullest_syn_queue(self) -> Listener | None:
        """The listener whose SYN queue is nearest to its limit."""
        return max(self.listeners, key=lambda one: one.syn_queue.share, default=None)
