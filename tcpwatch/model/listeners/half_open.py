"""Half-open connections: their ages, how often their SYN+ACK was retransmitted, and the sources of their SYNs.

The age of a connection that arrived after the first sample is measured. That of an older one is estimated from its
timer, which doubles from 1 s on: after n retransmits and with e seconds left the age is 2^(n+1) - 1 - e
(reqsk_timer_handler in net/ipv4/inet_connection_sock.c). The estimate is wrong if the client retransmits its SYN or
TCP_DEFER_ACCEPT suppresses retransmits of the SYN+ACK.
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
"""Lower edges of the age classes: when the SYN+ACK is retransmitted, and when the connection usually expires."""
RETRANSMIT_CLASSES = 6
"""Classes by number of retransmits; the last one has all higher numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class HalfOpenSockets:
    """The half-open connections of a sample, as aligned columns.

    The kernel keeps each in a request socket. A full socket in SYN_RCVD takes no place in a SYN queue: it comes from a
    simultaneous open or from TCP Fast Open (RFC 7413).
    """

    row: NDArray[np.intp]
    key: NDArray[np.int32]
    """Index in ListenerKeys.keys; NO_LISTENER if the listener has closed."""
    retransmits: NDArray[np.uint8]
    """Retransmits of the SYN+ACK (idiag_retrans)."""
    age_s: NDArray[np.float32]
    arrival_seen: NDArray[np.bool_]
    """Whether the age is exact to one interval; otherwise it is an estimate."""
    source: RemoteAddresses
    fast_open: NDArray[np.intp]
    """The sample's rows in SYN_RCVD that are full sockets and have no inode: TCP Fast Open, see WaitingConnections."""

    def count_by_key(self, keys: int, retransmitted: bool = False) -> NDArray[np.intp]:
        """Return the connections of each of `keys` keys, or only those whose SYN+ACK was retransmitted."""
        key = self.key[self.retransmits > 0] if retransmitted else self.key
        if len(key) and bool((key == key[0]).all()):  # a flood has one target
            counts = np.zeros(keys + 1, np.intp)
            counts[key[0] + 1] = len(key)
        else:
            counts = np.bincount(key + 1, minlength=keys + 1)
        return counts[1:]

    def for_key(self, key: int) -> HalfOpenSockets:
        """Return the connections of one key."""
        of_key = self.key == key
        if of_key.all():
            return self
        return HalfOpenSockets(
            self.row[of_key], self.key[of_key], self.retransmits[of_key], self.age_s[of_key],
            self.arrival_seen[of_key], self.source.take(of_key), self.fast_open,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class HalfOpenSummary:
    """The half-open connections of the host, or of one listening address and port."""

    count: int
    arrived: int
    """Connections that arrived since the previous sample."""
    retransmitted: int
    """Connections whose SYN+ACK was retransmitted."""
    estimated: int
    """Connections whose age is an estimate."""
    deferred: int
    """Connections whose SYN+ACK was due to be retransmitted and was not, because of TCP_DEFER_ACCEPT."""
    oldest_s: float | None
    ages: tuple[int, ...]
    """Connections in each age class, see AGE_EDGES_S."""
    by_retransmits: tuple[int, ...]
    """Connections with 0, 1, 2, ... retransmits: RETRANSMIT_CLASSES entries."""
    sources: SynSources

    @property
    def retransmitted_share(self) -> float:
        """Share of the connections; 0 if there are none."""
        return self.retransmitted / self.count if self.count else 0.0


def half_open_sockets(poll: Poll) -> HalfOpenSockets:
    """Return the half-open connections of a poll's sample."""
    rows, sample = poll.rows, poll.sample
    row = sample.rows_in(State.SYN_RCVD, has_inode=False)
    size = len(row)
    if not size:
        return _NONE
    full = np.empty(size, np.bool_)
    retransmits = np.empty(size, np.uint8)
    expires_ms = np.empty(size, np.uint32)
    source4 = np.empty(size, np.uint32)
    for first in range(0, size, _BLOCK):  # all columns of a block are read while it is in the cache
        part = slice(first, first + _BLOCK)
        rows_of_block = row[part]
        block = sample.table[rows_of_block[0] : rows_of_block[-1] + 1]
        wanted = slice(None) if len(rows_of_block) == len(block) else rows_of_block - rows_of_block[0]
        full[part] = block["has"][wanted] & uapi.HAS_SHUTDOWN  # sent of full sockets alone (inet_diag_msg_attrs_fill)
        retransmits[part] = block["idiag_retrans"][wanted]
        expires_ms[part] = block["idiag_expires"][wanted]
        source4[part] = first_words(block, "idiag_dst")[wanted]
    fast_open = row[full]
    if len(fast_open):
        row, retransmits, expires_ms, source4 = row[~full], retransmits[~full], expires_ms[~full], source4[~full]
    arrival_seen = rows.begin_seen[row]
    v6 = np.flatnonzero(sample.family[row] != uapi.AF_INET)
    return HalfOpenSockets(
        row,
        poll.join.listener_keys.lookup(sample, row),
        retransmits,
        _ages(rows, row, retransmits, expires_ms, sample.capabilities.timers),
        arrival_seen,
        RemoteAddresses.of(source4, v6, sample.table["idiag_dst"][row[v6]]),
        fast_open,
    )


_BLOCK = 16_384
_NO_ROWS, _NO_ADDRESSES = np.empty(0, np.intp), np.empty((0, 2), np.uint64)
_NONE = HalfOpenSockets(
    _NO_ROWS, np.empty(0, np.int32), np.empty(0, np.uint8), np.empty(0, np.float32), np.empty(0, np.bool_),
    RemoteAddresses(np.empty(0, np.uint32), _NO_ROWS, _NO_ADDRESSES), _NO_ROWS,
)  # fmt: skip


def _ages(
    rows: Rows,
    row: NDArray[np.intp],
    retransmits: NDArray[np.uint8],
    expires_ms: NDArray[np.uint32],
    timers_known: bool,
) -> NDArray[np.float32]:
    # The clock may have been set back.
    age_s = (rows.time - rows.first_seen[row]).astype(np.float32)
    np.maximum(age_s, 0, out=age_s)
    present_at_start = ~rows.begin_seen[row]
    if timers_known and present_at_start.any():
        estimate = _DUE_S[retransmits]
        estimate -= expires_ms / np.float32(1000)  # a product with 0.001 would make an age of 1 s too small
        # A connection of the first sample is at least as old as that sample. (`maximum` with a mask costs five times as
        # much as this product.)
        estimate *= present_at_start
        np.maximum(age_s, estimate, out=age_s)
    return age_s


_DUE_S = np.exp2(np.minimum(np.arange(256), 16) + 1).astype(np.float32) - 1
"""Number of retransmits → seconds from the SYN until the next one is due."""


def half_open_summary(sockets: HalfOpenSockets) -> HalfOpenSummary:
    """Return the figures of these connections."""
    if not len(sockets.row):
        return _EMPTY
    # Counting comparisons costs a tenth of sorting into bins.
    at_least = [int(np.count_nonzero(sockets.retransmits >= number)) for number in range(RETRANSMIT_CLASSES)]
    older = [int(np.count_nonzero(sockets.age_s >= np.float32(edge))) for edge in AGE_EDGES_S]
    size = len(sockets.row)
    return HalfOpenSummary(
        count=size,
        arrived=int(np.count_nonzero(sockets.arrival_seen & (sockets.age_s == 0))),
        retransmitted=at_least[1],
        estimated=size - int(np.count_nonzero(sockets.arrival_seen)),
        deferred=int(np.count_nonzero((sockets.retransmits == 0) & (sockets.age_s > _DEFERRED_S))),
        oldest_s=float(sockets.age_s.max()),
        ages=_differences(older),
        by_retransmits=_differences(at_least),
        sources=syn_sources(sockets.source),
    )


_EMPTY = HalfOpenSummary(
    0, 0, 0, 0, 0, None, (0,) * len(AGE_EDGES_S), (0,) * RETRANSMIT_CLASSES, syn_sources(_NONE.source)
)


def _differences(cumulative: list[int]) -> tuple[int, ...]:
    """Return the number in each class from the numbers in it or above."""
    return tuple(at_least - above for at_least, above in pairwise([*cumulative, 0]))


_DEFERRED_S = 2.0
"""The first retransmit is due after 1 s; after this time it is not merely a little late."""
