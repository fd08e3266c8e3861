"""Acceptors: which of the processes that hold a listener accept its connections.

With socket activation systemd(1) holds the listener too, a server that forks shares it with its workers, and a program
that was started without closing it has it by accident. The kernel does not report who calls accept(). An accepted
connection proves it: the process that holds it, and was running before it began, has accepted it. A process that was
started later has inherited it. Where all connections are older than the first sample, their holders are presumed to
have accepted them. The trace shows who closes a connection that no poll sees: the change from ESTABLISHED to FIN_WAIT_1
or from CLOSE_WAIT to LAST_ACK is made by the last holder's thread (tcp_close_state in net/ipv4/tcp.c).
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NOT_LOOKED, Owner
from tcpwatch.kernel.proc.process import Process
from tcpwatch.kernel.trace.trace_events import TraceEventKind
from tcpwatch.model.sockets.join import Join
from tcpwatch.model.states import Role, State
from tcpwatch.sample import Sample

_MOST = 4096
"""Connections looked at in one step, the newest ones."""
_FIRST_STEPS, _INTERVAL = 3, 32
"""All connections are looked at in the first steps of a listener, as their owners may be found late, and in one of so
many steps; otherwise those that are new since _FIRST_STEPS."""
_CLOCK_S = 0.05
"""Error of the start time of a process, which is in ticks of the clock."""
_FADING = 0.95
_OLDER = -np.inf
"""In place of the beginning of a connection that is older than the first sample."""


_Identity = tuple[int, float]


@dataclass(frozen=True, slots=True)
class _SharedListener:
    """A listener with several holders, or with one that may not be the only one."""

    row: int
    cookie: int
    key: int
    owner: Owner
    holders: frozenset[_Identity]


@dataclass(frozen=True, slots=True)
class _Connections:
    """The connections of one listener key with the same holders."""

    key: int
    owner: Owner
    began: float
    """Unix seconds; the newest did not begin before. _OLDER if all are older than the first sample."""
    older: int
    """How many are older than the first sample, and open."""


class Acceptors:
    """Remembers the processes that accepted a connection, for as long as they hold the listener."""

    def __init__(self) -> None:
        self._certain: dict[int, set[_Identity]] = {}
        self._presumed: dict[int, set[_Identity]] = {}
        """By cookie of the listener."""
        self._interval_s = 0.0
        self._until_all, self._steps = 0, 0
        self._new: deque[NDArray[np.uint64]] = deque(maxlen=_FIRST_STEPS)

    def step(self, join: Join, sample: Sample, elapsed_s: float | None) -> Join:
        """Return the join with the owners of shared listeners in order: first the processes that accept."""
        shared = _shared_listeners(join, sample.holders_known)
        held = {listener.cookie: listener.holders for listener in shared}
        if held.keys() - self._certain.keys():
            self._until_all = _FIRST_STEPS
        self._certain = {cookie: self._certain.get(cookie, set()) & held[cookie] for cookie in held}
        self._presumed = {cookie: self._presumed.get(cookie, set()) & held[cookie] for cookie in held}
        if not shared:
            return join
        # A connection may have been found out some steps ago, when a step took longer.
        self._interval_s = max(elapsed_s or 0.0, _FADING * self._interval_s)
        self._learn(shared, _connections(join, sample, shared, self._interval_s, self._rows_to_look_at(join)))
        self._learn(shared, _closed_connections(join, sample, shared))
        rows = join.rows
        owner, owners = rows.owner.copy(), list(rows.owners)
        for listener in shared:
            owner[listener.row] = len(owners)
            certain = self._certain[listener.cookie]
            owners.append(_ordered(listener.owner, certain or self._presumed[listener.cookie], not certain))
        owner.flags.writeable = False
        return replace(join, rows=replace(rows, owner=owner, owners=owners))

    def _rows_to_look_at(self, join: Join) -> NDArray[np.intp] | slice:
        self._new.append(join.rows.cookie[join.new[-_MOST:]])
        self._steps, self._until_all = self._steps + 1, self._until_all - 1
        if self._until_all >= 0 or self._steps % _INTERVAL == 0:
            return slice(None)
        at = find_sorted(join.rows.cookie, np.concatenate(self._new))
        return np.sort(at[at != NOT_FOUND])

    def _learn(self, shared: Sequence[_SharedListener], connections: Iterator[_Connections]) -> None:
        """Learn from the connections of shared listeners."""
        by_key, names = defaultdict(list), defaultdict[int, Counter[str]](Counter)
        for listener in shared:
            by_key[listener.key].append(listener)
            names[listener.key].update(process.name for process in listener.owner.processes)
        inherited = set[_Identity]()
        for group in connections:
            running = [_identity(process) for process in group.owner.processes if process.started_unix_s <= group.began]
            if len(running) == 1:
                self._add(self._certain, by_key[group.key], running[0])
            elif not running and group.older:
                # Of processes that share a connection the oldest has accepted it, before it started the others.
                first, *later = sorted(group.owner.processes, key=lambda process: process.started_unix_s)
                inherited.update(map(_identity, later))
                # A server that forks for each connection, and whose child keeps the listener, has one in each child.
                if later or group.older > 1 or names[group.key][first.name] <= 1:
                    self._add(self._presumed, by_key[group.key], _identity(first))
        for presumed in self._presumed.values():
            presumed -= inherited

    def _add(
        self, accepting: dict[int, set[_Identity]], listeners: Sequence[_SharedListener], process: _Identity
    ) -> None:
        holding = [listener.cookie for listener in listeners if process in listener.holders]
        if len(holding) == 1:  # of a SO_REUSEPORT group, a process may hold sockets that others serve
            accepting[holding[0]].add(process)


def _identity(process: Process) -> _Identity:
    return process.pid, process.started_unix_s


def _shared_listeners(join: Join, holders_known: bool) -> list[_SharedListener]:
    """Return the listeners with several holders, or, as long as not all holders are known, with any."""
    keys, rows, least = join.listener_keys, join.rows, 2 if holders_known else 1
    codes = rows.owner[keys.row]
    distinct = ((code, rows.owners[code].processes) for code in np.unique(codes[codes >= 0]).tolist())
    holders = {code: frozenset(map(_identity, processes)) for code, processes in distinct if len(processes) >= least}
    return [
        _SharedListener(int(row), int(rows.cookie[row]), int(key), rows.owners[code], holders[code])
        for row, key, code in zip(keys.row, keys.key, codes.tolist(), strict=True)
        if code in holders
    ]


def _connections(
    join: Join,
    sample: Sample,
    shared: Sequence[_SharedListener],
    interval_s: float,
    where: NDArray[np.intp] | slice,
) -> Iterator[_Connections]:
    """Yield the connections of shared listeners among these rows."""
    rows, is_shared = join.rows, np.zeros(1 << 16, np.bool_)
    is_shared[sample.local_port[[listener.row for listener in shared]]] = True
    accepted = is_shared[sample.local_port[where]] & (rows.owner[where] >= 0) & (rows.role[where] == Role.SERVER)
    at = np.flatnonzero(accepted)[-_MOST:]
    at = at if isinstance(where, slice) else where[at]
    if not len(at):
        return
    key, code = join.listener_keys.lookup(sample, at).astype(np.int64), rows.owner[at]
    distinct, inverse = np.unique(key << 32 | code, return_inverse=True)
    began = np.full(len(distinct), _OLDER)
    np.maximum.at(began, inverse, np.where(rows.begin_seen[at], rows.first_seen[at] - interval_s - _CLOCK_S, _OLDER))
    # A process that has inherited a connection does not close it when the peer has closed.
    is_older = ~rows.begin_seen[at] & (rows.state[at] == State.ESTABLISHED)
    older = np.bincount(inverse[is_older], minlength=len(distinct))
    for number, group in enumerate(distinct.tolist()):
        owner = rows.owners[group & 0xFFFFFFFF]
        yield _Connections(group >> 32, owner, float(began[number]), int(older[number]))


def _closed_connections(join: Join, sample: Sample, shared: Sequence[_SharedListener]) -> Iterator[_Connections]:
    """Yield the connections of shared listeners that the trace saw begin and close; main threads alone are known."""
    if sample.trace_events is None:
        return
    keys = Counter(key.port for key in join.listener_keys.keys)
    listeners = {port: it for it in shared if keys[port := int(sample.local_port[it.row])] == 1}
    is_shared = np.zeros(1 << 16, np.bool_)
    is_shared[list(listeners)] = True
    events = sample.trace_events.events
    events = events[is_shared[events["sport"]] & (events["kind"] == TraceEventKind.STATE)]
    events = events[np.argsort(events["socket"], kind="stable")]
    change = events["old"].astype(np.int64) << 8 | events["new"]
    begins = np.maximum.accumulate(np.where(change == _BEGIN, np.arange(len(events)), -1))
    closed = np.flatnonzero(np.isin(change, _CLOSE) & (begins >= 0))
    closed = closed[events["socket"][begins[closed]] == events["socket"][closed]]
    began = events["time"][begins[closed]] + (sample.time - sample.monotonic) - _CLOCK_S
    port_and_pid = zip(events["sport"][closed].tolist(), events["pid"][closed].tolist(), strict=True)
    newest = dict(zip(port_and_pid, began.tolist(), strict=True))
    for (port, pid), time in newest.items():
        for process in listeners[port].owner.processes:
            if process.pid == pid:
                yield _Connections(listeners[port].key, Owner((process,)), time, 0)


_BEGIN = State.SYN_RCVD << 8 | State.ESTABLISHED
_CLOSE = (State.ESTABLISHED << 8 | State.FIN_WAIT_1, State.CLOSE_WAIT << 8 | State.LAST_ACK)


def _ordered(owner: Owner, accepting: set[_Identity], presumed: bool) -> Owner:
    """Return the processes that accept, then the others; where none is known, first those that another program started.

    A service manager opens a listener for a program that it starts later; the workers of one program have its name.
    """
    if accepting:
        rest = [process for process in owner.processes if _identity(process) not in accepting]
        first = [process for process in owner.processes if _identity(process) in accepting]
        return Owner((*first, *rest), len(first), presumed)
    oldest = min(owner.processes, key=lambda process: (process.started_unix_s, process.pid))
    return Owner(tuple(sorted(owner.processes, key=lambda process: (process.name == oldest.name, process.pid))), 0)


def accepted_owners(join: Join) -> tuple[NDArray[np.int32], list[Owner]]:
    """Return the owner code of the connections of each listener key, and the list of owners that it refers to.

    One more code is at the end, for NO_LISTENER. Where it is not known which of several processes accepts them, the
    owner has all of these.
    """
    keys, rows = join.listener_keys, join.rows
    codes, owners = np.full(len(keys.keys) + 1, UNKNOWN_NOT_LOOKED, np.int32), list(rows.owners)
    member = rows.owner[keys.row]
    codes[keys.key] = member
    differs = set(keys.key[codes[keys.key] != member].tolist())
    shared = [code for code in np.unique(member[member >= 0]).tolist() if owners[code].accepting is not None]
    for key in sorted(differs | set(np.flatnonzero(np.isin(codes, shared)).tolist())):
        held = member[keys.key == key]
        if (held < 0).any():
            codes[key] = held.min()
            continue
        codes[key] = len(owners)
        owners.append(_one_of([owners[code] for code in np.unique(held).tolist()]))
    return codes, owners


def _one_of(holders: Sequence[Owner]) -> Owner:
    """Return the processes that accept, of the holders of the sockets of one key."""
    processes = {process.pid: process for owner in holders for process in owner.processes[: owner.accepting or None]}
    are_sole = len(processes) == 1 and all(owner.accepting != 0 for owner in holders)
    are_known = are_sole or (len(holders) == 1 and bool(holders[0].accepting))
    ordered = tuple(processes[pid] for pid in sorted(processes))
    return Owner(ordered, len(ordered) if are_known and len(ordered) > 1 else None if are_known else 0)
