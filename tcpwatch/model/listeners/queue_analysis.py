"""Queues: what each step finds out about accept queues and SYN queues, and what it remembers for the next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.listeners.half_open import HalfOpenSummary, half_open_sockets, half_open_summary
from tcpwatch.model.listeners.listener_keys import ListenerKey, ListenerKeys
from tcpwatch.model.listeners.listeners import Listener, QueueFacts, listeners
from tcpwatch.model.listeners.queue_history import QueueHistory, QueueTrend
from tcpwatch.model.listeners.waiting_connections import (
    AGE_FIELDS,
    WaitingConnections,
    accepted_by_key,
    no_waiting_connections,
    waiting_connections,
)
from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.rows import Mark
from tcpwatch.model.sockets.since import Since
from tcpwatch.model.states import State
from tcpwatch.sample import Sample

LATELY_S = 10
"""A flooded SYN queue loses half of its members at once every 7 s or so: how full it was is judged over so long."""


@dataclass(frozen=True, slots=True, eq=False)
class ListenerQueues:
    """The queues of one step."""

    facts: QueueFacts
    listeners: tuple[Listener, ...]
    trend: QueueTrend
    half_open: HalfOpenSummary
    half_open_by_listener: Mapping[ListenerKey, HalfOpenSummary]
    """As in View."""
    syn_arrivals_per_s: float | None


class QueueAnalysis:
    """One thread calls `step`, once a sample."""

    def __init__(self, crowded_share: float) -> None:
        """From `crowded_share` of its limit on a SYN queue is looked at by itself."""
        self._crowded_share = crowded_share
        self._waiting: WaitingConnections | None = None
        self._waiting_since = Since(*AGE_FIELDS)
        self._history = QueueHistory()

    @property
    def wanted_tcp_info(self) -> frozenset[int]:
        """Cookies whose tcp_info the next sample should contain."""
        return self._waiting_since.wanted_tcp_info

    def step(self, poll: Poll) -> ListenerQueues:
        """Return the queues of this poll."""
        sample, keys, queues_known = poll.sample, poll.join.listener_keys, poll.sample.capabilities.queues
        found = half_open_sockets(poll)
        now = waiting_connections(poll, self._waiting_since) if queues_known else no_waiting_connections()
        given = accepted_by_key(poll, self._waiting, now) if queues_known and self._waiting else None
        self._waiting = now
        depth = found.count_by_key(len(keys.keys))
        peak = self._remember(keys, sample, depth, queues_known)
        traffic = QueueFacts(keys, found, now, given, depth, peak)
        listening = listeners(poll, traffic)
        whole = half_open_summary(found)
        return ListenerQueues(
            traffic,
            listening,
            self._history.trend(),
            whole,
            self._crowded(listening, traffic, whole),
            _arrivals_per_s(poll, poll.elapsed_s) if poll.elapsed_s else None,
        )

    def _remember(
        self, listening: ListenerKeys, sample: Sample, depth: NDArray[np.intp], told: bool
    ) -> NDArray[np.intp]:
        """Add to the history; returns the deepest SYN queue of the last seconds, for each key."""
        cookies = sample.cookie[listening.row].tolist()
        accept = sample.table["idiag_rqueue"][listening.row].tolist()
        peaks = [
            max(now, sample.accept_queue_peaks.get(cookie, 0)) if told else math.nan
            for now, cookie in zip(accept, cookies, strict=True)
        ]
        self._history.add(sample.monotonic, cookies, peaks, depth[listening.key].tolist())
        deepest = np.zeros(len(depth), np.intp)
        np.maximum.at(deepest, listening.key, self._history.syn_peaks(LATELY_S))
        return deepest

    def _crowded(
        self, listening: tuple[Listener, ...], traffic: QueueFacts, whole: HalfOpenSummary
    ) -> dict[ListenerKey, HalfOpenSummary]:
        keys = traffic.listener_keys.keys
        crowded = {}
        for one in listening:
            limit = one.syn_queue.limit
            if limit is not None and one.syn_peak >= self._crowded_share * max(limit, 1) and one.key not in crowded:
                mine = traffic.half_open.for_key(keys.index(one.key))
                crowded[one.key] = whole if mine is traffic.half_open else half_open_summary(mine)
        return crowded


def _arrivals_per_s(poll: Poll, elapsed_s: float) -> float:
    """SYNs per second that left a trace.

    Half-open now and not before, finished since the step before without being seen, answered by a cookie, dropped.
    ListenOverflows are left out: they count dropped last ACKs too.
    """
    new = (poll.rows.mark == Mark.NEW) & (poll.rows.state == State.SYN_RCVD)
    fresh = int(np.count_nonzero(new)) / elapsed_s
    left = int(np.count_nonzero(poll.join.old_state == State.SYN_RCVD)) / elapsed_s
    names = ("PassiveOpens", "SyncookiesSent", "SyncookiesRecv", "ListenDrops", "ListenOverflows")
    opened, sent, returned, drops, overflows = (poll.rates.get(name, 0.0) for name in names)
    return fresh + max(0.0, opened - returned - left) + sent + max(0.0, drops - overflows)
