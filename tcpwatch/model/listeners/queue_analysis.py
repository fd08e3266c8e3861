"""QueueAnalysis: the accept queues and SYN queues of each poll, with a history of their depths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.netlink import uapi
from tcpwatch.model.listeners.accept_stalls import AcceptStalls
from tcpwatch.model.listeners.half_open import (
    HalfOpenSockets,
    HalfOpenSummary,
    half_open_sockets,
    half_open_summary,
)
from tcpwatch.model.listeners.listener_keys import ListenerKey, ListenerKeys
from tcpwatch.model.listeners.listener_table import Listeners, ListenerTable
from tcpwatch.model.listeners.listeners import QueueFacts
from tcpwatch.model.listeners.queue_history import QueueHistory, QueueTrend
from tcpwatch.model.listeners.queue_limits import syn_queue_limits
from tcpwatch.model.listeners.waiting_connections import (
    AGE_FIELDS,
    WaitingConnections,
    accepted_by_key,
    waiting_connections,
)
from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.rows import Mark
from tcpwatch.model.sockets.since import Since
from tcpwatch.model.states import State
from tcpwatch.sample import Sample

PEAK_S = 10
"""The peak of a SYN queue is taken over so many seconds, as about every 7 s half of a flooded queue expires at once."""

SUMMARIES = 64
"""Listeners whose half-open connections are summed up."""


@dataclass(frozen=True, slots=True, eq=False)
class ListenerQueues:
    """The queues of one poll."""

    facts: QueueFacts
    listeners: Listeners
    trend: QueueTrend
    half_open: HalfOpenSummary
    half_open_by_listener: Mapping[ListenerKey, HalfOpenSummary]
    """For the listeners whose SYN queue is nearly full or was in the last PEAK_S: the SUMMARIES deepest queues."""
    syn_arrivals_per_s: float | None
    accepted_at_most_per_s: float | None
    """Accepted by all listeners together, at most; None on the first step and where the kernel lacks the counter."""


class QueueAnalysis:
    """Analysis of the queues."""

    def __init__(self, nearly_full_share: float) -> None:
        """A SYN queue is nearly full from `nearly_full_share` of its limit on."""
        self._nearly_full_share = nearly_full_share
        self._waiting: WaitingConnections | None = None
        self._waiting_since = Since(*AGE_FIELDS)
        self._stalls = AcceptStalls()
        self._history = QueueHistory()
        self._listeners = ListenerTable()

    @property
    def wanted_tcp_info(self) -> frozenset[int]:
        """Cookies whose tcp_info the next sample should contain."""
        return self._waiting_since.wanted_tcp_info

    def step(self, poll: Poll) -> ListenerQueues:
        """Return the queues of this poll."""
        sample, keys, queues_known = poll.sample, poll.join.listener_keys, poll.sample.capabilities.queues
        half_open = half_open_sockets(poll)
        waiting = waiting_connections(poll, self._waiting_since, half_open.fast_open)
        accepted = accepted_by_key(poll, self._waiting, waiting) if queues_known and self._waiting else None
        self._waiting = waiting
        depth = half_open.count_by_key(len(keys.keys))
        peak = self._add_to_history(keys, sample, depth, queues_known)
        accepting = self._stalls.step(sample, keys, waiting)
        facts = QueueFacts(keys, half_open, waiting, accepted, accepting, depth, peak)
        listeners_ = self._listeners.step(poll, facts)
        summary = half_open_summary(half_open)
        return ListenerQueues(
            facts,
            listeners_,
            self._history.trend(),
            summary,
            self._summaries_of_nearly_full(sample, facts, summary) if queues_known else {},
            _arrivals_per_s(poll, half_open, poll.elapsed_s) if poll.elapsed_s else None,
            accepting.accepted_at_most / poll.elapsed_s
            if poll.elapsed_s and accepting.accepted_at_most is not None
            else None,
        )

    def _add_to_history(
        self, keys: ListenerKeys, sample: Sample, syn_depth: NDArray[np.intp], queues_known: bool
    ) -> NDArray[np.intp]:
        """Add the depths to the history. Return the SYN queue's peak of each key."""
        cookies, watched = sample.cookie[keys.row], sample.accept_queue_peaks
        accept: NDArray[Any] = sample.table["idiag_rqueue"][keys.row]
        if not queues_known:
            accept = np.full(len(cookies), np.nan)
        elif watched:
            peaks_between = np.fromiter(map(watched.get, cookies.tolist(), repeat(0)), accept.dtype, len(cookies))
            accept = np.maximum(accept, peaks_between)
        self._history.add(sample.monotonic, cookies, accept, syn_depth[keys.key])
        peaks = np.zeros(len(syn_depth), np.intp)
        np.maximum.at(peaks, keys.key, self._history.syn_peaks(PEAK_S))
        return peaks

    def _summaries_of_nearly_full(
        self, sample: Sample, facts: QueueFacts, of_all: HalfOpenSummary
    ) -> dict[ListenerKey, HalfOpenSummary]:
        keys = facts.listener_keys
        limit = np.bincount(keys.key, syn_queue_limits(sample, keys.row)[0], len(keys.keys))
        nearly_full = np.flatnonzero(facts.syn_peak >= self._nearly_full_share * np.maximum(limit, 1))
        deepest = nearly_full[np.argsort(-facts.syn_depth[nearly_full], kind="stable")[:SUMMARIES]]
        summaries: dict[ListenerKey, HalfOpenSummary] = {}
        for place in deepest.tolist():
            sockets = facts.half_open.for_key(place)
            key = keys.keys[place]
            summaries[key] = of_all if sockets is facts.half_open else half_open_summary(sockets)
        return summaries


def _arrivals_per_s(poll: Poll, half_open: HalfOpenSockets, elapsed_s: float) -> float:
    """Return the SYNs per second, as far as they leave a trace.

    The sum of new half-open connections, handshakes completed between the polls, cookies sent and SYNs dropped.
    ListenOverflows are subtracted: they include dropped last ACKs. PassiveOpens counts with the last ACK, with TCP Fast
    Open with the SYN.
    """
    started = int(np.count_nonzero(poll.rows.mark[half_open.row] == Mark.NEW)) / elapsed_s
    completed = _completed(poll) / elapsed_s
    names = ("PassiveOpens", "SyncookiesSent", "SyncookiesRecv", "ListenDrops", "ListenOverflows")
    opened, sent, returned, drops, overflows = (poll.rates.get(name, 0.0) for name in names)
    return started + max(0.0, opened - returned - completed) + sent + max(0.0, drops - overflows)


def _completed(poll: Poll) -> int:
    """Return the half-open connections of the previous sample that have got their last ACK."""
    if poll.previous is None:
        return 0
    before = poll.join.changed_previous[poll.join.old_state == State.SYN_RCVD]
    return int(np.count_nonzero(poll.previous.table["has"][before] & uapi.HAS_SHUTDOWN == 0))
