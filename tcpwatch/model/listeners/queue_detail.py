"""What is inside the two queues of one listener, oldest first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.listeners.half_open import HalfOpen, half_open
from tcpwatch.model.listeners.listener_keys import Key
from tcpwatch.model.listeners.listeners import Traffic
from tcpwatch.model.sockets.rows import Rows

SHOWN = 1_000
"""Members of each queue that are listed."""


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """The oldest members of a queue."""

    rows: Rows
    """At most SHOWN, oldest first (so not in the order of their cookies)."""
    age_s: NDArray[np.float64]
    """How long each has been in the queue."""
    seen_coming: NDArray[np.bool_]
    """Its age is ours, to one interval; else, in the accept queue its least, in the SYN queue an estimate."""
    total: int
    """Members that there are."""


@dataclass(frozen=True, slots=True, eq=False)
class Focus:
    """The queues of one listening address and port: of a SO_REUSEPORT group those of all its sockets."""

    key: Key
    accept_queue: Members
    syn_queue: Members
    half_open: HalfOpen


def focus(key: Key, rows: Rows, traffic: Traffic) -> Focus | None:
    """Look into the queues of `key`; None where nobody listens there any more."""
    if key not in traffic.listening.keys:
        return None
    at = traffic.listening.keys.index(key)
    waits, found = traffic.waiting, traffic.requests.of(at)
    mine = waits.key == at
    accept = _members(rows, waits.row[mine], rows.time - waits.since[mine], waits.seen_coming[mine])
    syn = _members(rows, found.row, found.age_s.astype(np.float64), found.seen_coming)
    return Focus(key, accept, syn, half_open(found))


def _members(rows: Rows, row: NDArray[np.intp], age_s: NDArray[np.float64], seen_coming: NDArray[np.bool_]) -> Members:
    total = len(row)
    if total > SHOWN:
        some = np.argpartition(-age_s, SHOWN)[:SHOWN]
        row, age_s, seen_coming = row[some], age_s[some], seen_coming[some]
    order = np.lexsort((rows.cookie[row], -age_s))
    return Members(rows.take(row[order]), age_s[order], seen_coming[order], total)
