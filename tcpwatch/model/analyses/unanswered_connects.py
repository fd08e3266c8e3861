"""Connection attempts that get no answer: those that wait, and those that the caller has given up.

A socket in SYN_SENT shows how often its SYN was retransmitted. A caller with a short timeout closes the socket before
that: its destroy event has a tcp_info that counts no received segment (tcp_segs_in in include/net/tcp.h). How long it
waited is known from the trace, from the retransmits, or from a poll that saw it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.group_by import group_by
from tcpwatch.arrays.lookup import find_sorted
from tcpwatch.arrays.opaque_rows import take_rows
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.tcp_info import has_field
from tcpwatch.model.lifecycle.archive import RECORD
from tcpwatch.model.lifecycle.tracker import LifecycleStep
from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.endpoint import Endpoint
from tcpwatch.model.sockets.remote_ends import RemoteEnds, concatenated
from tcpwatch.model.states import Role, State

TOP = 20
"""Destinations in the result."""
EXAMPLES = 3
"""Addresses of a network that are named."""
KEPT = 4_096
"""Destinations of given up attempts that are kept of one step: those with most attempts."""
_FIRST_TIMEOUT_MS = 1_000
"""Time before the first retransmit of a SYN (TCP_TIMEOUT_INIT in include/net/tcp.h)."""


@dataclass(frozen=True, slots=True)
class UnansweredConnects:
    """The connection attempts to one destination, or to one network, that get no answer."""

    remote: Endpoint
    """Address and port; or a network of which several addresses do not answer."""
    count: int
    """Sockets in SYN_SENT with at least as many SYN retransmits as the threshold."""
    retransmits: int
    """The most SYN retransmits of one of them; 0 if there is none."""
    given_up: int = 0
    """Attempts that the caller closed without an answer, in the last seconds."""
    longest_s: float = 0.0
    """The longest of them waited at least this long."""
    addresses: int = 1
    """Addresses that do not answer."""
    examples: tuple[str, ...] = ()
    """Some of them, if it is a network."""

    @property
    def attempts(self) -> int:
        """Return the attempts that wait, and those given up."""
        return self.count + self.given_up


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The destinations and networks that do not answer."""

    destinations: tuple[UnansweredConnects, ...] = ()
    """Those with most attempts."""
    all_destinations: int = 0
    stuck: int = 0
    """All with as many attempts as the threshold, or as many addresses; no less than are listed."""
    stuck_attempts: int = 0
    """The attempts to all of these."""


@dataclass(frozen=True, slots=True)
class ConnectLimits:
    """Thresholds."""

    retransmits: float = 2
    """SYN retransmits of an attempt that waits."""
    attempts: float = 5
    """Attempts to one destination."""
    addresses: float = 5
    """Addresses of one network, with one attempt or more each."""
    wait_s: float = 0.1
    """Shortest time after which a given up attempt counts: a caller may close an attempt because another succeeded."""
    window_s: float = 30.0
    """Time for which given up attempts are kept."""


