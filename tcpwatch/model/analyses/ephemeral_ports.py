"""Ephemeral ports: how many of the ports that connect() may choose are in use toward each destination.

connect() without bind() looks for a port of ip_local_port_range that is not reserved, that no bind() holds, and that is
free toward this (local address, remote address, remote port); a port in TIME_WAIT is free where tcp_tw_reuse allows it
(__inet_hash_connect and __inet_check_established in net/ipv4/inet_hashtables.c, tcp_twsk_unique in
net/ipv4/tcp_ipv4.c; ip-sysctl.rst). The kernel does not count how often it finds none (EADDRNOTAVAIL).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.arrays.address_words import address_halves, are_loopback, first_words
from tcpwatch.arrays.group_by import Partition, group_by, mix_bits
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.endpoint_hashes import address_hashes, remote_endpoint_hashes
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import TIME_WAIT_S, Role, State
from tcpwatch.sample import Sample

TOP = 50
"""Destinations in the result."""
TREND_S = 60.0
"""The forecast uses the growth over this time."""
_REUSABLE_AFTER_S = 1.0
_NEVER_MS = 0xFFFFFFFF
"""Where a socket is not in TIME_WAIT."""


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
    def usable(self) -> int:
        """Return the number of ports that connect() can use toward one destination."""
        return self.high - self.low + 1 - self.reserved - self.held


@dataclass(frozen=True, slots=True)
class Destination:
    """The ports in use from one local address toward one remote address and port."""

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

    @property
    def free(self) -> int:
        """Return the number of ports that connect() can still use."""
        return max(0, self.usable - self.used)

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

    @property
    def bound_before_connect(self) -> bool:
        """Whether programs seem to call bind() before connect(), so that each port is used for one destination only."""
        half_used = any(destination.share >= 0.5 for destination in self.destinations)
        return self.in_use >= _LEAST_CLIENTS and self.other_parity_share > 0.5 and not half_used

    @property
    def fullest(self) -> Destination | None:
        """Return the destination with the largest share."""
        return next(iter(self.destinations), None)


_LEAST_CLIENTS = 50
"""Ports that `bound_before_connect` needs at least."""


def ephemeral_ports(rows: Rows, sample: Sample) -> EphemeralPorts | None:
    """Return the ephemeral ports in use; None where the range is unknown."""
    low, high = (sample.sysctls.get(f"ip_local_port_range_{end}") for end in ("low", "high"))
    if low is None or high is None:
        return None
    taken = _unusable(rows, sample, low, high)
    span = PortRange(low, high, reserved=int(taken[0].sum()), held=int((taken[1] & ~taken[0]).sum()))
    port = sample.local_port
    mine = (rows.role == Role.CLIENT) & (rows.state != State.SYN_RCVD) & (port >= low) & (port <= high)
    row = np.flatnonzero(mine)
    row = row[~(taken[0] | taken[1])[port[row] - low]]
    groups = group_by(mix_bits(address_hashes(sample, row, "idiag_src")) ^ remote_endpoint_hashes(sample, row))
    destinations = _destinations(rows, sample, row, groups, span.usable)
    parity = np.count_nonzero((port[row] - low) & 1)
    return EphemeralPorts(span, destinations, len(groups), len(row), parity / len(row) if len(row) else 0.0)


def _unusable(rows: Rows, sample: Sample, low: int, high: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return for each port of the range whether it is reserved, and whether a bind() holds it.

    The connections of a listener keep its port bound after the listener closed.
    """
    reserved, held = np.zeros(65_536, np.bool_), np.zeros(65_536, np.bool_)
    for first, last in sample.reserved_ports:
        reserved[first : last + 1] = True
    bound = (rows.role == Role.LISTENER) | (rows.role == Role.SERVER) | (rows.state == State.CLOSED)
    held[sample.local_port[bound & (rows.state != State.SYN_RCVD)]] = True
    return reserved[low : high + 1], held[low : high + 1]


