"""Listeners: each listening socket with its accept queue and its SYN queue.

Of a listener the kernel reports the accept queue's depth (`idiag_rqueue`) and limit (`idiag_wqueue`), and nothing about
the SYN queue. Its depth is the number of request sockets (SYN_RCVD) with the listener's local address and port
(inet_connection_sock.c; sock_diag(7)); for the limits see queue_limits.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.kernel.proc.process import Process
from tcpwatch.model.listeners.accept_stalls import AcceptFigures, AcceptStall, unseen_by_key
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
    """Segments dropped by this listener since it was opened; None if the source does not report them."""
    drops_per_s: float | None
    key: ListenerKey
    """The same for all sockets of the group."""
    inode: int = 0
    interface: str = ""
    """The interface that the socket is bound to; empty for any."""
    accept_peak: int | None = None
    """Peak depth of the accept queue since the last step; None if the queue is not watched between the polls."""
    syn_peak: int = 0
    """Peak depth of the group's SYN queue in the last 10 s."""
    accept_limit_source: LimitSource = LimitSource.UNKNOWN
    syn_limit_source: LimitSource = LimitSource.UNKNOWN
    accepted_per_s: float | None = None
    """Accepted by the group, at least: connections that open and close between two polls are missing."""
    stall: AcceptStall | None = None
    """How long this socket has accepted nothing while connections waited; None if that is not certain."""
    unmoved: AcceptStall | None = None
    """How long all connections that the kernel listed still wait; None for members of a group, and where none waits."""
    waiting: int = 0
    """Connections of the sample that wait in the group's accept queues."""
    client_closed: int = 0
    """How many of these their clients have closed."""
    client_reset: int = 0
    """Connections that wait and have been reset, so that the kernel does not list them; 0 where this is not certain."""
    waiting_s: float | None = None
    """How long the oldest of them has waited; None if none waits."""
    waiting_is_minimum: bool = False
    """One of them was waiting in the first sample, so that `waiting_s` is a minimum."""
    retransmitted: int = 0
    """Half-open connections of the group whose SYN+ACK was retransmitted."""

    @property
    def endpoint(self) -> str:
        """Local address and port as text; see ListenerKey."""
        return self.key.endpoint

    @property
    def process(self) -> str:
        """`nginx[1234]`: the process that accepts; `nginx[1234] +3`: one of several; empty if the owner is unknown."""
        return str(self.owner) if self.owner else ""

    @property
    def application(self) -> str:
        """The process that accepts, for sentences; `the application` where it is not certain."""
        return _names(self.accepted_by) or "the application"

    @property
    def holders(self) -> str:
        """`held by systemd[1], app[12]; accepted by app[12]`; empty where every holder accepts, or none is known.

        `connections held by app[12]` where they are older than the first sample, so that who accepted them is unknown.
        """
        if self.owner is None or len(self.owner.processes) == len(self.accepted_by):
            return ""
        held = f"held by {_names(sorted(self.owner.processes, key=lambda process: process.pid))}"
        if self.owner.presumed:
            return f"{held}; connections held by {_names(self.owner.shown)}"
        return f"{held}; accepted by {_names(self.accepted_by)}" if self.accepted_by else held

    @property
    def accepted_by(self) -> tuple[Process, ...]:
        """The processes that are certain to accept connections; a sole holder is."""
        return self.owner.acceptors if self.owner else ()

    @property
    def stalled_s(self) -> float | None:
        """For so long, at least, it has certainly accepted nothing; None if unknown."""
        return self.stall.for_s if self.stall else None

    @property
    def gave_up(self) -> int:
        """The waiting connections that their clients have closed or reset, at least."""
        return self.client_closed + self.client_reset

    @property
    def accept_full(self) -> bool:
        """Return whether the accept queue reached its limit at some moment since the last step.

        It need not be over the limit: a poll often sees a slow application just after it has accepted one connection.
        """
        limit, depths = self.accept_queue.limit, (self.accept_peak, self.accept_queue.depth)
        return limit is not None and any(depth is not None and depth >= max(limit, 1) for depth in depths)


@dataclass(frozen=True, slots=True, eq=False)
class QueueFacts:
    """The facts of one poll about queues. Columns per key are in the order of `listener_keys.keys`."""

    listener_keys: ListenerKeys
    half_open: HalfOpenSockets
    waiting: WaitingConnections
    accepted: NDArray[np.intp] | None
    """Per key, at least; None on the first step."""
    accepting: AcceptFigures
    syn_depth: NDArray[np.intp]
    """Per key: half-open connections."""
    syn_peak: NDArray[np.intp]
    """Per key: the largest number of half-open connections in the last 10 s."""

    @property
    def without_listener(self) -> int:
        """Half-open connections whose listener has closed."""
        return len(self.half_open.row) - int(self.syn_depth.sum())


_NAMES = 3


