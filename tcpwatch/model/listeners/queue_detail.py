"""What is inside the two queues of one listener, oldest first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.listeners.half_open import HalfOpenSummary, half_open_summary
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.listeners.listeners import QueueFacts
from tcpwatch.model.sockets.rows import Rows

SHOWN = 1_000
"""Members of each queue that are listed."""


@dataclass(frozen=True, slots=True, eq=False)
class QueueMembers:
    """The oldest members of a queue."""

    rows: Rows
    """At most SHOWN, oldest first (so not in the order of their cookies)."""
    age_s: NDArray[np.float64]
    """How long each has been in the queue."""
    arrival_seen: NDArray[np.bool_]
    """Its age is ours, to one interval; else, in the accept queue its least, in the SYN queue an estimate."""
    total: int
    """Members that there are."""


@dataclass(frozen=True, slots=True, eq=False)
class QueueDetail:
    """The queues of one listening address and port: of a SO_REUSEPORT group those of all its sockets."""

    key: ListenerKey
    accept_queue: QueueMembers
    syn_queue: QueueMembers
    half_open: HalfOpenSummary


def queue_detail(key: ListenerKey, rows: Rows, traffic: QueueFacts) -> QueueDetail | None:
    """Look into the queues of `key`; None where nobody listens there any more."""
    if key not in traffic.listener_keys.keys:
        return None
    at = traffic.listener_keys.keys.index(key)
    waits, found = traffic.waiting, traffic.half_open.for_key(at)
    mine = waits.key == at
    accept = _members(rows, waits.row[mine], rows.time - waits.since[mine], waits.arrival_seen[mine])
    syn = _members(rows, found.row, found.age_s.astype(np.float64), found.arrival_seen)
    return QueueDetail(key, accept, syn, half_open_summary(found))


def _members(
    rows: Rows, row: NDArray[np.intp], age_s: NDArray[np.float64], seen_coming: NDArray[np.bool_]
) -> QueueMembers:
    total = len(row)
    if total > SHOWN:
        some = np.argpartition(-age_s, SHOWN)[:SHOWN]
        row, age_s, seen_coming = row[some], age_s[some], seen_coming[some]
    order = np.lexsort((rows.cookie[row], -age_s))
    return QueueMembers(rows.take(row[order]), age_s[order], seen_coming[order], total)
