"""View: the result of one step, frozen. Every front end draws from it alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tcpwatch.config.thresholds import DEFAULT, Thresholds
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_PERMISSION
from tcpwatch.model.analyses.ephemeral_ports import EphemeralPorts
from tcpwatch.model.analyses.port_scans import PortScan
from tcpwatch.model.analyses.retransmits import Retransmits
from tcpwatch.model.analyses.stalls import Stalls
from tcpwatch.model.analyses.teardown import Teardown
from tcpwatch.model.finding import Finding
from tcpwatch.model.lifecycle.archive import Archive
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.history import History
from tcpwatch.model.lifecycle.trace.stats import TraceStats
from tcpwatch.model.lifecycle.transitions import Transition
from tcpwatch.model.listeners.half_open import HalfOpenSummary
from tcpwatch.model.listeners.listener_drops import ListenerDrops
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.listeners.listener_table import Listeners
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_detail import QueueDetail
from tcpwatch.model.listeners.queue_history import QueueTrend
from tcpwatch.model.sockets.flow_graphs import FlowGraph
from tcpwatch.model.sockets.flow_totals import FlowTotals
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import State
from tcpwatch.model.trends import Trend
from tcpwatch.sample import Sample


@dataclass(frozen=True, slots=True)
class Gauge:
    """A figure and its limit; either is None where it is unknown."""

    value: int | None
    limit: int | None

    @property
    def share(self) -> float | None:
        """Return value / limit; None where either is unknown."""
        return self.value / self.limit if self.limit and self.value is not None else None


@dataclass(frozen=True, slots=True)
class Pace:
    """The cost of polling, and its interval."""

    duration_s: float
    """Wall time of this step."""
    cpu_s: float
    """Processor time of this step, of the poll thread alone."""
    asked_s: float
    """The interval that a person asked for."""
    interval_s: float
    """The interval that the budget allows; longer than `asked_s` where a step costs too much."""

    @property
    def slowed(self) -> bool:
        """Whether the budget makes the interval longer than a person asked for."""
        return self.interval_s > self.asked_s * 1.001

    @property
    def core_share(self) -> float:
        """Return the share of one core that polling takes."""
        return self.cpu_s / max(self.interval_s, 1e-9)


@dataclass(frozen=True, slots=True, eq=False)
class FlowDetail:
    """Details of one watched connection."""

    tcp_info: Mapping[str, int] | None
    """Field name without `tcpi_` → value; None where the socket has none (TIME_WAIT) or is closed."""
    transitions: tuple[Transition, ...]
    """Oldest first."""
    history: History = field(default_factory=History)
    """Its states, put together from the transitions, each with its time and how that is known."""
    ending: Ending | None = None
    """How the connection ended (it may still be in TIME_WAIT); None while it is open."""
    graph: FlowGraph | None = None
    """Its figures since it is watched; None where the source has none."""


@dataclass(frozen=True, eq=False)
class View:
    """The result of one step."""

    step: int
    """1 for the first."""
    sample: Sample
    rows: Rows
    """Every socket of the sample, sorted by cookie."""
    closed: Rows
    """Sockets that closed since the previous step, marked CLOSED; at most join.CLOSED_KEPT of them."""
    opened: int
    ended: int
    """Sockets that appeared and disappeared between the two samples; 0 on the first step."""
    elapsed_s: float | None
    """Seconds between the two samples; None on the first step."""
    counts: Mapping[State, int]
    """Sockets in each of the eleven states."""
    count_rates: Mapping[State, float]
    """Change of those counts per second; empty on the first step."""
    rates: Mapping[str, float]
    """Kernel counter → increase per second; counters that went backwards, gauges, and the first step are absent."""
    state_trend: Mapping[State, Trend]
    """Sockets in each state."""
    listeners: Sequence[Listener]
    """The fullest accept queue first, then by port."""
    queue_trend: QueueTrend
    half_open: HalfOpenSummary
    half_open_by_listener: Mapping[ListenerKey, HalfOpenSummary]
    """For listeners whose SYN queue is, or was in the last seconds, nearly full: the deepest queues."""
    half_open_without_listener: int
    """Half-open connections whose listener is closed or not known."""
    syn_arrivals_per_s: float | None
    """See trends.SYN_ARRIVALS; None on the first step."""
    rate_trend: Mapping[str, Trend]
    """Name from TREND_RATES → increase per second."""
    time_wait: Gauge
    orphans: Gauge
    memory_pages: Gauge
    """TCP's memory (sockstat `mem`, pages) and the last of the three figures of tcp_mem."""
    port_usage: Gauge
    """Ephemeral ports in use and their limit: see EphemeralPorts.meter."""
    ephemeral_ports: EphemeralPorts | None
    """By destination; None where the port range is unknown."""
    teardown: Teardown
    stalls: Stalls
    details: Mapping[int, FlowDetail]
    """Cookie → detail, of the watched connections."""
    queue_detail: QueueDetail | None
    """The members of the watched queues."""
    pace: Pace
    retransmits: Retransmits = field(default_factory=Retransmits)
    listener_drops: tuple[ListenerDrops, ...] = ()
    """Segments that listeners dropped lately for another reason than a full queue."""
    """Of the last seconds."""
    thresholds: Thresholds = DEFAULT
    """The thresholds of the rules."""
    findings: tuple[Finding, ...] = ()
    """The most severe first."""
    archive: Archive = field(default_factory=Archive)
    """Transitions, and records of connections that closed."""
    flow_totals: FlowTotals | None = None
    """None where the source does not report destroyed sockets."""
    trace: TraceStats = field(default_factory=TraceStats)
    accepted_at_most_per_s: float | None = None
    """Connections accepted by all listeners together, at most; None on the first step and where unknown."""
    port_scans: tuple[PortScan, ...] = ()
    """Needs the trace."""

    @cached_property
    def busy_listeners(self) -> tuple[Listener, ...]:
        """The listeners whose figures may concern a rule, in the order of `listeners`: see Listener.is_busy."""
        if isinstance(self.listeners, Listeners):
            return self.listeners.busy()
        return tuple(listener for listener in self.listeners if listener.is_busy)

    def listeners_whose_key(self, is_wanted: Callable[[ListenerKey], bool]) -> tuple[Listener, ...]:
        """Return the listeners whose key is wanted, in the order of `listeners`."""
        if isinstance(self.listeners, Listeners):
            return self.listeners.whose_key(is_wanted)
        return tuple(listener for listener in self.listeners if is_wanted(listener.key))

    def listeners_with_cookies(self, cookies: Collection[int], most: int | None = None) -> tuple[Listener, ...]:
        """Return the listeners with these cookies, or the first `most` of them, in the order of `listeners`."""
        if isinstance(self.listeners, Listeners):
            return self.listeners.with_cookies(cookies, most)
        return tuple(listener for listener in self.listeners if listener.cookie in cookies)[:most]

    @cached_property
    def memo(self) -> dict[Hashable, Any]:
        """Results that functions of this View keep, as they are needed for each of many listeners."""
        return {}

    def group_of(self, listener: Listener) -> Sequence[Listener]:
        """Return the listeners with the key of this one, in the order of `listeners`."""
        if listener.group_size == 1:
            return (listener,)
        if listener.key not in self.memo:
            self.memo[listener.key] = self.listeners_whose_key(listener.key.__eq__)
        group: Sequence[Listener] = self.memo[listener.key]
        return group

    @property
    def hidden_owners(self) -> int:
        """Return the number of sockets whose owner is hidden for lack of privilege."""
        return int(np.count_nonzero(self.rows.owner == UNKNOWN_PERMISSION))
