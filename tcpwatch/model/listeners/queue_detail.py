"""QueueDetail: the connections in the two queues of one listener, oldest first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.listeners.half_open import HalfOpenSummary, half_open_summary
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.listeners.listeners import QueueFacts
from tcpwatch.model.sockets.rows import Rows

MAX_MEMBERS = 1_000
"""Connections of each queue in a QueueDetail."""


@dataclass(frozen=True, slots=True, eq=False)
class QueueMembers:
    """The oldest members of a queue."""

    rows: Rows
    """At most MAX_MEMBERS, oldest first (so not sorted by cookie)."""
    age_s: NDArray[np.float64]
    """How long each connection has been in the queue."""
    arrival_seen: NDArray[np.bool_]
    """Whether the age is exact to one interval; otherwise it is a minimum (accept queue) or an estimate (SYN queue)."""
    total: int
    """Number of connections in the queue."""


@dataclass(frozen=True, slots=True, eq=False)
class QueueDetail:
    """The queues of one listening address and port; of a SO_REUSEPORT group, of all its sockets."""

    key: ListenerKey
    accept_queue: QueueMembers
    syn_queue: QueueMembers
    half_open: HalfOpenSummary


def queue_detail(key: ListenerKey, rows: Rows, facts: QueueFacts) -> QueueDetail | None:
    """Return the connections in the queues of `key`, None if it has no listener any more."""
    if key not in facts.listener_keys.keys:
        return None
    at = facts.listener_keys.keys.index(key)
    waiting, half_open = facts.waiting, facts.half_open.for_key(at)
    of_key = waiting.key == at
    accept = _members(rows, waiting.row[of_key], rows.time - waiting.since[of_key], waiting.arrival_seen[of_key])
    syn = _members(rows, half_open.row, half_open.age_s.astype(np.float64), half_open.arrival_seen)
    return QueueDetail(key, accept, syn, half_open_summary(half_open))


def _members(
    rows: Rows, row: NDArray[np.intp], age_s: NDArray[np.float64], arrival_seen: NDArray[np.bool_]
) -> QueueMembers:
    total = len(row)
    if total > MAX_MEMBERS:
        oldest = np.argpartition(-age_s, MAX_MEMBERS)[:MAX_MEMBERS]
        row, age_s, arrival_seen = row[oldest], age_s[oldest], arrival_seen[oldest]
    order = np.lexsort((rows.cookie[row], -age_s))
    return QueueMembers(rows.take(row[order]), age_s[order], arrival_seen[order], total)
