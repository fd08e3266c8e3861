"""The accept queue and the SYN queue of each listener, against their limits.

For a listener the kernel tells the accept queue's depth as `idiag_rqueue` and its limit, min(listen()'s argument,
somaxconn), as `idiag_wqueue`. The SYN queue is not told: its depth is the number of SYN_RCVD sockets with the
listener's local address and port, its limit is the same backlog; without SYN cookies a quarter of tcp_max_syn_backlog
is kept free besides (tcp_conn_request in net/ipv4/tcp_input.c; inet_connection_sock.c; sock_diag(7)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.model.listeners.half_open import HalfOpenSockets
from tcpwatch.model.listeners.listener_keys import ListenerKey, ListenerKeys
from tcpwatch.model.listeners.queue_limits import (
    UNKNOWN_QUEUE,
    LimitSource,
    Queue,
    accept_limit_source,
    syn_queue_limits,
)
from tcpwatch.model.listeners.waiting_connections import WaitingConnections
from tcpwatch.model.poll import Poll


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening socket."""

    cookie: int
    family: int
    local_address: str
    local_port: int
    owner: Owner | None
    accept_queue: Queue
    syn_queue: Queue
    """Sockets that share an address and port (SO_REUSEPORT) share this figure: depth and limit are the group's."""
    group_size: int
    """Sockets in that group, 1 for a listener of its own."""
    drops: int | None
    """Segments dropped by this listener since it was opened; None where the source does not tell."""
    drops_per_s: float | None
    key: ListenerKey
    """What the sockets of a group have in common."""
    inode: int = 0
    interface: str = ""
    """The interface that it is bound to; empty for any."""
    accept_peak: int | None = None
    """The deepest that the accept queue was seen since the step before."""
    syn_peak: int = 0
    """The deepest that the SYN queue (of the group) was seen in the last steps: a flooded one loses half of its
    members at once every 7 s or so."""
    accept_limit_source: LimitSource = LimitSource.UNKNOWN
    syn_limit_source: LimitSource = LimitSource.UNKNOWN
    accepted_per_s: float | None = None
    """Accepted by the group, as far as the polls saw it: what came and went between two is not counted."""
    waiting: int = 0
    """Connections in the group's accept queues that the table has."""
    client_closed: int = 0
    """Of these, clients that have closed already."""
    waiting_s: float | None = None
    """How long the oldest of them has waited; None where nothing waits."""
    waiting_is_minimum: bool = False
    """It waited when we came: `waiting_s` is the least."""
    retransmitted: int = 0
    """Half-open connections of the group whose SYN+ACK was repeated."""

    @property
    def endpoint(self) -> str:
        """Local address and port as text; see ListenerKey."""
        return self.key.endpoint

    @property
    def process(self) -> str:
        """`nginx[1234]`; empty where the owner is not known."""
        return str(self.owner) if self.owner else ""

    @property
    def accept_full(self) -> bool:
        """The accept queue is at its limit, or was at some moment since the step before.

        At and not over it: a slow application is often seen when it has just made room for one.
        """
        peak, limit = self.accept_peak, self.accept_queue.limit
        return peak is not None and limit is not None and peak >= max(limit, 1)


@dataclass(frozen=True, slots=True, eq=False)
class QueueFacts:
    """What one step found out about queues; per key where it says so, in the order of `listening.keys`."""

    listener_keys: ListenerKeys
    half_open: HalfOpenSockets
    waiting: WaitingConnections
    accepted: NDArray[np.intp] | None
    """Per key; None on the first step."""
    syn_depth: NDArray[np.intp]
    """Per key: half-open connections."""
    syn_peak: NDArray[np.intp]
    """Per key: the most that they were in the last steps, this one included."""

    @property
    def without_listener(self) -> int:
        """Half-open connections whose listener has gone."""
        return len(self.half_open.row) - int(self.syn_depth.sum())


def listeners(poll: Poll, traffic: QueueFacts) -> tuple[Listener, ...]:
    """Every listener of the sample, the fullest accept queue first, then by port."""
    rows, sample, queues_known = poll.rows, poll.sample, poll.sample.capabilities.queues
    drops_before = poll.previous.drops if poll.previous else {}
    listening = traffic.listener_keys
    groups = _groups(poll, traffic)
    _, capped = syn_queue_limits(sample, listening.row)
    mine = rows.take(listening.row)
    found = []
    for at, place in enumerate(listening.key.tolist()):
        row, cookie, code = mine.table[at], int(mine.cookie[at]), int(mine.owner[at])
        key, dropped = listening.keys[place], sample.drops.get(cookie)
        queue = Queue(int(row["idiag_rqueue"]), int(row["idiag_wqueue"])) if queues_known else UNKNOWN_QUEUE
        cap = accept_limit_source(queue.limit, sample.sysctls.get("somaxconn"))
        found.append(
            Listener(
                cookie=cookie,
                family=int(row["idiag_family"]),
                local_address=units.address(row["idiag_src"].tobytes(), int(row["idiag_family"])),
                local_port=key.port,
                owner=mine.owners[code] if code >= 0 else None,
                accept_queue=queue,
                drops=dropped,
                drops_per_s=_per_second(dropped, drops_before.get(cookie), poll.elapsed_s),
                key=key,
                inode=int(row["idiag_inode"]),
                interface=mine.interfaces.get(key.interface, ""),
                accept_peak=max(sample.accept_queue_peaks.get(cookie, 0), queue.depth)
                if queue.depth is not None
                else None,
                accept_limit_source=cap,
                syn_limit_source=LimitSource.SYN_BACKLOG if queues_known and capped[at] else cap,
                **groups[place],
            )
        )
    return tuple(
        sorted(found, key=lambda one: (-one.accept_queue.share, one.local_port, one.local_address, one.cookie))
    )


def _groups(poll: Poll, traffic: QueueFacts) -> list[dict[str, Any]]:
    """For each key what its sockets have in common."""
    sample = poll.sample
    listening, waits = traffic.listener_keys, traffic.waiting
    keys = len(listening.keys)
    sizes = np.bincount(listening.key, minlength=keys)
    limits, _ = syn_queue_limits(sample, listening.row)
    limit_of = np.bincount(listening.key, limits, keys).astype(np.intp).tolist()
    depth, repeated = traffic.syn_depth.tolist(), traffic.half_open.retransmitted_by_key(keys).tolist()
    waiting = np.bincount(waits.key, minlength=keys).tolist()
    given_up = np.bincount(waits.key[waits.client_closed], minlength=keys).tolist()
    oldest = waits.oldest_by_key(keys)
    longer = np.zeros(keys, np.bool_)
    longer[waits.key[~waits.arrival_seen]] = True
    accepted, elapsed_s = traffic.accepted, poll.elapsed_s
    return [
        {
            "group_size": int(sizes[at]),
            "syn_queue": Queue(depth[at], limit_of[at] if sample.capabilities.queues else None),
            "syn_peak": int(traffic.syn_peak[at]),
            "retransmitted": repeated[at],
            "waiting": waiting[at],
            "client_closed": given_up[at],
            "waiting_s": max(0.0, poll.rows.time - float(oldest[at])) if waiting[at] else None,
            "waiting_is_minimum": bool(longer[at]),
            "accepted_per_s": float(accepted[at]) / elapsed_s if accepted is not None and elapsed_s else None,
        }
        for at in range(keys)
    ]


def _per_second(now: int | None, then: int | None, elapsed_s: float | None) -> float | None:
    if now is None or then is None or not elapsed_s:
        return None
    return ((now - then) & 0xFFFFFFFF) / elapsed_s  # sk_drops is a u32 that may wrap
