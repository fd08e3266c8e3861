"""Peers that do not answer any more: their connections retransmit, or probe, and nothing comes from them.

A dump shows the timer of each socket and how often it has expired in a row without an answer (idiag_timer,
idiag_retrans: inet_sk_diag_fill in net/ipv4/inet_diag.c). It does not show when something was received: that is
tcpi_last_data_recv and tcpi_last_ack_recv, which is requested for the sockets concerned, a few hundred in each step.
An idle connection receives nothing either: the peer owes an answer only since the connection retransmits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.address_words import are_mapped, first_words
from tcpwatch.arrays.group_by import group_by
from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.arrays.opaque_rows import take_rows
from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.endpoint import Endpoint
from tcpwatch.model.sockets.remote_ends import RemoteEnds
from tcpwatch.model.states import State
from tcpwatch.sample import Sample

TOP = 20
"""Peers in the result."""
EXAMPLES = 3
"""Addresses of a network that are named."""
RETRANSMIT_TIMER, KEEPALIVE_TIMER, PERSIST_TIMER = 1, 2, 4
_MAX_WANTED, _MAX_OTHERS = 256, 64
"""Sockets whose tcp_info is requested in one step; those among them that do not retransmit."""
_CONNECTED = (
    State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSE_WAIT, State.LAST_ACK, State.CLOSING,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SilentPeer:
    """The connections to one address, or to one network, from which nothing comes."""

    remote: Endpoint
    """An address; or a network of which several addresses are silent, and none is not."""
    count: int
    """Connections that retransmit, and whose last received segment is known."""
    silent_s: float
    """Nothing came from the peer for this time, on any connection that is known."""
    unacknowledged: int
    """Bytes in the send queues of these connections."""
    attempts: int = 0
    """Sockets in SYN_SENT to the same address."""
    addresses: int = 1
    examples: tuple[str, ...] = ()
    """Some of the addresses, if it is a network."""


@dataclass(frozen=True, slots=True, eq=False)
class SilentPeers:
    """The peers from which nothing comes."""

    peers: tuple[SilentPeer, ...] = ()
    """Those with most connections; TOP at most."""
    all_peers: int = 0
    connections: int = 0
    """The connections of all of them."""
    addresses: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    """Hashes of all silent addresses, as RemoteEnds.address_numbers."""


@dataclass(frozen=True, slots=True)
class SilenceLimits:
    """Thresholds."""

    connections: float = 3
    """Connections to one address that retransmit."""
    addresses: float = 5
    """Silent addresses of one network."""
    silent_s: float = 10.0


class SilentPeerAnalysis:
    """Remembers when something was received last on the connections that retransmit, and on others to these peers."""

    def __init__(self, limits: SilenceLimits) -> None:
        self._limits = limits
        self._cookie = np.empty(0, np.uint64)
        self._heard = np.empty(0, np.float64)
        """Unix seconds at which something was received; NaN if it is not known."""
        self._begun = np.empty(0, np.float64)
        """Unix seconds since when the connection retransmits without an answer, at the latest; inf if it does not."""
        self._asked = np.empty(0, np.float64)
        """Unix seconds of the sample that had the tcp_info; -inf if there was none."""
        self._wanted: frozenset[int] = frozenset()

    @property
    def wanted_tcp_info(self) -> frozenset[int]:
        """Cookies whose tcp_info the next sample should contain."""
        return self._wanted

    def step(self, poll: Poll, unanswered: NDArray[np.intp]) -> SilentPeers:
        """Return the silent peers; `unanswered` are rows of connections whose timer expired without an answer."""
        sample = poll.sample
        suspects = self._suspects(sample, unanswered)
        if suspects is None:
            self._cookie, self._heard = self._cookie[:0], self._heard[:0]
            self._begun, self._asked = self._begun[:0], self._asked[:0]
            self._wanted = frozenset()
            return SilentPeers()
        row = _connections(sample, suspects)
        repeats = np.isin(row, unanswered)
        self._remember(sample, row, repeats)
        self._wanted = self._choose(sample.cookie[row], repeats)
        members = _Members(
            poll,
            row,
            RemoteEnds.of(take_rows(sample.table, row)),
            repeats & ~np.isnan(self._heard) & (self._begun <= sample.time - self._limits.silent_s),
            np.where(_moves(poll, row), np.inf, self._heard),
            self._begun,
        )
        return _silent(members, self._limits)

    def _suspects(self, sample: Sample, unanswered: NDArray[np.intp]) -> _Suspects | None:
        """Return the addresses and networks of which enough connections retransmit; None if there are none."""
        if not len(unanswered):
            return None
        remote = RemoteEnds.of(take_rows(sample.table, unanswered))
        by_address = group_by(remote.address_numbers)
        distinct = remote.take(by_address.first)
        by_network = group_by(distinct.network_numbers)
        many = by_address.size >= self._limits.connections
        wide = distinct.network_numbers[by_network.first[by_network.size >= self._limits.addresses]]
        chosen = many | np.isin(distinct.network_numbers, wide)
        if not chosen.any():
            return None
        return _Suspects(distinct.take(chosen), wide)

    def _remember(self, sample: Sample, row: NDArray[np.intp], repeats: NDArray[np.bool_]) -> None:
        """Carry what is known over to these rows, and add what this sample knows. Rows are ascending by cookie."""
        cookie = sample.cookie[row]
        heard, asked = np.full(len(row), np.nan), np.full(len(row), -np.inf)
        begun = np.where(repeats, sample.time, np.inf)
        before = find_sorted(self._cookie, cookie)
        known = np.flatnonzero(before != NOT_FOUND)
        heard[known], asked[known] = self._heard[before[known]], self._asked[before[known]]
        begun[known] = np.where(repeats[known], np.minimum(begun[known], self._begun[before[known]]), np.inf)
        watched = np.array([*self._wanted & sample.watched_tcp_info.keys()], np.uint64)
        at = find_sorted(cookie, watched)
        for number, place in zip(watched.tolist(), at.tolist(), strict=True):
            if place != NOT_FOUND:
                info = sample.watched_tcp_info[number]
                silent_ms = min(info.get("last_data_recv", 0), info.get("last_ack_recv", 0))
                heard[place], asked[place] = sample.time - silent_ms / 1000, sample.time
                if repeats[place]:
                    begun[place] = min(begun[place], sample.time - _unanswered_s(info))
        self._cookie, self._heard, self._begun, self._asked = cookie, heard, begun, asked

    def _choose(self, cookie: NDArray[np.uint64], repeats: NDArray[np.bool_]) -> frozenset[int]:
        """Return the cookies to ask for: those asked longest ago, most of them of connections that retransmit."""
        order = np.argsort(self._asked, kind="stable")
        others = order[~repeats[order]][:_MAX_OTHERS]
        first = order[repeats[order]][: _MAX_WANTED - len(others)]
        return frozenset(cookie[np.concatenate((first, others))].tolist())


@dataclass(frozen=True, slots=True, eq=False)
class _Suspects:
    remote: RemoteEnds
    """Each address once."""
    networks: NDArray[np.uint64]
    """Hashes of the networks of which several addresses are suspects."""


@dataclass(frozen=True, slots=True, eq=False)
class _Members:
    """All connections to the suspects: aligned columns."""

    poll: Poll
    row: NDArray[np.intp]
    remote: RemoteEnds
    repeats: NDArray[np.bool_]
    """Whether the connection has retransmitted for long enough, and it is known when something was received."""
    heard: NDArray[np.float64]
    """Unix seconds at which something was received; NaN if it is not known; inf if the connection makes progress."""
    begun: NDArray[np.float64]
    """Unix seconds since when it retransmits."""


def _unanswered_s(info: Mapping[str, int]) -> float:
    """Return for how long a connection has retransmitted at least.

    The timeout doubles each time (tcp_retransmit_timer): the first ones sum up to tcpi_rto less the timeout at the
    beginning. tcpi_last_data_sent is the time since the last retransmit.
    """
    rto_s, backoff = info.get("rto", 0) / 1e6, info.get("backoff", 0)
    return rto_s - math.ldexp(rto_s, -backoff) + info.get("last_data_sent", 0) / 1000 * (backoff > 0)


def unanswered_rows(sample: Sample, row: NDArray[np.intp], timer: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return those of these rows, with their `idiag_timer`, that a process holds and whose timer expired unanswered.

    Sockets that no process holds are left out: they are being closed, and `orphans` counts them.
    """
    running = (timer == RETRANSMIT_TIMER) | (timer == KEEPALIVE_TIMER) | (timer == PERSIST_TIMER)
    row = row[running]
    timer = timer[running]
    # One unanswered probe may be under way.
    row = row[sample.table["idiag_retrans"][row] > (timer != RETRANSMIT_TIMER)]
    unanswered: NDArray[np.intp] = row[np.isin(sample.state[row], _CONNECTED) & (sample.inode[row] != 0)]
    return unanswered


