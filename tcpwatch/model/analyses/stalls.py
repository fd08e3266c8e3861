"""Connections that make no progress: unanswered connect()s, zero windows of peers, data that processes do not read.

A socket whose timer is 4 (persist) probes a peer that advertises a zero window (icsk_pending in net/ipv4/tcp_timer.c,
inet_sk_diag_fill). When this host advertises one, the kernel counts it (TCPToZeroWindowAdv) without naming the socket:
the sockets with a high receive queue at that time are taken, until they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tcpwatch.arrays.group_by import group_by
from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.endpoint import Endpoint
from tcpwatch.model.sockets.endpoint_hashes import address_hashes, remote_endpoint, remote_endpoint_hashes
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.sockets.since import Since
from tcpwatch.model.states import Role, State
from tcpwatch.sample import Sample

TOP = 20
"""Destinations, peers and processes in the result."""
HIGH_QUEUE = 32 * 1024
"""Bytes in a receive queue that can be the reason for a zero window of this host. [H]"""
_PERSIST = 4
_SENDING_ORPHANS = (State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK)
"""States of sockets that have no process any more, and so no inode, but may still have data to send."""


@dataclass(frozen=True, slots=True)
class UnansweredConnects:
    """The connect()s to one destination that get no answer."""

    remote: Endpoint
    count: int
    """Sockets in SYN_SENT with at least as many SYN retransmits as the threshold."""
    retransmits: int
    """The most SYN retransmits of one of them."""


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
class UnreadProcess:
    """The connections that one process does not read, so that this host advertises a zero window."""

    owner: Owner
    count: int
    unread_bytes: int
    """Bytes in their receive queues."""

    @property
    def process(self) -> str:
        """Return `app[12]`."""
        return str(self.owner)


@dataclass(frozen=True, slots=True, eq=False)
class Stalls:
    """The connections that make no progress."""

    unanswered: tuple[UnansweredConnects, ...]
    zero_window: tuple[ZeroWindowPeer, ...]
    unread: tuple[UnreadProcess, ...]


class StallAnalysis:
    """Remembers since when peers advertise a zero window, and which processes do not read."""

    def __init__(self, syn_retransmits: float) -> None:
        """A connect() counts as unanswered from `syn_retransmits` on."""
        self._syn_retransmits = syn_retransmits
        self._zero_window = Since("last_data_sent")
        self._unread = np.empty(0, np.uint64)
        """Cookies of the sockets with a high receive queue for which a zero window was advertised."""

    @property
    def wanted_tcp_info(self) -> frozenset[int]:
        """Cookies whose tcp_info the next sample should contain."""
        return self._zero_window.wanted_tcp_info

    def step(self, poll: Poll) -> Stalls:
        """Return the connections of this poll that make no progress."""
        rows, sample = poll.rows, poll.sample
        unread = self._unread_processes(rows, sample, poll.rates)
        return Stalls(self._unanswered(sample), self._zero_windows(rows, sample), unread)

    def _unanswered(self, sample: Sample) -> tuple[UnansweredConnects, ...]:
        row = np.flatnonzero(sample.state == State.SYN_SENT)
        retransmits = sample.table["idiag_retrans"][row]
        unanswered = retransmits >= self._syn_retransmits
        row, retransmits = row[unanswered], retransmits[unanswered]
        if not len(row):
            return ()
        groups = group_by(remote_endpoint_hashes(sample, row))
        most, size = groups.most(retransmits), groups.size
        top = np.argsort(-size, kind="stable")[:TOP].tolist()
        first = row[groups.first]
        destinations = [
            UnansweredConnects(remote_endpoint(sample.table[first[at]]), int(size[at]), int(most[at])) for at in top
        ]
        return tuple(sorted(destinations, key=lambda connects: (-connects.count, str(connects.remote))))

    def _zero_windows(self, rows: Rows, sample: Sample) -> tuple[ZeroWindowPeer, ...]:
        full = np.flatnonzero((sample.inode != 0) | np.isin(sample.state, _SENDING_ORPHANS))
        row = full[sample.table["idiag_timer"][full] == _PERSIST]
        since = self._zero_window.step(sample, row)
        if not len(row):
            return ()
        server = rows.role[row] == Role.SERVER
        # The ports of clients mean nothing: the connections of one client address are one group.
        peer = np.where(
            server, address_hashes(sample, row, "idiag_dst") << np.uint64(16), remote_endpoint_hashes(sample, row)
        )
        groups = group_by(peer * np.uint64(2) + server)
        size, begin = groups.size, groups.least(since)
        unsent = groups.sums(sample.table["idiag_wqueue"][row])
        peers = []
        for at in np.argsort(begin, kind="stable")[:TOP].tolist():
            member = groups.first[at]
            remote = remote_endpoint(sample.table[row[member]], port=not server[member])
            peers.append(ZeroWindowPeer(remote, int(size[at]), float(rows.time - begin[at]), int(unsent[at])))
        return tuple(sorted(peers, key=lambda peer: (-peer.longest_s, str(peer.remote))))

    def _unread_processes(self, rows: Rows, sample: Sample, rates: Mapping[str, float]) -> tuple[UnreadProcess, ...]:
        """Return the processes whose receive queues were high when a zero window was advertised, and still are."""
        row = np.flatnonzero(
            (rows.owner >= 0) & ((sample.state == State.ESTABLISHED) | (sample.state == State.FIN_WAIT_2))
        )
        row = row[sample.table["idiag_rqueue"][row] >= HIGH_QUEUE]
        if rates.get("TCPToZeroWindowAdv", 0) <= 0:
            row = row[np.isin(sample.cookie[row], self._unread)]
        self._unread = sample.cookie[row]
        size = np.bincount(rows.owner[row])
        unread = np.bincount(rows.owner[row], sample.table["idiag_rqueue"][row])
        codes = np.flatnonzero(size).tolist()
        processes = (UnreadProcess(rows.owners[code], int(size[code]), int(unread[code])) for code in codes)
        return tuple(sorted(processes, key=lambda process: (-process.unread_bytes, process.process))[:TOP])
