"""Ephemeral ports: how many of the ports that connect() may choose are in use toward each destination.

connect() without bind() looks for a port of ip_local_port_range that is not reserved, that no bind() holds, and that is
free toward this (local address, remote address, remote port); a port in TIME_WAIT is free where tcp_tw_reuse allows it
(__inet_hash_connect and __inet_check_established in net/ipv4/inet_hashtables.c, tcp_twsk_unique in
net/ipv4/tcp_ipv4.c; ip-sysctl.rst). IPv4-mapped IPv6 connections use the same ports as IPv4 ones. A connection that is
bound to a device is in the way of callers that are bound to the same device, and one without a device is in the way of
all callers (inet_match in include/net/inet_hashtables.h). The kernel does not count how often it finds no port
(EADDRNOTAVAIL).

No interface shows whether a connection called bind() before connect(); its port then serves no other destination.
Therefore the number of ports left is often known only within bounds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.arrays.address_words import address_halves, are_loopback, first_words
from tcpwatch.arrays.group_by import group_by, mix_bits
from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.model.analyses.port_facts import FailedConnects, PortFacts, PortFactsAnalysis, Timestamps
from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.endpoint_hashes import address_hashes, remote_endpoint_hashes
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import TIME_WAIT_S, Role, State
from tcpwatch.sample import Sample

TOP = 50
"""Destinations in the result."""
TREND_S = 60.0
"""The forecast uses the growth over this time."""
_REUSE_DELAY_MS = 1000
"""The value of tcp_tw_reuse_delay in kernels that lack the sysctl (before Linux 6.14)."""
_NEVER_MS = 0xFFFFFFFF
"""Where a socket is not in TIME_WAIT."""
_LOOPBACK_INTERFACE = 1
_LEAST_BLOCK = 20
"""Ports of a gapless block, below which it may be chance."""


@dataclass(frozen=True, slots=True)
class PortRange:
    """The ports that connect() may choose from."""

    low: int
    high: int
    """The first and the last port of ip_local_port_range."""
    reserved: int
    """Ports of the range in ip_local_reserved_ports."""
    held: int
    """Other ports of the range that a bind() holds, listeners included."""

    @property
    def size(self) -> int:
        """Return the number of ports without the reserved ones."""
        return self.high - self.low + 1 - self.reserved

    @property
    def usable(self) -> int:
        """Return the number of ports that connect() can use toward one destination."""
        return self.size - self.held


@dataclass(frozen=True, slots=True)
class Destination:
    """The ports in use from one local address, and device, toward one remote address and port."""

    local_address: str
    remote_address: str
    remote_port: int
    used: int
    """Usable ports in use, without `reusable`."""
    time_wait: int
    """Ports among these in TIME_WAIT, which cannot be reused before it ends."""
    reusable: int
    """Ports in TIME_WAIT that tcp_tw_reuse frees: connect() takes them when it finds no other."""
    usable: int
    """See PortRange.usable."""
    next_free_s: float | None
    """Seconds until the first of its TIME_WAITs ends; None where it has none."""
    owner: Owner | None = None
    """The owner of most of the ports; None where no process holds them."""
    runs_out_in_s: float | None = None
    """At the growth of the last minute; None where it does not grow or is not known yet."""
    interface: str = ""
    """The device that the sockets are bound to; empty without one."""
    unproven: int = 0
    """Ports among `reusable` whose connections are not known to have had timestamps, without which none is reused."""
    without_timestamps: int = 0
    """Ports among `time_wait` whose connections had no timestamps."""
    unclear: int = 0
    """Ports among the free ones that connect() cannot use if bind() chose them: in TIME_WAIT, in use elsewhere, or any
    port where sockets that are only bound are not visible."""
    block: tuple[int, int] | None = None
    """The first and last port, if all between are used although connect() would have chosen others: the callers seem to
    have a range of their own (IP_LOCAL_PORT_RANGE)."""
    failed: int = 0
    """connect() calls of the last seconds that found no port, as far as known; this needs the trace."""

    @property
    def free(self) -> int:
        """Return the number of ports that connect() can still use; if not `exact`, at most so many."""
        return max(0, self.usable - self.used)

    @property
    def free_least(self) -> int:
        """Return the number of ports that connect() can use in any case."""
        return max(0, self.free - self.unclear)

    @property
    def exact(self) -> bool:
        """Whether `free` is exact, and not an upper bound."""
        return self.free == self.free_least

    @property
    def free_text(self) -> str:
        """Return `12`, or `at most 12`."""
        return units.count(self.free) if self.exact else f"at most {units.count(self.free)}"

    @property
    def share(self) -> float:
        """Return the share of the usable ports that are in use."""
        return self.used / self.usable if self.usable > 0 else 1.0

    @property
    def remote(self) -> str:
        """Return `192.0.2.1:443`."""
        return units.endpoint(self.remote_address, self.remote_port)

    @property
    def process(self) -> str:
        """Return `app[12]`; empty where no process holds the ports."""
        return str(self.owner) if self.owner else ""


@dataclass(frozen=True, slots=True, eq=False)
class EphemeralPorts:
    """The ephemeral ports of this host."""

    range: PortRange
    destinations: tuple[Destination, ...]
    """TOP at most, the fullest first."""
    count: int
    """All destinations."""
    in_use: int
    """Ports of the range in use, counted once per destination."""
    other_parity_share: float
    """Share of these with another parity than the first port of the range. connect() takes such a port only when half
    of the range is used toward a destination; bind() to port 0 takes it first."""
    distinct: int = 0
    """Usable ports in use, counted once."""
    not_by_connect: int = 0
    """Ports among these with the other parity, in use toward destinations that use less than half of the range; 0 if
    destinations share them, as they do after each has used more than half of the range."""
    owner: Owner | None = None
    """The owner of most of the ports in use."""
    runs_out_in_s: float | None = None
    """When no port of the range is unused, at the growth of the last minute; None where it does not grow."""
    failed: tuple[FailedConnects, ...] = ()
    """connect() calls of the last seconds that found no port; this needs the trace."""

    @property
    def occupied(self) -> int:
        """Return the number of ports that a bind() holds or a connection uses, whatever its destination."""
        return self.range.held + self.distinct

    @property
    def occupied_share(self) -> float:
        """Return the share of the range that is occupied."""
        return self.occupied / self.range.size if self.range.size > 0 else 1.0

    @property
    def chosen_by_bind(self) -> bool:
        """Whether bind() seems to have chosen a quarter of the range: then its ports are shared by all destinations."""
        return self.range.held + self.not_by_connect >= self.range.size / 4

    @property
    def bound_before_connect(self) -> bool:
        """Whether programs seem to call bind() before connect(), so that each port is used for one destination only."""
        half_used = any(destination.share >= 0.5 for destination in self.destinations)
        other_parity = self.other_parity_share > 0.5 or self.not_by_connect >= self.range.size / 4
        return self.in_use >= _LEAST_CLIENTS and other_parity and not half_used

    @property
    def fullest(self) -> Destination | None:
        """Return the destination with the largest share."""
        return next(iter(self.destinations), None)

    @property
    def meter(self) -> tuple[int, int]:
        """Return the ports in use and the limit of what is nearest to its limit: a destination, or the whole range."""
        used, usable = self.fullest.used if self.fullest else 0, self.range.usable
        if self.chosen_by_bind and self.occupied_share > used / max(usable, 1):
            return self.occupied, self.range.size
        return used, usable


_LEAST_CLIENTS = 50
"""Ports that `bound_before_connect` needs at least."""


def ephemeral_ports(rows: Rows, sample: Sample, facts: PortFacts | None = None) -> EphemeralPorts | None:
    """Return the ephemeral ports in use; None where the range is unknown."""
    low, high = (sample.sysctls.get(f"ip_local_port_range_{end}") for end in ("low", "high"))
    if low is None or high is None:
        return None
    facts = facts or PortFacts()
    reserved, held = _unusable(rows, sample, facts, low, high)
    unusable = reserved | held
    span = PortRange(low, high, reserved=int(reserved.sum()), held=int((held & ~reserved).sum()))
    row = _client_rows(rows, sample, low, high)
    row = row[~unusable[sample.local_port[row] - low]]
    uses = _Uses.of(rows, sample, facts, row)
    distinct, size = _distinct(uses.port), uses.groups.size
    odd = ((uses.port - low) & 1).astype(np.bool_)
    half_used = np.repeat(size >= span.usable / 2, size)
    destinations = _destinations(rows, sample, uses, span, unusable, distinct)
    return EphemeralPorts(
        span,
        tuple(replace(to, failed=_failed(to, facts)) for to in destinations),
        len(size),
        len(row),
        int(np.count_nonzero(odd)) / len(row) if len(row) else 0.0,
        distinct=distinct,
        not_by_connect=_not_by_connect(uses.port[odd & ~half_used]),
        owner=_owner(rows, row),
        failed=facts.failed,
    )


def _client_rows(rows: Rows, sample: Sample, low: int, high: int) -> NDArray[np.intp]:
    """Return the rows of connections that this host opened from a port of the range, or may have opened."""
    port = sample.local_port
    client = (rows.role <= Role.CLIENT) & (rows.state != State.CLOSED)  # CLIENT or UNKNOWN
    row = np.flatnonzero(client & (port >= low) & (port <= high))
    half_open = (rows.state[row] == State.SYN_RCVD) & (sample.inode[row] == 0)
    return row[~half_open] if half_open.any() else row


def _not_by_connect(ports: NDArray[np.uint16]) -> int:
    """Return the number of these ports, unless more than a tenth of them occur several times."""
    uses = np.bincount(ports, minlength=1)
    distinct = int(np.count_nonzero(uses))
    return distinct if np.count_nonzero(uses > 1) <= distinct / 10 else 0


def _distinct(ports: NDArray[np.uint16]) -> int:
    seen = np.zeros(65_536, np.bool_)
    seen[ports] = True
    return int(np.count_nonzero(seen))


def _failed(to: Destination, facts: PortFacts) -> int:
    ends = to.local_address, to.remote_address, to.remote_port
    return sum(calls.count for calls in facts.failed if calls.ends == ends)


def _unusable(
    rows: Rows, sample: Sample, facts: PortFacts, low: int, high: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return for each port of the range whether it is reserved, and whether a bind() holds it.

    The connections of a listener keep its port bound after the listener closed.
    """
    reserved, held = np.zeros(65_536, np.bool_), np.zeros(65_536, np.bool_)
    for first, last in sample.reserved_ports:
        reserved[first : last + 1] = True
    bound = (rows.role == Role.LISTENER) | (rows.role == Role.SERVER) | (rows.state == State.CLOSED)
    held[sample.local_port[bound & (rows.state != State.SYN_RCVD)]] = True
    held[facts.bound_ports] = True
    return reserved[low : high + 1], held[low : high + 1]


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """Groups of adjacent members."""

    start: NDArray[np.intp]
    size: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.start)

    def reduce(self, ufunc: np.ufunc, values: NDArray[Any], dtype: Any = None) -> NDArray[Any]:
        """Return one value per group."""
        reduced: NDArray[Any] = ufunc.reduceat(values, self.start, dtype=dtype) if len(self) else values[:0]
        return reduced


