"""Port scans: sources that try ports of this host without a listener, found by the resets that this host sends.

Sources: no_tcp_socket in tcp_v4_rcv and tcp_v6_rcv, tcp_v4_send_reset (net/ipv4), include/net/rstreason.h. The trace
reports the resets of all network namespaces, without the namespace.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.arrays import address_words
from tcpwatch.arrays.address_words import Halves, address_halves, first_words, hash_addresses, mapped_halves
from tcpwatch.arrays.group_by import mix_bits, run_starts
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.trace.trace_events import TraceEventKind, TraceEvents
from tcpwatch.model.poll import Poll
from tcpwatch.model.states import State

WINDOW_S = 10.0
MAX_SCANS = 20
"""Sources in the result: those that tried most ports."""
EXAMPLES = 8
LEAST_PORTS = 2
"""A source that tries fewer ports is no scan."""


@dataclass(frozen=True, slots=True)
class PortScan:
    """One source that tries closed ports."""

    source: str
    """Its address."""
    ports: int
    """Distinct local ports that answered it with a reset in the last `window_s`."""
    resets: int
    window_s: float
    examples: tuple[int, ...]
    """Some of the ports, ascending."""
    in_namespace: bool = True
    """A socket of this network namespace has the local address; else the scan may concern another namespace."""


class _ClosedPorts(NamedTuple):
    """The (source, port) pairs of one step, each once: aligned columns."""

    pair: NDArray[np.uint64]
    """Hash of the source, with the port in the low 16 bits."""
    resets: NDArray[np.intp]
    address: Halves
    local: Halves
    """IPv4 addresses are in their IPv4-mapped form."""


_STEP_KEPT, _KEPT = 1 << 16, 1 << 17
"""Pairs that are kept of one step and in all (6 MB) in a flood with forged sources: those of the busiest sources."""
_PORT = np.uint64(0xFFFF)


class PortScanAnalysis:
    """Remembers the resets of the last ten seconds, and the connections of the last ten minutes."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, _ClosedPorts]] = deque()
        self._connected = _Endpoints()
        self._local_addresses: set[bytes] = set()

    def step(self, poll: Poll) -> tuple[PortScan, ...]:
        """Return the sources that met resets at several ports, most ports first."""
        traced, monotonic = poll.sample.trace_events, poll.sample.monotonic
        if traced is not None and len(traced.events):
            self._connected.add(_connected_endpoints(traced.events), monotonic)
            closed_ports = self._closed_ports(traced, monotonic)
            if len(closed_ports.pair):
                self._steps.append((monotonic, closed_ports))
        while self._steps and (self._steps[0][0] <= monotonic - WINDOW_S or self._size > _KEPT):
            self._steps.popleft()
        return self._scans(poll.sample.table) if self._steps else ()

    @property
    def _size(self) -> int:
        return sum(len(step.pair) for _, step in self._steps)

    def _closed_ports(self, traced: TraceEvents, now: float) -> _ClosedPorts:
        """Return the sources whose segments to ports without a socket were answered by resets."""
        events = traced.events
        where = np.flatnonzero((events["kind"] == TraceEventKind.RESET_SENT) & (events["socket"] == 0))
        no_socket = [0, *(number for number, name in traced.reset_reasons.items() if name == "NO_SOCKET")]
        where = where[np.isin(events["reason"][where], no_socket)]
        address = _halves(events, "dst", where)
        source = _source_hashes(address)
        pair = source | events["sport"][where]
        order = np.argsort(pair)
        start = run_starts(pair[order])
        first, resets = order[start], np.diff(np.append(start, len(order)))
        # A late segment of a connection that this host opened finds no socket either, at a port that this host chose.
        stray = self._connected.has(source[first] | events["dport"][where[first]], now)
        first, resets = first[~stray], resets[~stray]
        if len(first) > _STEP_KEPT:
            busiest = _busiest(pair[first])
            first, resets = first[busiest], resets[busiest]
        return _ClosedPorts(pair[first], resets, address[first], _halves(events, "src", where[first]))

    def _scans(self, table: NDArray[np.void]) -> tuple[PortScan, ...]:
        steps = [step for _, step in self._steps]
        pair, resets, address, local = (np.concatenate(columns) for columns in zip(*steps, strict=True))
        pairs = np.unique(pair)
        source = pairs & ~_PORT
        start = run_starts(source)
        ports = np.diff(np.append(start, len(source)))
        scans = []
        for at in np.argsort(-ports, kind="stable")[:MAX_SCANS].tolist():
            if ports[at] >= LEAST_PORTS:
                places = np.flatnonzero(pair & ~_PORT == source[start[at]])
                name = units.address(address[places[0]].astype(">u8").tobytes(), uapi.AF_INET6)
                examples = tuple((pairs[start[at] : start[at] + min(EXAMPLES, ports[at])] & _PORT).tolist())
                is_local, count = self._is_local(local[places[:1]], table), int(resets[places].sum())
                scans.append(PortScan(name, int(ports[at]), count, WINDOW_S, examples, is_local))
        return tuple(sorted(scans, key=lambda scan: (-scan.ports, scan.source)))

    def _is_local(self, address: Halves, table: NDArray[np.void]) -> bool:
        """Whether a socket of this namespace has, or had, this local address; each has its own loopback."""
        if address_words.are_loopback(address)[0]:
            return False
        key = address.tobytes()
        if key not in self._local_addresses and _has(table, address):
            self._local_addresses.add(key)
        return key in self._local_addresses