def _names(processes: Sequence[Process]) -> str:
    """Return `app[12]`, or `nginx[1], nginx[2], nginx[3] and 5 more`."""
    names = [process.label for process in processes[:_NAMES]]
    more = len(processes) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def listeners(poll: Poll, facts: QueueFacts) -> tuple[Listener, ...]:
    """Return every listener of the sample: the fullest accept queue first, then by port."""
    sample, queues_known = poll.sample, poll.sample.capabilities.queues
    drops_before = poll.previous.drops if poll.previous else {}
    keys, groups = facts.listener_keys, _groups(poll, facts)
    _, capped_by_syn_backlog = syn_queue_limits(sample, keys.row)
    rows = poll.rows.take(keys.row)
    unlisted = _unlisted(keys, rows.table["idiag_rqueue"], facts.waiting)
    listeners_ = []
    for at, place in enumerate(keys.key.tolist()):
        row, cookie, code = rows.table[at], int(rows.cookie[at]), int(rows.owner[at])
        key, drops = keys.keys[place], sample.drops.get(cookie)
        queue = Queue(int(row["idiag_rqueue"]), int(row["idiag_wqueue"])) if queues_known else UNKNOWN_QUEUE
        watched = sample.accept_queue_peaks.get(cookie)
        peak = None if queue.depth is None or watched is None else max(watched, queue.depth)
        accept_source = accept_limit_source(queue.limit, sample.sysctls.get("somaxconn"))
        syn_source = LimitSource.SYN_BACKLOG if queues_known and capped_by_syn_backlog[at] else accept_source
        group = groups[place]
        stall = _stall(facts.accepting.stalls.get(cookie), **group)
        if stall and group["group_size"] == 1:
            group = {**group, "client_reset": unlisted[place]}
            group["accepted_per_s"] = 0.0 if poll.elapsed_s else None
        listeners_.append(
            Listener(
                cookie=cookie,
                family=int(row["idiag_family"]),
                local_address=units.address(row["idiag_src"].tobytes(), int(row["idiag_family"])),
                local_port=key.port,
                owner=rows.owners[code] if code >= 0 else None,
                accept_queue=queue,
                drops=drops,
                drops_per_s=_drops_per_s(drops, drops_before.get(cookie), poll.elapsed_s),
                key=key,
                inode=int(row["idiag_inode"]),
                interface=rows.interfaces.get(key.interface, ""),
                accept_peak=peak,
                accept_limit_source=accept_source,
                syn_limit_source=syn_source,
                stall=stall,
                unmoved=facts.accepting.unmoved.get(cookie),
                **group,
            )
        )
    return tuple(sorted(listeners_, key=_fullest_first))


def _unlisted(keys: ListenerKeys, depths: NDArray[np.uint32], waiting: WaitingConnections) -> list[int]:
    """Return for each key the connections that its queues hold and the sample does not list.

    All 0 if the listener of some connection is not known, or certainly not the right one.
    """
    unlisted = unseen_by_key(keys, depths, waiting)
    certain = not waiting.without_listener and bool((unlisted >= 0).all())
    return [count if certain else 0 for count in unlisted.tolist()]


def _stall(stall: AcceptStall | None, group_size: int, waiting_s: float | None, **_: Any) -> AcceptStall | None:
    if stall is None or not stall.never_accepted:
        return stall
    # What waits at a socket that has never accepted anything has found it so.
    for_s = max(stall.for_s, waiting_s or 0.0) if group_size == 1 else stall.for_s
    return AcceptStall(for_s) if for_s else None


def _groups(poll: Poll, facts: QueueFacts) -> list[dict[str, Any]]:
    """Return for each key the fields of Listener that all sockets of the group share."""
    keys, waiting = facts.listener_keys, facts.waiting
    count, elapsed_s, accepted = len(keys.keys), poll.elapsed_s, facts.accepted
    sizes = np.bincount(keys.key, minlength=count)
    limits, _ = syn_queue_limits(poll.sample, keys.row)
    syn_limit = np.bincount(keys.key, limits, count).astype(np.intp).tolist()
    syn_depth = facts.syn_depth.tolist()
    retransmitted = facts.half_open.count_by_key(count, retransmitted=True).tolist()
    waiting_count = np.bincount(waiting.key, minlength=count).tolist()
    client_closed = np.bincount(waiting.key[waiting.client_closed], minlength=count).tolist()
    oldest = waiting.oldest_by_key(count)
    is_minimum = np.zeros(count, np.bool_)
    is_minimum[waiting.key[~waiting.arrival_seen]] = True
    return [
        {
            "group_size": int(sizes[at]),
            "syn_queue": Queue(syn_depth[at], syn_limit[at] if poll.sample.capabilities.queues else None),
            "syn_peak": int(facts.syn_peak[at]),
            "retransmitted": retransmitted[at],
            "waiting": waiting_count[at],
            "client_closed": client_closed[at],
            "waiting_s": max(0.0, poll.rows.time - float(oldest[at])) if waiting_count[at] else None,
            "waiting_is_minimum": bool(is_minimum[at]),
            "accepted_per_s": float(accepted[at]) / elapsed_s if accepted is not None and elapsed_s else None,
        }
        for at in range(count)
    ]


def _fullest_first(listener: Listener) -> tuple[object, ...]:
    return -listener.accept_queue.share, listener.local_port, listener.local_address, listener.cookie


def _drops_per_s(now: int | None, before: int | None, elapsed_s: float | None) -> float | None:
    if now is None or before is None or not elapsed_s:
        return None
    return ((now - before) & 0xFFFFFFFF) / elapsed_s  # sk_drops is a u32 that may wrap