@dataclass(frozen=True, slots=True, eq=False)
class _Uses:
    """The usable ports in use: aligned columns with one row per connection, ordered by destination."""

    row: NDArray[np.intp]
    """Index of the row in the sample."""
    port: NDArray[np.uint16]
    endpoints: NDArray[np.uint64]
    """Hash of the local address and the remote endpoint."""
    waits: NDArray[np.bool_]
    """Whether it is in TIME_WAIT."""
    expires_ms: NDArray[np.uint32]
    """Milliseconds until TIME_WAIT ends, or _NEVER_MS."""
    reusable: NDArray[np.bool_]
    """Whether tcp_tw_reuse lets connect() take the port, as far as known."""
    timestamps: NDArray[np.int8]
    """Timestamps"""
    groups: _Groups
    """By `endpoints` and device."""

    @classmethod
    def of(cls, rows: Rows, sample: Sample, facts: PortFacts, row: NDArray[np.intp]) -> _Uses:
        endpoints = mix_bits(address_hashes(sample, row, "idiag_src")) ^ remote_endpoint_hashes(sample, row)
        device = sample.interface[row]
        key = endpoints ^ mix_bits(device.astype(np.uint64)) if device.any() else endpoints  # mix_bits(0) is 0
        partition = group_by(key)
        groups, order = _Groups(partition.start, partition.size), partition.order
        waits = sample.state[row] == State.TIME_WAIT
        expires_ms, timestamps = np.full(len(row), _NEVER_MS, np.uint32), np.zeros(len(row), np.int8)
        reusable = np.zeros(len(row), np.bool_)
        if some_wait := waits.any():  # the table is read in its own order, which takes half as long
            expires_ms[waits] = sample.table["idiag_expires"][row[waits]]
        row, endpoints, waits, expires_ms = row[order], endpoints[order], waits[order], expires_ms[order]
        if some_wait:
            reusable = waits & np.repeat(_may_be_reused(sample, row[groups.start]), groups.size)
            timestamps[reusable] = facts.timestamps(row[reusable])
            reusable &= (timestamps != Timestamps.NONE) & _old_enough(rows, sample, row, expires_ms)
        return cls(row, sample.local_port[row], endpoints, waits, expires_ms, reusable, timestamps, groups)

    def members(self, group: int) -> slice:
        """Return the place of a group."""
        start = int(self.groups.start[group])
        return slice(start, start + int(self.groups.size[group]))