class _Endpoints:
    """The remote endpoints of connections of the last ten minutes: a hash table of fixed size."""

    _BITS = 17
    _KEPT_S = 600.0

    def __init__(self) -> None:
        self._numbers = np.zeros(1 << self._BITS, np.uint64)
        self._times = np.full(1 << self._BITS, -np.inf)

    def add(self, numbers: NDArray[np.uint64], now: float) -> None:
        """Remember these hashes of endpoints; a newer one replaces an older one at the same place."""
        places = self._places(numbers)
        self._numbers[places], self._times[places] = numbers, now

    def has(self, numbers: NDArray[np.uint64], now: float) -> NDArray[np.bool_]:
        """Return which of these hashes are remembered."""
        places = self._places(numbers)
        known: NDArray[np.bool_] = (self._numbers[places] == numbers) & (self._times[places] > now - self._KEPT_S)
        return known

    def _places(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return mix_bits(numbers) >> np.uint64(64 - self._BITS)


def _connected_endpoints(events: NDArray[np.void]) -> NDArray[np.uint64]:
    """Return hashes of the remote endpoints of connections that this host opened, or that ended."""
    new = events["new"]
    where = np.flatnonzero((events["kind"] == TraceEventKind.STATE) & ((new == State.SYN_SENT) | (new == State.CLOSED)))
    return _source_hashes(_halves(events, "dst", where)) | events["dport"][where].astype(np.uint64)


def _halves(events: NDArray[np.void], name: str, where: NDArray[np.intp]) -> Halves:
    """Return addresses of these events as halves, IPv4 in its IPv4-mapped form."""
    return mapped_halves(events[name][where], events["family"][where] == uapi.AF_INET)


def _source_hashes(halves: Halves) -> NDArray[np.uint64]:
    """Return a hash of each address whose low 16 bits are free for a port."""
    return hash_addresses(halves) & ~_PORT


def _busiest(pair: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the indices of _STEP_KEPT of these ascending pairs: those of the sources that tried most ports."""
    source = pair & ~_PORT
    ports = np.diff(np.append(run_starts(source), len(source)))
    return np.argsort(-np.repeat(ports, ports), kind="stable")[:_STEP_KEPT]


def _has(table: NDArray[np.void], address: Halves) -> bool:
    """Return whether a row of uapi.SOCKET has this local address; IPv4 may be in either of its two forms."""
    family = table["idiag_family"]
    if address_words.are_mapped(address)[0]:
        same = first_words(table, "idiag_src") == address[0, 1] & np.uint64(0xFFFFFFFF)
        if (family[same] == uapi.AF_INET).any():
            return True
    v6 = address_halves(table["idiag_src"][family == uapi.AF_INET6])
    return bool((v6 == address).all(axis=1).any())
