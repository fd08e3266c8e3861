"""Half-open connections: how old they are, how often their SYN+ACK was repeated, and where their SYNs came from.

The age of a request that we saw come is ours; of another it is estimated from one snapshot: its timer doubles from 1 s
on, so that after n repeats and with e seconds left it has lived 2^(n+1) - 1 - e (reqsk_timer_handler in
net/ipv4/inet_connection_sock.c). That is wrong where the client repeats its SYN or TCP_DEFER_ACCEPT holds the repeats
back, so it is never below 0, and said to be an estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel import uapi
from tcpwatch.model.listening import Listening
from tcpwatch.model.rows import Rows
from tcpwatch.model.sample import Sample
from tcpwatch.model.sources import Sources, sources
from tcpwatch.model.states import State

AGE_EDGES_S = (0, 1, 3, 7, 15, 31, 63)
"""Where the steps of the age pyramid begin: the moments at which the SYN+ACK is repeated, and the usual end."""
LADDER = 6
"""Repeats that are told apart; the last rung has all above."""


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """The half-open connections of a sample that belong to a listener or did, as aligned columns.

    One with an inode is a connect() that crossed the peer's SYN and is not among them.
    """

    row: NDArray[np.intp]
    key: NDArray[np.int32]
    """Index in Listening.keys, NOBODY where the listener has gone."""
    repeats: NDArray[np.uint8]
    """SYN+ACKs sent again (idiag_retrans)."""
    age_s: NDArray[np.float32]
    seen_coming: NDArray[np.bool_]
    """We saw it come: its age is ours, to one interval; else an estimate."""
    v4: NDArray[np.bool_]
    """Its source is IPv4, also IPv4-mapped."""
    source: NDArray[np.uint64]
    """Shape (n, 2): the remote address as two host-order halves; of IPv4 the second has the address."""

    def of(self, key: int) -> Requests:
        """Those of one key."""
        mine = self.key == key
        if mine.all():
            return self
        return Requests(*(getattr(self, name)[mine] for name in self.__slots__))


@dataclass(frozen=True, slots=True, eq=False)
class HalfOpen:
    """The half-open connections of the host, or of one listening address and port."""

    count: int
    repeated: int
    """Of how many the SYN+ACK was repeated."""
    estimated: int
    """Of how many the age is an estimate."""
    late: int
    """Older than the first repeat is due, and none was sent: held back by TCP_DEFER_ACCEPT."""
    oldest_s: float | None
    ages: tuple[int, ...]
    """How many are in each step of AGE_EDGES_S."""
    ladder: tuple[int, ...]
    """How many have had 0, 1, 2, ... repeats; LADDER entries."""
    sources: Sources

    @property
    def repeated_share(self) -> float:
        """Of all; 0 where there are none."""
        return self.repeated / self.count if self.count else 0.0


def requests(rows: Rows, sample: Sample, listening: Listening) -> Requests:
    """The requests of a sample."""
    row = np.flatnonzero((sample.state == State.SYN_RCVD) & (sample.inode == 0))
    size = len(row)
    repeats = np.empty(size, np.uint8)
    expires_ms = np.empty(size, np.uint32)
    source = np.empty((size, 2), ">u8")
    for first in range(0, size, _BLOCK):  # of so many rows all columns are read while they are in the cache
        part = slice(first, first + _BLOCK)
        here = row[part]
        block = sample.table[here[0] : here[-1] + 1]
        wanted = slice(None) if len(here) == len(block) else here - here[0]
        repeats[part] = block["idiag_retrans"][wanted]
        expires_ms[part] = block["idiag_expires"][wanted]
        source[part] = np.ascontiguousarray(block["idiag_dst"][wanted]).view(">u8")
    v4, halves = _told_apart(source, sample.family[row])
    seen_coming = rows.born[row]
    age_s = _ages(rows, row, repeats, expires_ms)
    return Requests(row, listening.takers(sample, row), repeats, age_s, seen_coming, v4, halves)


_BLOCK = 16_384


def _told_apart(source: NDArray[np.uint64], family: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.uint64]]:
    halves = source.astype(np.uint64)
    v4 = family == uapi.AF_INET
    v6 = np.flatnonzero(~v4)
    where = v4 if len(v6) else slice(None)
    halves[where, 1] = halves[where, 0] >> np.uint64(32)
    halves[where, 0] = 0
    if len(v6):
        mapped = v6[(halves[v6, 0] == 0) & (halves[v6, 1] >> np.uint64(32) == 0xFFFF)]
        halves[mapped, 1] &= np.uint64(0xFFFFFFFF)
        v4[mapped] = True
    return v4, halves


def _ages(
    rows: Rows, row: NDArray[np.intp], repeats: NDArray[np.uint8], expires_ms: NDArray[np.uint32]
) -> NDArray[np.float32]:
    ours = (rows.time - rows.first_seen[row]).astype(np.float32)
    lived = _LIVED_S[repeats] - expires_ms.astype(np.float32) / np.float32(1000)
    # What has been there since our first sample is at least as old as that.
    return np.where(rows.born[row], ours, np.maximum(lived, ours))


_LIVED_S = np.exp2(np.minimum(np.arange(256), 16) + 1).astype(np.float32) - 1
"""Repeats → seconds from the SYN until the next repeat is due."""


def half_open(found: Requests) -> HalfOpen:
    """What there is to say of these."""
    ladder = np.bincount(np.minimum(found.repeats, LADDER - 1), minlength=LADDER)
    ages = np.bincount(np.searchsorted(_EDGES, found.age_s, side="right") - 1, minlength=len(_EDGES))
    size = len(found.row)
    return HalfOpen(
        count=size,
        repeated=size - int(ladder[0]),
        estimated=size - int(np.count_nonzero(found.seen_coming)),
        late=int(np.count_nonzero((found.repeats == 0) & (found.age_s > _LATE_S))),
        oldest_s=float(found.age_s.max()) if size else None,
        ages=tuple(ages.tolist()),
        ladder=tuple(ladder.tolist()),
        sources=sources(found.v4, found.source),
    )


_EDGES = np.array(AGE_EDGES_S, np.float32)
_LATE_S = 2.0
"""The first repeat is due after 1 s; so much longer is no accident of the moment."""