def _old_enough(rows: Rows, sample: Sample, row: NDArray[np.intp], expires_ms: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Return which TIME_WAITs are older than tcp_tw_reuse_delay.

    A repeated FIN starts the timer anew, and then the age since the first sample with this state is larger.
    """
    delay_ms = sample.sysctls.get("tcp_tw_reuse_delay", _REUSE_DELAY_MS)
    older: NDArray[np.bool_] = expires_ms <= max(0, int(1000 * TIME_WAIT_S) - delay_ms)
    younger = np.flatnonzero(~older)
    older[younger] = rows.time - rows.since[row[younger]] > delay_ms / 1000
    return older


def _may_be_reused(sample: Sample, row: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Apply tcp_tw_reuse: 0 never, 1 always, 2 with a loopback address at either end or bound to the loopback device.

    The present value of tcp_timestamps does not matter, only what the connection itself had used.
    """
    mode = sample.sysctls.get("tcp_tw_reuse", 0)
    if mode != 2:
        return np.full(len(row), mode == 1)
    v4 = sample.family[row] == uapi.AF_INET
    v6 = np.flatnonzero(~v4)
    loopback: NDArray[np.bool_] = sample.interface[row] == _LOOPBACK_INTERFACE
    for name in ("idiag_src", "idiag_dst"):
        loopback |= v4 & (first_words(sample.table, name)[row] >> np.uint32(24) == 127)
        loopback[v6] |= are_loopback(address_halves(sample.table[name][row[v6]]))
    return loopback


def _destinations(
    rows: Rows, sample: Sample, uses: _Uses, span: PortRange, unusable: NDArray[np.bool_], distinct: int
) -> tuple[Destination, ...]:
    groups, port = uses.groups, uses.port
    size, first = groups.size, groups.start
    reusable = groups.reduce(np.add, uses.reusable, np.intp)
    least, most = (groups.reduce(ufunc, port).astype(np.intp) for ufunc in (np.minimum, np.maximum))
    usable_before = np.append(0, np.cumsum(~unusable))
    between = usable_before[most - span.low + 1] - usable_before[least - span.low]
    dense = (between == size) & (size >= _LEAST_BLOCK) & (size < span.usable / 2)
    others = _of_no_device(sample, uses)
    hidden = 0 if sample.capabilities.bound else span.usable  # any port may be held
    shared = np.where(others == NOT_FOUND, 0, size[others] - reusable[others]) if len(groups) else size
    top = np.argsort(-(2 * size - reusable + shared), kind="stable")[:TOP]  # used ports count double
    destinations = []
    for at in top.tolist():
        row = sample.table[uses.row[first[at]]]
        members = uses.members(at)
        family, expires, interface = int(row["idiag_family"]), int(uses.expires_ms[members].min()), int(row["idiag_if"])
        waits, reused, timestamps = uses.waits[members], uses.reusable[members], uses.timestamps[members]
        more = _blocked_by(uses, members, int(others[at]))
        used = int(size[at] - reusable[at]) + more
        elsewhere = distinct - int(size[at]) - more
        last_may_be_missed = (span.high - span.low) % 2 == 0 and used == span.usable - 1
        destinations.append(
            Destination(
                local_address=units.address(row["idiag_src"].tobytes(), family),
                remote_address=units.address(row["idiag_dst"].tobytes(), family),
                remote_port=int(row["idiag_dport"]),
                used=used,
                time_wait=int(np.count_nonzero(waits & ~reused)),
                reusable=int(reusable[at]),
                usable=span.usable,
                next_free_s=expires / 1000 if expires != _NEVER_MS else None,
                owner=_owner(rows, uses.row[members]),
                interface=sample.interfaces.get(interface, f"#{interface}") if interface else "",
                unproven=int(np.count_nonzero(reused & (timestamps != Timestamps.USED))),
                without_timestamps=int(np.count_nonzero(timestamps == Timestamps.NONE)),
                # With an odd number of ports each call leaves one out, at the start or at the end of the range.
                unclear=int(reusable[at]) + elsewhere + hidden or int(last_may_be_missed),
                block=(int(least[at]), int(most[at])) if dense[at] else None,
            )
        )
    return tuple(sorted(destinations, key=lambda to: (-to.used, -to.reusable, to.remote, to.local_address)))


def _of_no_device(sample: Sample, uses: _Uses) -> NDArray[np.intp]:
    """Return for each group with a device the group of the same endpoints without one, or NOT_FOUND."""
    first = uses.groups.start
    found = np.full(len(first), NOT_FOUND, np.intp)
    device = sample.interface[uses.row[first]] != 0
    if not device.any():
        return found
    endpoints, plain = uses.endpoints[first], np.flatnonzero(~device)
    plain = plain[np.argsort(endpoints[plain])]
    at = find_sorted(endpoints[plain], endpoints[device])
    found[device] = np.where(at == NOT_FOUND, NOT_FOUND, plain[at]) if len(plain) else NOT_FOUND
    return found


def _blocked_by(uses: _Uses, members: slice, other: int) -> int:
    """Return how many more ports another group makes unusable for callers of this one."""
    if other == NOT_FOUND:
        return 0
    others = uses.members(other)
    blocked = uses.port[others][~uses.reusable[others]]
    return len(np.setdiff1d(blocked, uses.port[members]))


def _owner(rows: Rows, members: NDArray[np.intp]) -> Owner | None:
    """Return the owner of most of these rows."""
    codes = rows.owner[members]
    codes = codes[codes >= 0]
    return rows.owners[int(np.bincount(codes).argmax())] if len(codes) else None


@dataclass(frozen=True, slots=True)
class _Moment:
    """How many ports were in use at one time."""

    monotonic: float
    occupied: int
    used: dict[tuple[str, str, int, str], int] = field(default_factory=dict)


class EphemeralPortAnalysis:
    """Remembers for a minute how many ports were in use toward each destination."""

    def __init__(self) -> None:
        self._facts = PortFactsAnalysis()
        self._history: deque[_Moment] = deque()
        self._last: tuple[tuple[object, ...], EphemeralPorts | None] | None = None

    def step(self, poll: Poll) -> EphemeralPorts | None:
        """Return the ports in use, and when each destination will run out of them; None where the range is unknown."""
        facts, monotonic = self._facts.step(poll), poll.sample.monotonic
        ports = self._ports(poll, facts)
        if ports is None:
            return None
        now = _Moment(monotonic, ports.occupied, {_identity(to): to.used for to in ports.destinations})
        while len(self._history) > 1 and self._history[1].monotonic <= monotonic - TREND_S:
            self._history.popleft()
        then = self._history[0] if self._history else now
        if not self._history or monotonic - self._history[-1].monotonic >= 1.0:
            self._history.append(now)
        elapsed_s = monotonic - then.monotonic
        if elapsed_s < _LEAST_TREND_S:
            return ports
        absent = 0 if len(then.used) < TOP else None  # what was not in the top list may have used any number
        return replace(
            ports,
            runs_out_in_s=_runs_out_in_s(ports.range.size - ports.occupied, ports.occupied - then.occupied, elapsed_s),
            destinations=tuple(
                replace(to, runs_out_in_s=_runs_out_in_s(to.free, to.used - before, elapsed_s))
                if (before := then.used.get(_identity(to), absent)) is not None
                else to
                for to in ports.destinations
            ),
        )

    def _ports(self, poll: Poll, facts: PortFacts) -> EphemeralPorts | None:
        """Return ephemeral_ports(), as in the last step if nothing has changed; in TIME_WAIT, ages change."""
        sample = poll.sample
        others = (
            sample.sysctls, sample.reserved_ports, dict(sample.interfaces), sample.capabilities, facts.failed,
            facts.bound_ports.tobytes(),
        )  # fmt: skip
        same = self._last and poll.same_sockets and not sample.count(State.TIME_WAIT) and self._last[0] == others
        if not self._last or not same:
            self._last = others, ephemeral_ports(poll.rows, sample, facts)
        return self._last[1]


_LEAST_TREND_S = 2.0


def _identity(to: Destination) -> tuple[str, str, int, str]:
    return to.local_address, to.remote_address, to.remote_port, to.interface


def _runs_out_in_s(free: int, growth: int, elapsed_s: float) -> float | None:
    return free / (growth / elapsed_s) if growth > 0 else None
