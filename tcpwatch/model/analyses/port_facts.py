"""PortFacts: facts about ports that no dump shows, from destroy events and the trace.

- TIME_WAIT sockets have no tcp_info. The destroy event of the full socket says whether the connection had timestamps.
- A traced connect() shows CLOSE → SYN_SENT before it chooses a port: there is a port already if bind() was called. If
  it finds no port (EADDRNOTAVAIL), SYN_SENT → CLOSE follows without a port (tcp_v4_connect in net/ipv4/tcp_ipv4.c).
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted, is_in_sorted
from tcpwatch.arrays.opaque_rows import take_rows
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.kernel.trace.trace_events import TraceEventKind
from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.endpoint_hashes import endpoint_pair_hashes
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import Role, State
from tcpwatch.sample import Sample

FAILED_KEPT_S = 30.0
"""connect() calls that found no port are counted for this time."""
_FRESH_S = 3.0
"""Destroy events are matched with TIME_WAIT sockets that are known for less than this time."""
_MOST_FAILED = 1000
"""Failed connect() calls that are remembered; more do not change the result."""
_TCPI_OPT_TIMESTAMPS = 1


class Timestamps(enum.IntEnum):
    """Whether a connection used TCP timestamps; fits an int8 column."""

    UNKNOWN = 0
    NONE = 1
    USED = 2


@dataclass(frozen=True, slots=True)
class FailedConnects:
    """connect() calls of the last FAILED_KEPT_S seconds that found no port."""

    ends: tuple[str, str, int]
    """Local address, remote address, remote port."""
    count: int
    """At least so many."""


def _unknown(waits: NDArray[np.intp]) -> NDArray[np.int8]:
    return np.full(len(waits), Timestamps.UNKNOWN, np.int8)


@dataclass(frozen=True, slots=True, eq=False)
class PortFacts:
    """The facts at one poll."""

    timestamps: Callable[[NDArray[np.intp]], NDArray[np.int8]] = _unknown
    """Return Timestamps of these rows, which are in TIME_WAIT."""
    bound_ports: NDArray[np.uint16] = field(default_factory=lambda: np.empty(0, np.uint16))
    """Local ports of connections that are known to have called bind() before connect()."""
    failed: tuple[FailedConnects, ...] = ()


class PortFactsAnalysis:
    """Remembers the facts about connections for as long as the kernel has their sockets."""

    def __init__(self) -> None:
        self._cookie = np.empty(0, np.uint64)
        """Sockets in TIME_WAIT of which `_used` is known, ascending."""
        self._used = np.empty(0, np.int8)
        """Timestamps, aligned with `_cookie`."""
        self._bound = np.empty(0, np.uint64)
        """Hashes of the endpoints of connections that called bind() before connect(), ascending."""
        self._bound_ports = np.empty(0, np.uint16)
        self._failures = _Failures()
        self._ended = (_NO_ENDED, _NO_ENDED)
        """Of the previous step and of this one: an event may be read after the sample that has the TIME_WAIT socket."""

    def step(self, poll: Poll) -> PortFacts:
        """Return the facts; `timestamps` of the result may be called until the next step, once."""
        self._ended = self._ended[1], _ended(poll.sample.destroyed)
        self._bound_ports = self._bound_connections(poll.rows, poll.sample)
        failed = self._failures.step(poll.sample)
        return PortFacts(lambda waits: self._timestamps(poll, waits), self._bound_ports, failed)

    def _timestamps(self, poll: Poll, waits: NDArray[np.intp]) -> NDArray[np.int8]:
        rows, sample = poll.rows, poll.sample
        cookie, timestamps = sample.cookie[waits], _unknown(waits)
        if len(self._cookie):
            at = find_sorted(self._cookie, cookie)
            timestamps = np.where(at == NOT_FOUND, Timestamps.UNKNOWN, self._used[at]).astype(np.int8)
        fresh = np.flatnonzero((timestamps == Timestamps.UNKNOWN) & (rows.since[waits] > rows.time - _FRESH_S))
        for ended in self._ended:
            if not len(ended.cookie) or not len(fresh):
                continue
            used = ended.timestamps
            # A socket that nobody had asked about has another cookie in TIME_WAIT: then its endpoints identify it.
            names = (
                (ended.cookie, cookie[fresh]),
                (ended.endpoints, endpoint_pair_hashes(take_rows(sample.table, waits[fresh]))),
            )
            for present, wanted in names:
                order = np.argsort(present, kind="stable")
                at = find_sorted(present[order], wanted)
                found = at != NOT_FOUND
                timestamps[fresh[found]] = np.where(used[order[at[found]]], Timestamps.USED, Timestamps.NONE)
        known = np.flatnonzero(timestamps != Timestamps.UNKNOWN)
        known = known[np.argsort(cookie[known])]
        self._cookie, self._used = cookie[known], timestamps[known]
        return timestamps

    def _bound_connections(self, rows: Rows, sample: Sample) -> NDArray[np.uint16]:
        """Return the ports of the connections in the sample that are known to have called bind() before connect()."""
        bound, ports = self._bound, self._bound_ports
        if sample.trace_events is not None:
            events = sample.trace_events.events
            calls = (events["kind"] == TraceEventKind.STATE) & (events["old"] == State.CLOSED)
            calls &= (events["new"] == State.SYN_SENT) & (events["sport"] != 0)
            at = np.flatnonzero(calls)
            if len(at):
                new = endpoint_pair_hashes(take_rows(events, at), "sport", "dport", "src", "dst")
                bound = np.unique(np.concatenate((bound, new)))
                ports = np.concatenate((ports, events["sport"][at]))
        if not len(bound):
            return ports[:0]
        candidate = np.zeros(65_536, np.bool_)
        candidate[ports] = True
        row = np.flatnonzero(candidate[sample.local_port] & (rows.role <= Role.CLIENT))
        hashes = endpoint_pair_hashes(take_rows(sample.table, row))
        present = is_in_sorted(bound, hashes)
        self._bound = np.unique(hashes[present])
        return np.unique(sample.local_port[row[present]])


class _Ended(NamedTuple):
    """What is needed of destroy events, as aligned columns."""

    cookie: NDArray[np.uint64]
    endpoints: NDArray[np.uint64]
    """endpoint_pair_hashes"""
    timestamps: NDArray[np.bool_]
    """Whether the connection had timestamps."""


_NO_ENDED = _Ended(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.bool_))


def _ended(destroyed: DestroyedSockets | None) -> _Ended:
    if destroyed is None or not len(destroyed.table):
        return _NO_ENDED
    used = (destroyed.infos["tcpi_options"] & _TCPI_OPT_TIMESTAMPS) != 0
    cookie = destroyed.table["idiag_cookie"].astype(np.uint64)
    return _Ended(cookie, endpoint_pair_hashes(destroyed.table), used)


class _Call(NamedTuple):
    """A connect() call that found no port."""

    time: float
    """Monotonic seconds."""
    ends: tuple[str, str, int]
    """Local address, remote address, remote port."""


class _Failures:
    """Counts connect() calls of this network namespace that found no port.

    The trace has those of all network namespaces. Destroy events are those of this one: the cookie of a closed socket
    occurs in both, and in the trace first, as each sample reads the destroy events before it.
    """

    def __init__(self) -> None:
        self._open: dict[int, _Call] = {}
        """Kernel address of a socket whose connect() failed → the call."""
        self._closed: dict[int, _Call] = {}
        """Cookie of such a socket that is closed → the call."""
        self._counted: deque[_Call] = deque(maxlen=_MOST_FAILED)

    def step(self, sample: Sample) -> tuple[FailedConnects, ...]:
        oldest_s = sample.monotonic - FAILED_KEPT_S
        if sample.trace_events is not None and sample.destroyed is not None:
            if sample.trace_events.lost:  # perhaps the end of such a socket
                self._open.clear()
            self._read(sample.trace_events.events)
            ours = np.isin(np.array(list(self._closed), np.uint64), sample.destroyed.table["idiag_cookie"])
            for cookie in np.array(list(self._closed), np.uint64)[ours].tolist():
                self._counted.append(self._closed.pop(cookie))
            self._open, self._closed = _newest(self._open, oldest_s), _newest(self._closed, oldest_s)
        return _counts(call.ends for call in self._counted if call.time >= oldest_s)

    def _read(self, events: NDArray[np.void]) -> None:
        changes = (events["kind"] == TraceEventKind.STATE) & (events["old"] == State.SYN_SENT)
        failed = np.flatnonzero(changes & (events["new"] == State.CLOSED) & (events["sport"] == 0))
        failed = failed[:_MOST_FAILED]
        if not self._open and not len(failed):
            return
        sockets = np.append(np.array(list(self._open), np.uint64), events["socket"][failed])
        closed = np.flatnonzero(events["kind"] == TraceEventKind.DESTROYED)
        closed = closed[np.isin(events["socket"][closed], sockets)]
        # In the order of time, as the kernel uses the address of a socket again, also for another namespace.
        for event in events[np.sort(np.concatenate((failed, closed)))]:
            socket, family = int(event["socket"]), int(event["family"])
            if event["kind"] == TraceEventKind.STATE:
                source, destination = (units.address(event[end].tobytes(), family) for end in ("src", "dst"))
                self._open[socket] = _Call(float(event["time"]), (source, destination, int(event["dport"])))
            elif socket in self._open:
                self._closed[int(event["cookie"])] = self._open.pop(socket)


def _newest(calls: dict[int, _Call], oldest_s: float) -> dict[int, _Call]:
    return {key: call for key, call in list(calls.items())[-_MOST_FAILED:] if call.time >= oldest_s}


def _counts(calls: Iterable[tuple[str, str, int]]) -> tuple[FailedConnects, ...]:
    return tuple(FailedConnects(ends, count) for ends, count in Counter(calls).items())
