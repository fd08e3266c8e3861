"""Listeners: each listening socket with its accept queue and its SYN queue.

Of a listener the kernel reports the accept queue's depth (`idiag_rqueue`) and limit (`idiag_wqueue`), and nothing about
the SYN queue. Its depth is the number of request sockets (SYN_RCVD) with the listener's local address and port
(inet_connection_sock.c; sock_diag(7)); for the limits see queue_limits.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.kernel.proc.process import Process
from tcpwatch.model.listeners.accept_stalls import AcceptFigures, AcceptStall
from tcpwatch.model.listeners.half_open import HalfOpenSockets
from tcpwatch.model.listeners.listener_keys import ListenerKey, ListenerKeys
from tcpwatch.model.listeners.queue_limits import (
    LimitSource,
    Queue,
)
from tcpwatch.model.listeners.waiting_connections import WaitingConnections


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

    is_busy: bool = field(init=False)
    """Whether a queue holds a connection, or did lately, or it accepted or dropped something, or a limit is unknown.

    No rule has anything to say about the other listeners, which may be tens of thousands.
    """

    def __post_init__(self) -> None:
        figures = (
            self.accept_queue.depth, self.accept_peak, self.syn_queue.depth, self.syn_peak, self.accepted_per_s,
            self.drops_per_s, self.stall, self.unmoved,
        )  # fmt: skip
        unknown = None in (self.accept_queue.depth, self.accept_queue.limit, self.syn_queue.limit)
        object.__setattr__(self, "is_busy", unknown or any(figures))

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
