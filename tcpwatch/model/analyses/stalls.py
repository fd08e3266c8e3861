"""Connections that make no progress: unanswered connect()s, silent peers, zero windows, and data that is not read.

When this host advertises a zero window, the kernel counts it (TCPToZeroWindowAdv) without naming the socket: the
sockets with a high receive queue at that time are asked for their window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.group_by import group_by
from tcpwatch.arrays.opaque_rows import take_rows
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.analyses.silent_peers import SilenceLimits, SilentPeerAnalysis, SilentPeers, unanswered_rows
from tcpwatch.model.analyses.unanswered_connects import ConnectLimits, Unanswered, UnansweredConnectAnalysis
from tcpwatch.model.analyses.zero_windows import EXAMPLES, PERSIST, ZeroWindowAnalysis, ZeroWindows
from tcpwatch.model.lifecycle.tracker import NOTHING_HAPPENED, LifecycleStep
from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.programs import Program, by_program
from tcpwatch.model.sockets.remote_ends import RemoteEnds
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import State
from tcpwatch.sample import Sample

HIGH_QUEUE = 32 * 1024
"""Bytes in a receive queue that can be the reason for a zero window of this host. [H]"""


_MAX_WANTED = 256
"""Sockets whose tcp_info is asked for in one step."""
_SENDING_ORPHANS = (State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK)
"""States of sockets that have no process any more, and so no inode, but may still have data to send."""


@dataclass(frozen=True, slots=True)
class UnreadProgram:
    """The connections that one program does not read, so that this host advertises a zero window."""

    program: Program
    count: int
    unread_bytes: int
    """Bytes in their receive queues."""
    peers: int = 0
    """Addresses that the data comes from."""
    examples: tuple[str, ...] = ()
    """Some of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Stalls:
    """The connections that make no progress."""

    unanswered: Unanswered = field(default_factory=Unanswered)
    zero_window: ZeroWindows = field(default_factory=ZeroWindows)
    unread: tuple[UnreadProgram, ...] = ()
    """Most bytes first."""
    silent: SilentPeers = field(default_factory=SilentPeers)


class StallAnalysis:
    """Remembers since when connections make no progress."""

    def __init__(self, limits: Thresholds) -> None:
        self._unanswered = UnansweredConnectAnalysis(
            ConnectLimits(
                limits.connect_stuck_repeats, limits.connect_stuck_count, limits.connect_stuck_addresses,
                limits.connect_stuck_wait_s, limits.connect_stuck_window_s,
            )
        )  # fmt: skip
        self._zero_windows = ZeroWindowAnalysis(limits.zero_window_age_s)
        self._silent = SilentPeerAnalysis(
            SilenceLimits(limits.silent_peer_count, limits.silent_peer_addresses, limits.silent_peer_s)
        )
        self._unread = np.empty(0, np.uint64)
        """Cookies of the sockets whose receive queue was high when this host advertised a zero window."""
        self._closed = np.empty(0, np.uint64)
        """Those whose receive window was 0."""
        self._asked: frozenset[int] = frozenset()
        """Some of the others."""

    @property
    def wanted_tcp_info(self) -> frozenset[int]:
        """Cookies whose tcp_info the next sample should contain."""
        return self._zero_windows.wanted_tcp_info | self._silent.wanted_tcp_info | self._asked

    def step(self, poll: Poll, lifecycle: LifecycleStep = NOTHING_HAPPENED) -> Stalls:
        """Return the connections of this poll that make no progress."""
        rows, sample = poll.rows, poll.sample
        full = np.flatnonzero((sample.inode != 0) | np.isin(sample.state, _SENDING_ORPHANS))
        timer = sample.table["idiag_timer"][full]
        silent = self._silent.step(poll, unanswered_rows(sample, full, timer))
        unread = self._unread_rows(rows, sample, poll.rates)
        return Stalls(
            self._unanswered.step(poll, lifecycle, silent.addresses),
            self._zero_windows.step(poll, full[timer == PERSIST], unread),
            _programs(rows, sample, unread),
            silent,
        )

    def _unread_rows(self, rows: Rows, sample: Sample, rates: Mapping[str, float]) -> NDArray[np.intp]:
        """Return the rows with a high receive queue and a zero window of this host.

        The kernel's counter does not say whose window it is: a socket is one when its queue was high at that time and
        still is, and when its tcp_info showed a receive window of 0 (tcpi_rcv_wnd, since Linux 6.2; without it, the
        queue alone has to do). Sockets of unknown owners are left out, and remembered: their owners may be found later.
        """
        if rates.get("TCPToZeroWindowAdv", 0) <= 0 and not len(self._unread):
            self._asked = frozenset()
            return self._unread.astype(np.intp)  # as in most steps
        row = sample.rows_in(State.ESTABLISHED, State.FIN_WAIT_2)
        row = row[sample.table["idiag_rqueue"][row] >= HIGH_QUEUE]
        if rates.get("TCPToZeroWindowAdv", 0) <= 0:
            row = row[np.isin(sample.cookie[row], self._unread)]
        self._unread = sample.cookie[row]
        infos = sample.watched_tcp_info
        closed = [cookie for cookie in self._asked & infos.keys() if infos[cookie].get("rcv_wnd", 0) == 0]
        proved = np.isin(self._unread, np.append(self._closed, np.array(closed, np.uint64)))
        self._closed = self._unread[proved]
        self._asked = frozenset(self._unread[~proved][:_MAX_WANTED].tolist())
        return row[proved & (rows.owner[row] >= 0)]


def _programs(rows: Rows, sample: Sample, row: NDArray[np.intp]) -> tuple[UnreadProgram, ...]:
    unread = sample.table["idiag_rqueue"][row].astype(np.int64)
    found = []
    for part in by_program(rows, row):
        remote = RemoteEnds.of(take_rows(sample.table, row[part.at]))
        peers = remote.take(group_by(remote.address_numbers).first)
        found.append(
            UnreadProgram(
                part.program, len(part.at), int(unread[part.at].sum()), len(peers), peers.first_hosts(EXAMPLES)
            )
        )
    return tuple(sorted(found, key=lambda unread: (-unread.unread_bytes, str(unread.program))))
