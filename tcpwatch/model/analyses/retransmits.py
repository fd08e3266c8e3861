"""Retransmitted data segments of the last seconds, of this host and of each peer, counted in the same samples.

Retransmitted SYNs and SYN+ACKs are not counted: RetransSegs includes them and TCPSynRetrans is that part
(tcp_retransmit_skb and tcp_rtx_synack in net/ipv4/tcp_output.c). For the peers the trace reports each retransmit with
the state of its socket; without the trace, tcpi_total_retrans of two dumps shows how much it grew for a connection that
was established in both. Neither is complete: connections open and close between two polls. A peer's count is a minimum.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.address_words import mapped_halves
from tcpwatch.arrays.group_by import group_by
from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.arrays.opaque_rows import take_rows
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.trace.trace_events import TraceEventKind, TraceEvents
from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.endpoint import Endpoint
from tcpwatch.model.sockets.remote_ends import RemoteEnds, both_ends, concatenated, pair_numbers
from tcpwatch.model.states import State
from tcpwatch.sample import TcpInfoTable

KEPT = 1_024
"""Peers that are kept of one step: those with most retransmits."""
_NEW_SYN_RECV = 12
_HANDSHAKE = (State.SYN_SENT, State.SYN_RCVD, _NEW_SYN_RECV)


@dataclass(frozen=True, slots=True, eq=False)
class PeerRetransmits:
    """Retransmitted data segments by peer: aligned columns."""

    remote: RemoteEnds
    """Each address once."""
    count: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class WorstPeer:
    """A peer to which more data segments were retransmitted than to any other."""

    remote: Endpoint
    """Its address."""
    count: int
    """At least this number of segments."""


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """The increase of the counters between two samples."""

    monotonic: float
    seconds: float
    retransmitted: float
    """All, with SYNs."""
    syns: float
    segments: float
    peers: PeerRetransmits | None


@dataclass(frozen=True, slots=True, eq=False)
class Retransmits:
    """The retransmits of the last seconds."""

    steps: tuple[_Step, ...] = ()

    @property
    def seconds(self) -> float:
        """Return the time in which they were counted."""
        return sum(step.seconds for step in self.steps)

    @property
    def segments(self) -> float:
        """Return data segments sent for the first time (TCPOrigDataSent)."""
        return sum(step.segments for step in self.steps)

    @property
    def syns(self) -> float:
        """Return retransmitted SYNs and SYN+ACKs."""
        return sum(step.syns for step in self.steps)

    @property
    def data(self) -> float:
        """Return retransmitted segments other than SYNs and SYN+ACKs."""
        return max(0.0, sum(step.retransmitted for step in self.steps) - self.syns)

    def worst_peer(self) -> WorstPeer | None:
        """Return the peer with most retransmits, None if its figures do not prove that it is the one.

        They do if it has more than the second and all retransmits whose peer is not known together.
        """
        peers = self._by_peer()
        if peers is None or not len(peers.count):
            return None
        order = np.argsort(-peers.count, kind="stable")
        worst = int(peers.count[order[0]])
        second = int(peers.count[order[1]]) if len(order) > 1 else 0
        unknown = max(0.0, self.data - float(peers.count.sum()))
        return WorstPeer(peers.remote.host(int(order[0])), worst) if worst > second + unknown else None

    def to(self, addresses: NDArray[np.uint64]) -> int:
        """Return the retransmits to these addresses (RemoteEnds.address_numbers), as far as they are known."""
        peers = self._by_peer() if len(addresses) else None
        return int(peers.count[np.isin(peers.remote.address_numbers, addresses)].sum()) if peers else 0

    def _by_peer(self) -> PeerRetransmits | None:
        parts = [step.peers for step in self.steps if step.peers is not None]
        if not parts:
            return None
        return _summed(concatenated(*(part.remote for part in parts)), np.concatenate([part.count for part in parts]))


class RetransmitAnalysis:
    """Remembers the retransmits of the last seconds."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._steps: deque[_Step] = deque()

    def step(self, poll: Poll) -> Retransmits:
        """Return the retransmits of the last `window_s`; nothing where a counter is missing."""
        rates, seconds, now = poll.rates, poll.elapsed_s, poll.sample.monotonic
        if seconds and {"RetransSegs", "TCPOrigDataSent"} <= rates.keys():
            names = ("RetransSegs", "TCPSynRetrans", "TCPOrigDataSent")
            again, syns, segments = (rates.get(name, 0.0) * seconds for name in names)
            peers = _by_peer(poll) if again > syns else None
            self._steps.append(_Step(now, seconds, again, syns, segments, peers))
        while self._steps and self._steps[0].monotonic <= now - self._window_s:
            self._steps.popleft()
        return Retransmits(tuple(self._steps))