def _may_be_reused(sample: Sample, row: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Apply tcp_tw_reuse: 0 never, 1 always, 2 over the loopback device only; it needs TCP timestamps."""
    mode = sample.sysctls.get("tcp_tw_reuse", 0) if sample.sysctls.get("tcp_timestamps", 1) else 0
    if mode != 2:
        return np.full(len(row), mode == 1)
    v4 = sample.family[row] == uapi.AF_INET
    loopback: NDArray[np.bool_] = v4 & (first_words(sample.table, "idiag_dst")[row] >> np.uint32(24) == 127)
    v6 = np.flatnonzero(~v4)
    loopback[v6] = are_loopback(address_halves(sample.table["idiag_dst"][row[v6]]))
    return loopback


def _destinations(
    rows: Rows, sample: Sample, row: NDArray[np.intp], groups: Partition, usable: int
) -> tuple[Destination, ...]:
    waits = sample.state[row] == State.TIME_WAIT
    expires_ms = np.full(len(row), _NEVER_MS, np.uint32)
    expires_ms[waits] = sample.table["idiag_expires"][row[waits]]
    may_be_reused = waits & (expires_ms <= 1000 * (TIME_WAIT_S - _REUSABLE_AFTER_S)) & _may_be_reused(sample, row)
    reusable = groups.sums(may_be_reused)
    used = groups.size - reusable
    time_wait, next_free_ms = groups.sums(waits & ~may_be_reused), groups.least(expires_ms)
    top = np.argsort(-(groups.size + used), kind="stable")[:TOP]  # used ports count double
    destinations = []
    for at in top.tolist():
        first = sample.table[row[groups.first[at]]]
        family, expires = int(first["idiag_family"]), int(next_free_ms[at])
        members = row[groups.order[groups.start[at] : groups.start[at] + int(groups.size[at])]]
        destinations.append(
            Destination(
                local_address=units.address(first["idiag_src"].tobytes(), family),
                remote_address=units.address(first["idiag_dst"].tobytes(), family),
                remote_port=int(first["idiag_dport"]),
                used=int(used[at]),
                time_wait=int(time_wait[at]),
                reusable=int(reusable[at]),
                usable=usable,
                next_free_s=expires / 1000 if expires != _NEVER_MS else None,
                owner=_owner(rows, members),
            )
        )
    return tuple(sorted(destinations, key=lambda to: (-to.used, -to.reusable, to.remote, to.local_address)))


def _owner(rows: Rows, members: NDArray[np.intp]) -> Owner | None:
    """Return the owner of most of these rows."""
    codes = rows.owner[members]
    codes = codes[codes >= 0]
    return rows.owners[int(np.bincount(codes).argmax())] if len(codes) else None


class EphemeralPortAnalysis:
    """Remembers for a minute how many ports were in use toward each destination."""

    def __init__(self) -> None:
        self._history: deque[tuple[float, dict[tuple[str, str, int], int]]] = deque()

    def step(self, poll: Poll) -> EphemeralPorts | None:
        """Return the ports in use, and when each destination will run out of them; None where the range is unknown."""
        ports, monotonic = ephemeral_ports(poll.rows, poll.sample), poll.sample.monotonic
        if ports is None:
            return None
        used = {_identity(to): to.used for to in ports.destinations}
        while len(self._history) > 1 and self._history[1][0] <= monotonic - TREND_S:
            self._history.popleft()
        then_s, then = self._history[0] if self._history else (monotonic, used)
        if not self._history or monotonic - self._history[-1][0] >= 1.0:
            self._history.append((monotonic, used))
        elapsed_s = monotonic - then_s
        if elapsed_s < _LEAST_TREND_S:
            return ports
        absent = 0 if len(then) < TOP else None  # a destination that was not in the top list may have used any number
        runs_out = (_runs_out_in_s(to, then.get(_identity(to), absent), elapsed_s) for to in ports.destinations)
        pairs = zip(ports.destinations, runs_out, strict=True)
        return replace(ports, destinations=tuple(replace(to, runs_out_in_s=seconds) for to, seconds in pairs))


_LEAST_TREND_S = 2.0


def _identity(to: Destination) -> tuple[str, str, int]:
    return to.local_address, to.remote_address, to.remote_port


def _runs_out_in_s(destination: Destination, before: int | None, elapsed_s: float) -> float | None:
    if before is None:
        return None
    per_s = (destination.used - before) / elapsed_s
    return destination.free / per_s if per_s > 0 else None
