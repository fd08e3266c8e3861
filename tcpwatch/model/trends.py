"""Trends: the last minutes of the state counts and of some rates, for sparklines and for rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tcpwatch.arrays.time_series import TimeSeries
from tcpwatch.model.poll import Poll
from tcpwatch.model.states import STATE_ORDER, State

TREND_S = 120
"""Seconds that a trend covers."""
SYN_ARRIVALS = "arrivals"
"""SYNs that left a mark: new half-open connections, cookies sent, and SYNs dropped at a full SYN queue."""
TREND_RATES = (
    SYN_ARRIVALS, "SyncookiesSent", "SyncookiesRecv", "SyncookiesFailed", "TCPReqQFullDoCookies",
    "TCPReqQFullDrop", "ListenOverflows", "ListenDrops", "OutRsts", "EmbryonicRsts", "EstabResets", "RetransSegs",
    "TCPSynRetrans", "TCPOrigDataSent",
)  # fmt: skip
"""The rates that have a trend: SYN_ARRIVALS and kernel counters."""


@dataclass(frozen=True, slots=True, eq=False)
class StateTrend:
    """Sockets in each state: one value per slot, oldest first, NaN where nothing was polled."""

    slot_s: float
    counts: Mapping[State, tuple[float, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class RateTrend:
    """Rates: one value per slot, oldest first, NaN where nothing was polled."""

    slot_s: float
    per_s: Mapping[str, tuple[float, ...]]
    """Name from TREND_RATES → increase per second."""


@dataclass(frozen=True, slots=True, eq=False)
class StateCounts:
    """Sockets in each of the eleven states."""

    counts: Mapping[State, int]
    per_s: Mapping[State, float]
    """Change of the counts per second; empty on the first poll."""
    trend: StateTrend


class StateCounter:
    """Counts the sockets in each state."""

    def __init__(self) -> None:
        self._history = TimeSeries([state.name for state in STATE_ORDER])
        self._counts: dict[State, int] = {}

    def step(self, poll: Poll) -> StateCounts:
        """Return the counts, how fast they change, and their trend."""
        per_number = np.bincount(poll.sample.state, minlength=max(State) + 1)
        before, self._counts = self._counts, {state: int(per_number[state]) for state in STATE_ORDER}
        counts, elapsed_s = self._counts, poll.elapsed_s
        self._history.add(poll.sample.monotonic, {state.name: count for state, count in counts.items()})
        slot_s, values = self._history.window(TREND_S)
        columns = zip(STATE_ORDER, values.T.tolist(), strict=True)
        return StateCounts(
            counts,
            {state: (count - before[state]) / elapsed_s for state, count in counts.items()} if elapsed_s else {},
            StateTrend(slot_s, {state: tuple(column) for state, column in columns}),
        )


class RateHistory:
    """Remembers TREND_RATES."""

    def __init__(self) -> None:
        self._history = TimeSeries(TREND_RATES)

    def step(self, poll: Poll, syn_arrivals_per_s: float | None) -> RateTrend:
        """Return the trend of the rates; the first poll, which has no arrivals either, adds nothing."""
        if syn_arrivals_per_s is not None:
            self._history.add(poll.sample.monotonic, {**poll.rates, SYN_ARRIVALS: syn_arrivals_per_s})
        slot_s, values = self._history.window(TREND_S)
        columns = zip(TREND_RATES, values.T.tolist(), strict=True)
        return RateTrend(slot_s, {name: tuple(column) for name, column in columns})
