"""Trends: the last minutes of the state counts and of some rates, for sparklines and for rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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


Trend = tuple[float, ...]
"""One value per second of the last TREND_S, oldest first, NaN where nothing was polled."""


@dataclass(frozen=True, slots=True, eq=False)
class StateCounts:
    """Sockets in each of the eleven states."""

    counts: Mapping[State, int]
    per_s: Mapping[State, float]
    """Change of the counts per second; empty on the first poll."""
    trend: Mapping[State, Trend]


class StateCounter:
    """Counts the sockets in each state."""

    def __init__(self) -> None:
        self._history = TimeSeries(STATE_ORDER, TREND_S)
        self._counts: dict[State, int] = {}

    def step(self, poll: Poll) -> StateCounts:
        """Return the counts, how fast they change, and their trend."""
        before, self._counts = self._counts, {state: poll.sample.count(state) for state in STATE_ORDER}
        counts, elapsed_s = self._counts, poll.elapsed_s
        self._history.add(poll.sample.monotonic, counts)
        return StateCounts(
            counts,
            {state: (count - before[state]) / elapsed_s for state, count in counts.items()} if elapsed_s else {},
            self._history.values(),
        )


class RateHistory:
    """Remembers TREND_RATES."""

    def __init__(self) -> None:
        self._history = TimeSeries(TREND_RATES, TREND_S)

    def step(self, poll: Poll, syn_arrivals_per_s: float | None) -> Mapping[str, Trend]:
        """Return the trend of the rates; the first poll, which has no arrivals either, adds nothing."""
        if syn_arrivals_per_s is not None:
            self._history.add(poll.sample.monotonic, {**poll.rates, SYN_ARRIVALS: syn_arrivals_per_s})
        return self._history.values()
