"""The path: what does not get through to peers, or is not taken by them or by us.

Zero windows: a socket whose timer is 4 (persist) probes a peer that takes nothing (icsk_pending in
net/ipv4/tcp_timer.c, inet_sk_diag_fill). Our own are counted when a window of 0 is advertised (TCPToZeroWindowAdv),
of no socket by name: it is whose receive queue is high then, until it is read.
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
"""Destinations and processes that are told apart."""
HIGH_QUEUE = 32 * 1024
"""Bytes that wait to be read, from which on a receive queue can be why our window is closed. [H]"""
_PERSIST = 4


@dataclass(frozen=True, slots=True)
class UnansweredConnects:
    """connect()s to one destination that get no answer."""

    remote: Endpoint
    count: int
    """In SYN_SENT, with at least so many repeats as the threshold wants."""
    retransmits: int
    """The most that one of them has had."""


@dataclass(frozen=True, slots=True)
class ZeroWindowPeer:
    """Connections to one peer whose window is closed: it takes nothing."""

    remote: Endpoint
    """The address and port of a server; the address alone of a client."""
    count: int
    longest_s: float
    unsent: int
    """Bytes that wait for it."""


@dataclass(frozen=True, slots=True)
class UnreadProcess:
    """Connections that one process does not read, so that our window to their peers is closed."""

    owner: Owner
    count: int
    unread_bytes: int
    """Bytes that wait to be read."""

    @property
    def process(self) -> str:
        """`app[12]`."""
        return str(self.owner)


@dataclass(frozen=True, slots=True, eq=False)
class Stalls:
    """What is stuck on the way."""

    unanswered: tuple[UnansweredConnects, ...]
    zero_window: tuple[ZeroWindowPeer, ...]
    unread: tuple[UnreadProcess, ...]


class StallAnalysis:
    """One thread calls `step`, once a sample."""

    def __init__(self, repeats: float) -> None:
        """`repeats` of its SYN from which on a connect() is stuck."""
        self._repeats = repeats
        self._zero_window = Since("last_data_sent")
        self._unread = np.empty(0, np.uint64)
        """Cookies of the sockets with a high receive queue for which a zero window was advertised."""

    @property
    def wanted_tcp_info(self) -> frozenset[int]:
        """Cookies whose tcp_info the next sample should contain."""
        return self._zero_window.wanted_tcp_info

    def step(self, poll: Poll) -> Stalls:
        """Return the connections of this poll that make no progress."""
        rows, sample, rates = poll.rows, poll.sample, poll.rates
        return Stalls(self._stuck(sample), self._closed(rows, sample), self._not_read(rows, sample, rates))

    def _stuck(self, sample: Sample) -> tuple[UnansweredConnects, ...]:
        row = np.flatnonzero(sample.state == State.SYN_SENT)
        repeats = sample.table["idiag_retrans"][row]
        row, repeats = row[repeats >= self._repeats], repeats[repeats >= self._repeats]
        if not len(row):
            return ()
        groups = group_by(remote_endpoint_hashes(sample, row))
        most, size = groups.most(repeats), groups.size
        top = np.argsort(-size, kind="stable")[:TOP].tolist()
        found = [
            UnansweredConnects(remote_endpoint(sample, int(row[groups.first[at]])), int(size[at]), int(most[at]))
            for at in top
        ]
        return tuple(sorted(found, key=lambda one: (-one.count, str(one.remote))))

    def _closed(self, rows: Rows, sample: Sample) -> tuple[ZeroWindowPeer, ...]:
        full = np.flatnonzero((sample.inode != 0) | (sample.state == State.FIN_WAIT_1))
        row = full[sample.table["idiag_timer"][full] == _PERSIST]
        since = self._zero_window.step(sample, row)
        if not len(row):
            return ()
        server = rows.role[row] == Role.SERVER
        # A client's port says nothing: those of one address are taken together.
        peer = np.where(
            server, address_hashes(sample, row, "idiag_dst") << np.uint64(16), remote_endpoint_hashes(sample, row)
        )
        groups = group_by(peer * np.uint64(2) + server)
        size, begin = groups.size, groups.least(since)
        unsent = groups.sums(sample.table["idiag_wqueue"][row])
        found = []
        for at in np.argsort(begin, kind="stable")[:TOP].tolist():
            member = groups.first[at]
            client = not server[member]
            remote = remote_endpoint(sample, int(row[member]), port=client)
            found.append(ZeroWindowPeer(remote, int(size[at]), float(rows.time - begin[at]), int(unsent[at])))
        return tuple(sorted(found, key=lambda one: (-one.longest_s, str(one.remote))))

    def _not_read(self, rows: Rows, sample: Sample, rates: Mapping[str, float]) -> tuple[UnreadProcess, ...]:
        """A receive queue that was high when a window was closed counts until it is read."""
        row = np.flatnonzero(
            (rows.owner >= 0) & ((sample.state == State.ESTABLISHED) | (sample.state == State.FIN_WAIT_2))
        )
        row = row[sample.table["idiag_rqueue"][row] >= HIGH_QUEUE]
        if rates.get("TCPToZeroWindowAdv", 0) <= 0:
            row = row[np.isin(sample.cookie[row], self._unread)]
        self._unread = sample.cookie[row]
        found: dict[int, tuple[int, int]] = {}
        for code, waiting in zip(rows.owner[row].tolist(), sample.table["idiag_rqueue"][row].tolist(), strict=True):
            count, unread = found.get(code, (0, 0))
            found[code] = count + 1, unread + waiting
        unread_ = (UnreadProcess(rows.owners[code], count, unread) for code, (count, unread) in found.items())
        return tuple(sorted(unread_, key=lambda one: (-one.unread_bytes, one.process))[:TOP])