@dataclass(frozen=True, slots=True, eq=False)
class _Attempts:
    """Attempts: aligned columns."""

    remote: RemoteEnds
    waiting: NDArray[np.int64]
    retransmits: NDArray[np.int64]
    given_up: NDArray[np.int64]
    waited_s: NDArray[np.float64]

    def take(self, where: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """Return the attempts at these indices."""
        counts = (self.waiting[where], self.retransmits[where], self.given_up[where])
        return type(self)(self.remote.take(where), *counts, self.waited_s[where])

    def by(self, numbers: NDArray[np.uint64]) -> Self:
        """Return one row for each distinct number, with the remote end of one of its rows."""
        groups = group_by(numbers)
        return type(self)(
            self.remote.take(groups.first),
            groups.sums(self.waiting),
            groups.most(self.retransmits),
            groups.sums(self.given_up),
            groups.most(self.waited_s),
        )


def _joined(parts: list[_Attempts]) -> _Attempts:
    columns = ("waiting", "retransmits", "given_up", "waited_s")
    return _Attempts(
        concatenated(*(part.remote for part in parts)),
        *(np.concatenate([getattr(part, column) for part in parts]) for column in columns),
    )


class UnansweredConnectAnalysis:
    """Remembers the attempts that were given up in the last seconds."""

    def __init__(self, limits: ConnectLimits) -> None:
        self._limits = limits
        self._given_up: deque[tuple[float, _Attempts]] = deque()
        self._vanished = np.empty(0, RECORD)
        """Records of attempts that the last poll found ended, and whose destroy event has not come yet."""

    def step(self, poll: Poll, lifecycle: LifecycleStep, silent_peers: NDArray[np.uint64]) -> Unanswered:
        """Return the destinations that do not answer.

        Without those whose open connections are silent, too (`silent_peers` are RemoteEnds.address_numbers), and
        without attempts to a full accept queue of this host: that is why the kernel drops their SYNs.
        """
        now = poll.sample.monotonic
        while self._given_up and self._given_up[0][0] <= now - self._limits.window_s:
            self._given_up.popleft()
        ended, waiting = lifecycle.ended, np.flatnonzero(poll.sample.state == State.SYN_SENT)
        if not (len(ended) or len(waiting) or len(self._vanished) or self._given_up):
            return Unanswered()
        full_ports = _full_ports(poll)
        called = np.flatnonzero((ended["role"] != Role.SERVER) & (ended["row"]["idiag_dport"] != 0))
        known = _knows_received(ended["info_bytes"][called])
        vanished = called[~known]
        called = called[known]
        silent = ended["info"]["tcpi_segs_in"][called] == 0
        records = np.concatenate((_begun(take_rows(ended, called[silent]), poll), self._late_records(poll)))
        records = records[~_is_local(records["row"], full_ports)]
        if len(records):
            self._given_up.append((now, self._attempts(records)))
        vanished = vanished[ended["row"]["idiag_state"][vanished] == State.SYN_SENT][:KEPT]
        self._vanished = _begun(take_rows(ended, vanished), poll)
        if self._given_up:
            answered = concatenated(_opened(poll), RemoteEnds.of(take_rows(ended["row"], called[~silent])))
            self._forget(answered.endpoint_numbers)
        attempts = _joined(
            [_waiting(poll, waiting, self._limits.retransmits, full_ports), *(part for _, part in self._given_up)]
        )
        if len(silent_peers):
            attempts = attempts.take(~np.isin(attempts.remote.address_numbers, silent_peers))
        return _summary(attempts, self._limits) if len(attempts.remote) else Unanswered()

    def _late_records(self, poll: Poll) -> NDArray[np.void]:
        """Return the attempts that the last poll found ended, of which a destroy event says that nothing came."""
        events, records = poll.sample.destroyed, self._vanished
        if events is None or not len(records) or not has_field("tcpi_segs_in", events.info_bytes):
            return records[:0]
        at = np.flatnonzero(np.isin(events.table["idiag_cookie"], records["cookie"]))
        at = at[(events.table["idiag_dport"][at] != 0) & (events.infos["tcpi_segs_in"][at] == 0)]
        order = np.argsort(records["cookie"])
        records = records[order[find_sorted(records["cookie"][order], events.table["idiag_cookie"][at])]]
        records["info"], records["info_bytes"] = events.infos[at], events.info_bytes
        received = events.received_monotonic_s[at] + poll.sample.time - poll.sample.monotonic
        records["end"] = np.minimum(records["end"], received)
        return records

    def _forget(self, answered: NDArray[np.uint64]) -> None:
        """Forget the attempts to destinations that have answered since."""
        kept = ((when, part, ~np.isin(part.remote.endpoint_numbers, answered)) for when, part in self._given_up)
        self._given_up = deque((when, part.take(mask)) for when, part, mask in kept if mask.any())

    def _attempts(self, ended: NDArray[np.void]) -> _Attempts:
        """Return the attempts among these records that waited long enough, by destination."""
        waited_s = np.asarray(ended["end"] - ended["begin"], np.float64)
        repeated = ended["info"]["tcpi_total_retrans"] > 0
        waited_s[repeated] = np.maximum(waited_s[repeated], _FIRST_TIMEOUT_MS / 1000)
        long = np.flatnonzero(waited_s >= self._limits.wait_s)
        none, ones = np.zeros(len(long), np.int64), np.ones(len(long), np.int64)
        attempts = _Attempts(RemoteEnds.of(ended["row"][long]), none, none, ones, waited_s[long])
        grouped = attempts.by(attempts.remote.endpoint_numbers)
        return grouped.take(np.argsort(-grouped.given_up, kind="stable")[:KEPT])


def _knows_received(info_bytes: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Return where a tcp_info of this size counts the received segments."""
    sizes = np.unique(info_bytes)
    known: NDArray[np.bool_] = np.isin(info_bytes, [size for size in sizes.tolist() if has_field("tcpi_segs_in", size)])
    return known


def _opened(poll: Poll) -> RemoteEnds:
    """Return the remote ends of the connections that this host opened since the previous poll."""
    moved = np.concatenate((poll.join.new, poll.join.changed))
    state = poll.rows.state[moved]
    answered = (poll.rows.role[moved] != Role.SERVER) & (state != State.SYN_SENT) & (state != State.CLOSED)
    return RemoteEnds.of(take_rows(poll.rows.table, moved[answered]))


def _begun(records: NDArray[np.void], poll: Poll) -> NDArray[np.void]:
    """Return the records with the beginning that the timer of the previous poll shows, where that is earlier."""
    if poll.elapsed_s is not None and len(records):
        row = records["row"]
        left_ms = row["idiag_expires"].astype(np.float64)
        first = (
            records["seen"] & (row["idiag_timer"] == 1) & (row["idiag_retrans"] == 0) & (left_ms < _FIRST_TIMEOUT_MS)
        )
        begin = poll.sample.time - poll.elapsed_s - (_FIRST_TIMEOUT_MS - left_ms) / 1000
        records["begin"] = np.where(first, np.minimum(records["begin"], begin), records["begin"])
    return records


def _full_ports(poll: Poll) -> NDArray[np.uint16]:
    """Return the ports of the listeners whose accept queue has reached its limit."""
    sample = poll.sample
    row = poll.join.listener_keys.row
    limit, depth = sample.table["idiag_wqueue"][row], sample.table["idiag_rqueue"][row]
    return sample.local_port[row[(depth >= limit) & (limit > 0) & sample.capabilities.queues]]


def _is_local(table: NDArray[np.void], ports: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Return which rows of uapi.SOCKET call one of these ports of this host.

    A connection of a host to itself has one address at both ends, unless it is of 127.0.0.0/8.
    """
    source, destination = table["idiag_src"], table["idiag_dst"]
    loopback = (table["idiag_family"] == uapi.AF_INET) & ((destination[:, 0] & _FIRST_BYTE) == _LOOPBACK)
    local: NDArray[np.bool_] = loopback | (source == destination).all(axis=1)
    return local & np.isin(table["idiag_dport"], ports)


_FIRST_BYTE, _LOOPBACK = (np.frombuffer(bytes((byte, 0, 0, 0)), np.uint32)[0] for byte in (255, 127))


def _waiting(poll: Poll, row: NDArray[np.intp], least: float, full_ports: NDArray[np.uint16]) -> _Attempts:
    """Return those of these sockets in SYN_SENT that have as many retransmits."""
    sample = poll.sample
    row = row[~_is_local(take_rows(sample.table, row), full_ports)]
    retransmits = sample.table["idiag_retrans"][row].astype(np.int64)
    row, retransmits = row[retransmits >= least], retransmits[retransmits >= least]
    none, ones = np.zeros(len(row), np.int64), np.ones(len(row), np.int64)
    return _Attempts(RemoteEnds.of(take_rows(sample.table, row)), ones, retransmits, none, np.zeros(len(row)))


def _summary(attempts: _Attempts, limits: ConnectLimits) -> Unanswered:
    """Return the destinations, and instead of those in one network the network if enough addresses do not answer."""
    addresses = attempts.by(attempts.remote.address_numbers).remote
    networks = group_by(addresses.network_numbers)
    wide = np.flatnonzero(networks.size >= limits.addresses)
    wide_numbers = addresses.network_numbers[networks.first[wide]]
    in_wide = np.isin(attempts.remote.network_numbers, wide_numbers)
    apart, within = attempts.take(~in_wide), attempts.take(in_wide)
    single = apart.by(apart.remote.endpoint_numbers)
    merged = within.by(within.remote.network_numbers)
    single_attempts, merged_attempts = single.waiting + single.given_up, merged.waiting + merged.given_up
    stuck = single_attempts >= limits.attempts
    found = [_destination(single, at) for at in single.remote.by_size(single_attempts)[:TOP].tolist()]
    for at in merged.remote.by_size(merged_attempts)[:TOP].tolist():
        found.append(_network(merged, at, addresses))
    found.sort(key=lambda connects: -connects.attempts)
    return Unanswered(
        tuple(found[:TOP]),
        len(single.remote) + len(merged.remote),
        int(np.count_nonzero(stuck)) + len(merged.remote),
        int(single_attempts[stuck].sum() + merged_attempts.sum()),
    )


def _destination(attempts: _Attempts, at: int) -> UnansweredConnects:
    return UnansweredConnects(attempts.remote.endpoint(at), *_figures(attempts, at))


def _network(attempts: _Attempts, at: int, addresses: RemoteEnds) -> UnansweredConnects:
    number = attempts.remote.network_numbers[at]
    members = addresses.take(addresses.network_numbers == number)
    figures = _figures(attempts, at)
    return UnansweredConnects(attempts.remote.network(at), *figures, len(members), members.first_hosts(EXAMPLES))


def _figures(attempts: _Attempts, at: int) -> tuple[int, int, int, float]:
    return (
        int(attempts.waiting[at]), int(attempts.retransmits[at]), int(attempts.given_up[at]),
        float(attempts.waited_s[at]),
    )  # fmt: skip
