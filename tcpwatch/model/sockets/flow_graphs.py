"""FlowGraphs: the figures of the watched flows over time.

A graph has SLOTS slots for the whole time since the flow was first watched. When they are full, each two are merged
into one of twice the length: rates by their mean, weighted by the time that each covers, so that the bytes add up;
queues by the larger, so that a burst stays visible; round trip time and congestion window by the later. The figures of
a poll count for the time since the previous poll. Slots stay empty while the flow is not watched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.payload import without_control_bytes
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import Role, State
from tcpwatch.sample import Sample

SLOTS = 256
SLOT_S = 1.0
"""Seconds per slot of a new graph."""
KEPT = 64
"""Graphs that are kept; beyond it, the least recently watched are dropped."""


@dataclass(frozen=True, slots=True)
class FlowGraph:
    """Columns of equal length, one value per slot, oldest first; NaN where a figure is unknown."""

    begin: float
    """Unix seconds of the first slot."""
    slot_s: float
    """Seconds per slot; doubles each time the slots are full."""
    rx_bytes_per_s: tuple[float, ...] = ()
    tx_bytes_per_s: tuple[float, ...] = ()
    rtt_us: tuple[float, ...] = ()
    cwnd: tuple[float, ...] = ()
    """Segments."""
    recv_queue: tuple[float, ...] = ()
    send_queue: tuple[float, ...] = ()
    """Bytes."""


class FlowGraphs:
    """Keeps the graphs of the flows that are or were watched."""

    def __init__(self, kept: int = KEPT, slots: int = SLOTS) -> None:
        """`slots` is even."""
        self._kept, self._slots = kept, slots
        self._flows: dict[int, _Flow] = {}
        """The least recently watched first."""

    def __len__(self) -> int:
        return len(self._flows)

    def step(self, poll: Poll, watched: frozenset[int]) -> None:
        """Add the figures of the watched flows; the graph of a flow that has ended stays as it is."""
        sample = poll.sample
        for cookie in self._flows.keys() - watched:
            self._flows[cookie].leave()
        for cookie in watched:
            flow = self._flows.pop(cookie, None)
            figures = _figures(sample, poll.rows, cookie)
            if figures is not None:
                flow = flow or _Flow(sample.time, sample.monotonic, self._slots)
                flow.add(sample.monotonic, figures)
            if flow is not None:
                self._flows[cookie] = flow
        while len(self._flows) > self._kept:
            del self._flows[next(iter(self._flows))]

    def get(self, cookie: int) -> FlowGraph | None:
        """Return the graph of this flow; None where it was never watched, or its graph was dropped."""
        flow = self._flows.get(cookie)
        return flow.graph() if flow else None


@dataclass(frozen=True, slots=True)
class _Figures:
    """The figures of one flow in one sample; NaN where unknown."""

    received: float
    acked: float
    """Bytes of data since the flow began."""
    levels: NDArray[np.float64]
    """rtt_us, cwnd, recv_queue, send_queue."""


def _figures(sample: Sample, rows: Rows, cookie: int) -> _Figures | None:
    info, at = sample.watched_tcp_info.get(cookie), rows.find(cookie)
    if at is None and info is None:
        return None
    info = info or {}
    rtt, cwnd = _field(info, "rtt") or np.nan, _field(info, "snd_cwnd")  # 0: RTT not measured yet
    queues = (np.nan, np.nan)
    # A socket in TIME_WAIT has no queues, but the kernel reports 0.
    if at is not None and rows.state[at] != State.TIME_WAIT and sample.capabilities.queues:
        queues = float(rows.table["idiag_rqueue"][at]), float(rows.table["idiag_wqueue"][at])
    data = without_control_bytes(info, client=at is not None and rows.role[at] == Role.CLIENT)
    return _Figures(_field(data, "bytes_received"), _field(data, "bytes_acked"), np.array([rtt, cwnd, *queues]))


def _field(info: Mapping[str, int], name: str) -> float:
    return float(info[name]) if name in info else np.nan


_RATES, _LAST, _MOST, _SECONDS = slice(0, 2), slice(2, 4), slice(4, 6), 6
"""Rows of a flow's values: rates, RTT and window, queues, and the seconds that the rates cover."""


