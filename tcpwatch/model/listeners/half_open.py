"""Half-open connections: how old they are, how often their SYN+ACK was repeated, and where their SYNs came from.

The age of a request that we saw come is ours; of another it is estimated from one snapshot: its timer doubles from 1 s
on, so that after n repeats and with e seconds left it has lived 2^(n+1) - 1 - e (reqsk_timer_handler in
net/ipv4/inet_connection_sock.c). That is wrong where the client repeats its SYN or TCP_DEFER_ACCEPT holds the repeats
back, so it is never below 0, and said to be an estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.address_words import first_words
from tcpwatch.kernel.netlink import uapi
from tcpwatch.model.listeners.syn_sources import RemoteAddresses, SynSources, syn_sources
from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import State

AGE_EDGES_S = (0, 1, 3, 7, 15, 31, 63)
"""Where the steps of the age pyramid begin: the moments at which the SYN+ACK is repeated, and the usual end."""
RETRANSMIT_CLASSES = 6
"""Repeats that are told apart; the last rung has all above."""


@dataclass(frozen=True, slots=True, eq=False)
class HalfOpenSockets:
    """The half-open connections of a sample that belong to a listener or did, as aligned columns.

    One with an inode is a connect() that crossed the peer's SYN and is not among them.
    """

    row: NDArray[np.intp]
    key: NDArray[np.int32]
    """Index in Listening.keys, NOBODY where the listener has gone."""
    retransmits: NDArray[np.uint8]
    """SYN+ACKs sent again (idiag_retrans)."""
    age_s: NDArray[np.float32]
    arrival_seen: NDArray[np.bool_]
    """We saw it come: its age is ours, to one interval; else an estimate."""
    source: RemoteAddresses

    def count_by_key(self, keys: int) -> NDArray[np.intp]:
        """How many each of so many keys has."""
        return _per_key(self.key, keys)

    def retransmitted_by_key(self, keys: int) -> NDArray[np.intp]:
        """Of how many of them the SYN+ACK was repeated."""
        return _per_key(self.key[self.retransmits > 0], keys)

    def for_key(self, key: int) -> HalfOpenSockets:
        """Those of one key."""
        mine = self.key == key
        if mine.all():
            return self
        return HalfOpenSockets(
            self.row[mine], self.key[mine], self.retransmits[mine], self.age_s[mine], self.arrival_seen[mine],
            self.source.take(mine),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class HalfOpenSummary:
    """The half-open connections of the host, or of one listening address and port."""

    count: int
    retransmitted: int
    """Of how many the SYN+ACK was repeated."""
    estimated: int
    """Of how many the age is an estimate."""
    deferred: int
    """Older than the first repeat is due, and none was sent: held back by TCP_DEFER_ACCEPT."""
    oldest_s: float | None
    ages: tuple[int, ...]
    """How many are in each step of AGE_EDGES_S."""
    by_retransmits: tuple[int, ...]
    """How many have had 0, 1, 2, ... repeats; LADDER entries."""
    sources: SynSources

    @property
    def retransmitted_share(self) -> float:
        """Of all; 0 where there are none."""
        return self.retransmitted / self.count if self.count else 0.0


def _per_key(key: NDArray[np.int32], keys: int) -> NDArray[np.intp]:
    if len(key) and bool((key == key[0]).all()):  # a flood has one target
        counts = np.zeros(keys + 1, np.intp)
        counts[key[0] + 1] = len(key)
    else:
        counts = np.bincount(key + 1, minlength=keys + 1)
    return counts[1:]


def half_open_sockets(poll: Poll) -> HalfOpenSockets:
    """The requests of a sample."""
    rows, sample = poll.rows, poll.sample
    row = np.flatnonzero((sample.state == State.SYN_RCVD) & (sample.inode == 0))
    size = len(row)
    repeats = np.empty(size, np.uint8)
    expires_ms = np.empty(size, np.uint32)
    source4 = np.empty(size, np.uint32)
    for first in range(0, size, _BLOCK):  # of so many rows all columns are read while they are in the cache
        part = slice(first, first + _BLOCK)
        here = row[part]
        block = sample.table[here[0] : here[-1] + 1]
        wanted = slice(None) if len(here) == len(block) else here - here[0]
        repeats[part] = block["idiag_retrans"][wanted]
        expires_ms[part] = block["idiag_expires"][wanted]
        source4[part] = first_words(block, "idiag_dst")[wanted]
    seen_coming = rows.begin_seen[row]
    v6 = np.flatnonzero(sample.family[row] != uapi.AF_INET)
    return HalfOpenSockets(
        row,
        poll.join.listener_keys.lookup(sample, row),
        repeats,
        _ages(rows, row, repeats, expires_ms, sample.capabilities.timers),
        seen_coming,
        RemoteAddresses.of(source4, v6, sample.table["idiag_dst"][row[v6]]),
    )


_BLOCK = 16_384


def _ages(
    rows: Rows, row: NDArray[np.intp], repeats: NDArray[np.uint8], expires_ms: NDArray[np.uint32], timers_told: bool
) -> NDArray[np.float32]:
    # A clock that was set back makes nobody younger than 0.
    age_s = (rows.time - rows.first_seen[row]).astype(np.float32)
    np.maximum(age_s, 0, out=age_s)
    strange = ~rows.begin_seen[row]
    if timers_told and strange.any():
        lived = _LIVED_S[repeats]
        lived -= expires_ms / np.float32(1000)  # not times 0.001, which puts an age of 1 s below it
        # What has been there since our first sample is at least as old as that. (A mask for `maximum` costs five times
        # as much as to multiply by it.)
        lived *= strange
        np.maximum(age_s, lived, out=age_s)
    return age_s


_LIVED_S = np.exp2(np.minimum(np.arange(256), 16) + 1).astype(np.float32) - 1
"""Repeats → seconds from the SYN until the next repeat is due."""


def half_open_summary(found: HalfOpenSockets) -> HalfOpenSummary:
    """What there is to say of these."""
    # To count comparisons costs a tenth of sorting into bins.
    at_least = [int(np.count_nonzero(found.retransmits >= rung)) for rung in range(RETRANSMIT_CLASSES)]
    older = [int(np.count_nonzero(found.age_s >= np.float32(edge))) for edge in AGE_EDGES_S]
    size = len(found.row)
    return HalfOpenSummary(
        count=size,
        retransmitted=at_least[1],
        estimated=size - int(np.count_nonzero(found.arrival_seen)),
        deferred=int(np.count_nonzero((found.retransmits == 0) & (found.age_s > _LATE_S))),
        oldest_s=float(found.age_s.max()) if size else None,
        ages=_steps(older),
        by_retransmits=_steps(at_least),
        sources=syn_sources(found.source),
    )


def _steps(cumulated: list[int]) -> tuple[int, ...]:
    """How many are in each step, of how many are in it or above."""
    return tuple(here - above for here, above in pairwise([*cumulated, 0]))


_LATE_S = 2.0
"""The first repeat is due after 1 s; so much longer is no accident of the moment."""
