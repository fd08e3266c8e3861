"""Connections that cannot send because the peer advertises a zero window.

A socket whose timer is 4 (persist) probes such a peer (icsk_pending in net/ipv4/tcp_timer.c, inet_sk_diag_fill). Each
answer of the peer sets the count of probes to 0: a socket with unanswered probes proves nothing about the window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.group_by import group_by
from tcpwatch.arrays.opaque_rows import take_rows
from tcpwatch.model.listeners.listener_keys import NO_LISTENER, ListenerKey
from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.endpoint import Endpoint
from tcpwatch.model.sockets.programs import Program, by_program
from tcpwatch.model.sockets.remote_ends import RemoteEnds, both_ends, pair_numbers
from tcpwatch.model.sockets.since import Since
from tcpwatch.model.states import Role

TOP = 20
"""Peers in the result."""
EXAMPLES = 3
"""Peers of a group that are named."""
PERSIST = 4
"""idiag_timer of a socket that sends window probes."""
UNANSWERED_PROBES = 2
"""Probes without an answer, from which on a peer is not known to advertise anything. One may be under way."""


@dataclass(frozen=True, slots=True)
class ZeroWindowPeer:
    """The connections to one peer that advertises a zero window."""

    remote: Endpoint
    """The address and port of a server; the address alone of a client."""
    count: int
    longest_s: float
    unsent: int
    """Bytes in their send queues."""


@dataclass(frozen=True, slots=True)
class ZeroWindowGroup:
    """The connections that wait for zero windows for one reason: the clients of one listener, or one destination.

    If the connections of one program wait for more than EXAMPLES destinations, the program is the group.
    """

    subject: ListenerKey | Program | Endpoint | None
    """None: neither listener nor program is known, and there are more than EXAMPLES destinations."""
    count: int
    longest_s: float
    unsent: int
    peers: int
    examples: tuple[str, ...]
    """Those with most connections."""


@dataclass(frozen=True, slots=True)
class ZeroWindows:
    """The connections whose peers advertise a zero window."""

    peers: tuple[ZeroWindowPeer, ...] = ()
    """The longest first, TOP at most."""
    all_peers: int = 0
    groups: tuple[ZeroWindowGroup, ...] = ()
    """Connections that have waited for as long as the threshold."""


class ZeroWindowAnalysis:
    """Remembers since when peers advertise a zero window."""

    def __init__(self, age_s: float) -> None:
        """A connection belongs to a group when it has waited for `age_s`."""
        self._age_s = age_s
        self._since = Since("last_data_sent")

    @property
    def wanted_tcp_info(self) -> frozenset[int]:
        """Cookies whose tcp_info the next sample should contain."""
        return self._since.wanted_tcp_info

    def step(self, poll: Poll, persisting: NDArray[np.intp], unread: NDArray[np.intp]) -> ZeroWindows:
        """Return the peers that advertise a zero window; `persisting` are the rows whose timer is PERSIST.

        `unread` are rows of connections that a process of this host does not read. If one is the other end of a
        connection that waits, that process is the reason, and the connection belongs to no group.
        """
        sample, rows = poll.sample, poll.rows
        answered = sample.table["idiag_retrans"][persisting] < UNANSWERED_PROBES
        row = persisting[answered]
        since = self._since.step(sample, row)
        if not len(row):
            return ZeroWindows()
        table = take_rows(sample.table, row)
        remote, server = RemoteEnds.of(table), rows.role[row] == Role.SERVER
        # The ports of clients mean nothing: the connections of one client address are one group.
        peer = np.where(server, remote.address_numbers, remote.endpoint_numbers)
        waiting = _Waiting(poll, row, remote, server, peer, rows.time - since, table["idiag_wqueue"].astype(np.int64))
        ends_unread = both_ends(take_rows(sample.table, unread))
        here = np.isin(pair_numbers(*both_ends(table)), pair_numbers(*reversed(ends_unread)))
        old = waiting.take(np.flatnonzero((waiting.age_s >= self._age_s) & ~here))
        peers = group_by(peer)
        return ZeroWindows(_peers(waiting), len(peers), _groups(old) if len(old.row) else ())


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """Connections that wait, as aligned columns."""

    poll: Poll
    row: NDArray[np.intp]
    remote: RemoteEnds
    server: NDArray[np.bool_]
    peer: NDArray[np.uint64]
    """A hash of the peer."""
    age_s: NDArray[np.float64]
    unsent: NDArray[np.int64]

    def take(self, where: NDArray[np.intp]) -> _Waiting:
        return _Waiting(
            self.poll, self.row[where], self.remote.take(where), self.server[where], self.peer[where],
            self.age_s[where], self.unsent[where],
        )  # fmt: skip

    def name(self, at: int) -> Endpoint:
        return self.remote.host(at) if self.server[at] else self.remote.endpoint(at)


def _peers(waiting: _Waiting) -> tuple[ZeroWindowPeer, ...]:
    groups = group_by(waiting.peer)
    size, longest, unsent = groups.size, groups.most(waiting.age_s), groups.sums(waiting.unsent)
    peers = [
        ZeroWindowPeer(waiting.name(int(groups.first[at])), int(size[at]), float(longest[at]), int(unsent[at]))
        for at in np.argsort(-longest, kind="stable")[:TOP].tolist()
    ]
    return tuple(sorted(peers, key=lambda peer: (-peer.longest_s, str(peer.remote))))


def _groups(waiting: _Waiting) -> tuple[ZeroWindowGroup, ...]:
    """Return a group for each listener, each program with many destinations, and each other destination."""
    rows, keys = waiting.poll.rows, waiting.poll.join.listener_keys
    listener = keys.lookup(waiting.poll.sample, waiting.row)
    clients = waiting.server & (listener != NO_LISTENER)
    found = []
    for key in np.unique(listener[clients]).tolist():
        found.append(_group(keys.keys[key], waiting.take(np.flatnonzero(clients & (listener == key)))))
    others = waiting.take(np.flatnonzero(~clients))
    left = np.ones(len(others.row), np.bool_)
    for part in by_program(rows, others.row):
        if len(np.unique(others.peer[part.at])) > EXAMPLES:
            found.append(_group(part.program, others.take(part.at)))
            left[part.at] = False
    others = others.take(np.flatnonzero(left))
    peers = group_by(others.peer)
    unknown = rows.owner[others.row[peers.first]] < 0
    if np.count_nonzero(unknown) > EXAMPLES:
        hidden = np.isin(others.peer, others.peer[peers.first[unknown]])
        found.append(_group(None, others.take(np.flatnonzero(hidden))))
        others = others.take(np.flatnonzero(~hidden))
        peers = group_by(others.peer)
    for at in np.split(peers.order, peers.start[1:])[: len(peers)]:
        found.append(_group(others.name(int(at[0])), others.take(at)))
    return tuple(sorted(found, key=lambda group: (-group.count, str(group.subject))))


def _group(subject: ListenerKey | Program | Endpoint | None, members: _Waiting) -> ZeroWindowGroup:
    peers = group_by(members.peer)
    most = members.remote.take(peers.first).by_size(peers.size)[:EXAMPLES]
    return ZeroWindowGroup(
        subject,
        len(members.row),
        float(members.age_s.max()),
        int(members.unsent.sum()),
        len(peers),
        tuple(str(members.name(int(peers.first[at]))) for at in most.tolist()),
    )