class _Flow:
    def __init__(self, time: float, monotonic: float, slots: int) -> None:
        self._time, self._monotonic = time, monotonic
        self._slot_s = SLOT_S
        self._values = _empty(slots)
        self._used = 0
        self._last: tuple[float, _Figures] | None = None
        """Monotonic seconds and figures of the previous sample; None where the flow was not watched then."""

    def leave(self) -> None:
        """Called when the flow is not watched any more."""
        self._last = None

    def add(self, now: float, figures: _Figures) -> None:
        """Add the figures of a sample at `now` (monotonic seconds)."""
        begun = self._last[0] if self._last else now
        while self._slot(now) >= self._values.shape[1]:
            self._halve()
        if self._last and now > begun:
            self._add_rates(begun, now, _rates(self._last[1], figures, now - begun))
        before, last = self._slot(begun), self._slot(now)
        # The slot of the previous sample keeps its levels, unless this sample falls into the same slot.
        self._add_levels(slice(min(before + 1, last), last + 1), figures.levels)
        self._used = max(self._used, last + 1)
        self._last = now, figures

    def graph(self) -> FlowGraph:
        """Return the graph up to now."""
        rx, tx, rtt, cwnd, receive, send = (tuple(row) for row in self._values[:_SECONDS, : self._used].tolist())
        return FlowGraph(self._time, self._slot_s, rx, tx, rtt, cwnd, receive, send)

    def _slot(self, monotonic: float) -> int:
        """Return the slot of a moment. A slot includes its end and not its begin: a poll covers the time before it."""
        return max(0, math.ceil((monotonic - self._monotonic) / self._slot_s) - 1)

    def _add_rates(self, begun: float, now: float, rates: NDArray[np.float64]) -> None:
        """Add the rates to each slot that the time from `begun` to `now` touches."""
        for at in range(self._slot(begun), self._slot(now) + 1):
            starts = self._monotonic + at * self._slot_s
            seconds = min(now, starts + self._slot_s) - max(begun, starts)
            if seconds > 0 and not np.isnan(rates).all():
                part = np.array([*rates, *[np.nan] * 4, seconds])
                self._values[:, at] = _merged(self._values[:, at, None], part[:, None])[:, 0]

    def _add_levels(self, where: slice, levels: NDArray[np.float64]) -> None:
        slots, later = self._values[2:_SECONDS, where], levels[:, None]
        slots[:2] = np.where(np.isnan(later[:2]), slots[:2], later[:2])
        slots[2:] = np.fmax(slots[2:], later[2:])

    def _halve(self) -> None:
        halved = _merged(self._values[:, 0::2], self._values[:, 1::2])
        self._values = np.concatenate((halved, _empty(halved.shape[1])), axis=1)
        self._slot_s *= 2
        self._used = (self._used + 1) // 2


def _rates(before: _Figures, now: _Figures, seconds: float) -> NDArray[np.float64]:
    grown = np.array([now.received - before.received, now.acked - before.acked])
    grown[grown < 0] = np.nan  # TCP_REPAIR may reset the counters
    return grown / seconds


def _empty(slots: int) -> NDArray[np.float64]:
    values = np.full((_SECONDS + 1, slots), np.nan)
    values[_SECONDS] = 0
    return values


def _merged(earlier: NDArray[np.float64], later: NDArray[np.float64]) -> NDArray[np.float64]:
    """Merge slots pairwise, as described at the top of this module."""
    merged = np.empty_like(earlier)
    seconds = np.stack((earlier[_SECONDS], later[_SECONDS]))[:, None]
    both = np.stack((earlier[_RATES], later[_RATES]))
    weight = np.where(np.isnan(both), 0.0, seconds)
    total = weight.sum(axis=0)
    bytes_moved = (np.nan_to_num(both) * weight).sum(axis=0)
    merged[_RATES] = np.where(total > 0, bytes_moved / np.where(total > 0, total, 1.0), np.nan)
    merged[_LAST] = np.where(np.isnan(later[_LAST]), earlier[_LAST], later[_LAST])
    merged[_MOST] = np.fmax(earlier[_MOST], later[_MOST])
    merged[_SECONDS] = earlier[_SECONDS] + later[_SECONDS]
    return merged