def _connections(sample: Sample, suspects: _Suspects) -> NDArray[np.intp]:
    """Return the rows of all connections to these addresses and networks that a process holds."""
    row = np.flatnonzero(sample.inode)
    row = row[np.isin(sample.state[row], _CONNECTED)]
    # A quick test by the first word of the address leaves few rows.
    address, mapped = suspects.remote.address, are_mapped(suspects.remote.address)
    words = np.where(mapped, address[:, 1] & np.uint64(0xFFFFFFFF), address[:, 0] >> np.uint64(32)).astype(np.uint32)
    quick = np.unique(np.append(words & _NETWORK_OF_V4, np.zeros(int(mapped.any()), np.uint32)))
    row = row[np.isin(first_words(sample.table, "idiag_dst")[row].astype(np.uint32) & _NETWORK_OF_V4, quick)]
    remote = RemoteEnds.of(take_rows(sample.table, row))
    meant = np.isin(remote.address_numbers, suspects.remote.address_numbers)
    if len(suspects.networks):
        meant |= np.isin(remote.network_numbers, suspects.networks)
    return row[meant]


_NETWORK_OF_V4 = np.uint32(0xFFFFFF00)


def _moves(poll: Poll, row: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which of these connections received something between the last two dumps of tcp_info."""
    cookie = poll.rows.cookie[row]
    throughput = poll.rows.throughput
    received: NDArray[np.bool_] = (throughput.rx_bytes_per_s(cookie) > 0) | (throughput.tx_bytes_per_s(cookie) > 0)
    return received


def _silent(members: _Members, limits: SilenceLimits) -> SilentPeers:
    """Return the networks with enough silent addresses, and the other silent addresses with enough connections."""
    poll, now = members.poll, members.poll.rows.time
    opened = np.where(poll.rows.begin_seen[members.row], poll.rows.first_seen[members.row], -np.inf)
    heard = np.where(np.isnan(members.heard), opened, members.heard)
    loud = heard > now - limits.silent_s
    by_address, by_network = members.remote.address_numbers, members.remote.network_numbers
    wide = members.repeats & ~np.isin(by_network, by_network[loud])
    addresses = group_by(by_address[wide]).first
    networks = group_by(by_network[wide][addresses])
    wide &= np.isin(by_network, by_network[wide][addresses][networks.first[networks.size >= limits.addresses]])
    apart = members.repeats & ~wide & ~np.isin(by_address, by_address[loud])
    hosts = group_by(by_address[apart])
    apart &= np.isin(by_address, by_address[apart][hosts.first[hosts.size >= limits.connections]])
    found: list[SilentPeer] = []
    all_peers = 0
    for chosen, numbers in ((wide, by_network), (apart, by_address)):
        at = np.flatnonzero(chosen)
        groups = group_by(numbers[at])
        all_peers += len(groups)
        for number in members.remote.take(at[groups.first]).by_size(groups.size)[:TOP].tolist():
            place = at[groups.order[groups.start[number] :][: groups.size[number]]]
            since = max(float(heard[numbers == numbers[place[0]]].max()), float(members.begun[place].min()))
            silent_s = now - since
            found.append(_peer(members, place, silent_s, is_network=chosen is wide))
    found.sort(key=lambda peer: -peer.count)
    silent = wide | apart
    return SilentPeers(tuple(found[:TOP]), all_peers, int(np.count_nonzero(silent)), np.unique(by_address[silent]))


def _peer(members: _Members, place: NDArray[np.intp], silent_s: float, is_network: bool) -> SilentPeer:
    remote, sample = members.remote.take(place), members.poll.sample
    addresses = remote.take(group_by(remote.address_numbers).first)
    waiting = take_rows(sample.table, np.flatnonzero(sample.state == State.SYN_SENT))
    return SilentPeer(
        remote.network(0) if is_network else remote.host(0),
        len(place),
        silent_s,
        int(sample.table["idiag_wqueue"][members.row[place]].sum(dtype=np.int64)),
        int(np.count_nonzero(np.isin(RemoteEnds.of(waiting).address_numbers, remote.address_numbers))),
        len(addresses),
        addresses.first_hosts(EXAMPLES) if is_network else (),
    )