def _by_peer(poll: Poll) -> PeerRetransmits | None:
    """Return the retransmits since the previous sample by peer; None if the sample does not know them."""
    traced, infos = poll.sample.trace_events, poll.sample.tcp_info_table
    if traced is not None:
        return _traced(poll, traced)
    before = poll.previous_join.rows.throughput.last if poll.previous_join else None
    return _grown(poll, before, infos) if infos is not None and before is not None else None


def _traced(poll: Poll, traced: TraceEvents) -> PeerRetransmits:
    """Return the retransmits of this namespace's sockets, by the trace, which has those of all namespaces."""
    events = traced.events
    where = np.flatnonzero((events["kind"] == TraceEventKind.RETRANSMIT) & ~np.isin(events["new"], _HANDSHAKE))
    table = take_rows(events, where)
    v4 = table["family"] == uapi.AF_INET
    remote = RemoteEnds(mapped_halves(table["dst"], v4), table["dport"].astype(np.uint16))
    local = RemoteEnds(mapped_halves(table["src"], v4), table["sport"].astype(np.uint16))
    ours = np.isin(pair_numbers(local, remote), _open_pairs(poll, table["sport"]))
    return _summed(remote.take(ours), np.ones(np.count_nonzero(ours), np.int64))


def _open_pairs(poll: Poll, ports: NDArray[np.uint16]) -> NDArray[np.uint64]:
    """Return a hash of the endpoints of each socket with one of these local ports, open or closed since last time."""
    used = np.zeros(1 << 16, np.bool_)
    used[ports] = True
    sample, closed, destroyed = poll.sample, poll.join.closed.table, poll.sample.destroyed
    tables = [take_rows(sample.table, np.flatnonzero(used[sample.local_port])), closed]
    tables += [destroyed.table] if destroyed else []
    table = np.concatenate([part[used[part["idiag_sport"]]] for part in tables])
    return pair_numbers(*both_ends(table))


def _grown(poll: Poll, before: TcpInfoTable, last: TcpInfoTable) -> PeerRetransmits:
    """Return the retransmits between two dumps of tcp_info of connections that were established in both."""
    at = np.flatnonzero(last.table["tcpi_total_retrans"])
    earlier = find_sorted(before.cookie, last.cookie[at])
    at, earlier = at[earlier != NOT_FOUND], earlier[earlier != NOT_FOUND]
    open_ = ~np.isin(before.table["tcpi_state"][earlier], _HANDSHAKE)
    at, earlier = at[open_], earlier[open_]
    grown = last.table["tcpi_total_retrans"][at].astype(np.int64) - before.table["tcpi_total_retrans"][earlier]
    row = find_sorted(poll.rows.cookie, last.cookie[at])
    counted = (grown > 0) & (row != NOT_FOUND)  # TCP_REPAIR may reset the counter
    return _summed(RemoteEnds.of(take_rows(poll.rows.table, row[counted])), grown[counted])


def _summed(remote: RemoteEnds, count: NDArray[np.int64]) -> PeerRetransmits:
    groups = group_by(remote.address_numbers)
    sums = groups.sums(count)
    most = np.argsort(-sums, kind="stable")[:KEPT]
    return PeerRetransmits(remote.take(groups.first[most]), sums[most].astype(np.int64))
