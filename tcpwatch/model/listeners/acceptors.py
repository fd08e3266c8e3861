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
from itertools import chain

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


@dataclass(frozen=True, slots=True, eq=False)
class _SharedListeners:
    """The listeners with several holders, or with one that may not be the only one; aligned columns."""

    row: NDArray[np.intp]
    cookie: NDArray[np.uint64]
    key: NDArray[np.int32]
    code: NDArray[np.int32]
    """Index in `owners`."""
    owners: Sequence[Owner]
    """Of all sockets."""

    def holders(self, at: int) -> frozenset[_Identity]:
        """Return the holders of one of them."""
        return frozenset(map(_identity, self.owners[self.code[at]].processes))


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
        """By cookie of the listener; absent where nothing is known."""
        self._shared = np.empty(0, np.uint64)
        """The cookies of the shared listeners."""
        self._interval_s = 0.0
        self._until_all, self._steps = 0, 0
        self._new: deque[NDArray[np.uint64]] = deque(maxlen=_FIRST_STEPS)

    def step(self, join: Join, sample: Sample, elapsed_s: float | None) -> Join:
        """Return the join with the owners of shared listeners in order: first the processes that accept."""
        shared = _shared_listeners(join, sample.holders_known)
        if not np.isin(shared.cookie, self._shared).all():
            self._until_all = _FIRST_STEPS
        self._shared = shared.cookie
        if not len(shared.cookie):
            self._certain, self._presumed = {}, {}
            return join
        self._forget(shared)
        # A connection may have been found out some steps ago, when a step took longer.
        self._interval_s = max(elapsed_s or 0.0, _FADING * self._interval_s)
        connections = chain(
            _connections(join, sample, shared, self._interval_s, self._rows_to_look_at(join)),
            _closed_connections(join, sample, shared),
        )
        self._learn(shared, list(connections))
        return self._with_owners_in_order(join, shared)

    def _forget(self, shared: _SharedListeners) -> None:
        """Forget who no longer holds a listener."""
        known = np.array([*self._certain.keys() | self._presumed.keys()], np.uint64)
        present = np.flatnonzero(np.isin(shared.cookie, known))
        holders = {int(shared.cookie[at]): shared.holders(at) for at in present.tolist()}
        for accepting in (self._certain, self._presumed):
            held = {cookie: found & holders[cookie] for cookie, found in accepting.items() if cookie in holders}
            accepting.clear()
            accepting.update({cookie: found for cookie, found in held.items() if found})

    def _with_owners_in_order(self, join: Join, shared: _SharedListeners) -> Join:
        rows = join.rows
        owner, owners = rows.owner.copy(), list(rows.owners)
        # Where nothing is known of any listener, its order depends on its holders alone.
        codes = np.unique(shared.code)
        unknown = np.empty(int(codes[-1]) + 1, np.int32)
        for code in codes.tolist():
            unknown[code] = len(owners)
            owners.append(_ordered(rows.owners[code], set(), presumed=True))
        owner[shared.row] = unknown[shared.code]
        known = np.array([*self._certain.keys() | self._presumed.keys()], np.uint64)
        for at in np.flatnonzero(np.isin(shared.cookie, known)).tolist():
            cookie = int(shared.cookie[at])
            certain = self._certain.get(cookie)
            owner[shared.row[at]] = len(owners)
            accepting = certain or self._presumed.get(cookie, set())
            owners.append(_ordered(rows.owners[shared.code[at]], accepting, not certain))
        owner.flags.writeable = False
        return replace(join, rows=replace(rows, owner=owner, owners=owners))

    def _rows_to_look_at(self, join: Join) -> NDArray[np.intp] | slice:
        self._new.append(join.rows.cookie[join.new[-_MOST:]])
        self._steps, self._until_all = self._steps + 1, self._until_all - 1
        if self._until_all >= 0 or self._steps % _INTERVAL == 0:
            return slice(None)
        at = find_sorted(join.rows.cookie, np.concatenate(self._new))
        return np.sort(at[at != NOT_FOUND])

    def _learn(self, shared: _SharedListeners, connections: Sequence[_Connections]) -> None:
        """Learn from the connections of shared listeners."""
        if not connections:
            return
        by_key, names = defaultdict(list), defaultdict[int, Counter[str]](Counter)
        wanted = np.array([group.key for group in connections], np.int32)
        for at in np.flatnonzero(np.isin(shared.key, wanted)).tolist():
            key = int(shared.key[at])
            by_key[key].append((int(shared.cookie[at]), shared.holders(at)))
            names[key].update(process.name for process in shared.owners[shared.code[at]].processes)
        inherited = set[_Identity]()
        for group in connections:
            running = [_identity(process) for process in group.owner.processes if process.started_unix_s <= group.began]
            if len(running) == 1:
                _add(self._certain, by_key[group.key], running[0])
            elif not running and group.older:
                # Of processes that share a connection the oldest has accepted it, before it started the others.
                first, *later = sorted(group.owner.processes, key=lambda process: process.started_unix_s)
                inherited.update(map(_identity, later))
                # A server that forks for each connection, and whose child keeps the listener, has one in each child.
                if later or group.older > 1 or names[group.key][first.name] <= 1:
                    _add(self._presumed, by_key[group.key], _identity(first))
        for presumed in self._presumed.values():
            presumed -= inherited


def _add(
    accepting: dict[int, set[_Identity]], listeners: Sequence[tuple[int, frozenset[_Identity]]], process: _Identity
) -> None:
    holding = [cookie for cookie, holders in listeners if process in holders]
    if len(holding) == 1:  # of a SO_REUSEPORT group, a process may hold sockets that others serve
        accepting.setdefault(holding[0], set()).add(process)


def _identity(process: Process) -> _Identity:
    return process.pid, process.started_unix_s


def _shared_listeners(join: Join, holders_known: bool) -> _SharedListeners:
    """Return the listeners with several holders, or, as long as not all holders are known, with any."""
    keys, rows, least = join.listener_keys, join.rows, 2 if holders_known else 1
    codes = rows.owner[keys.row]
    distinct = np.unique(codes[codes >= 0])
    shared = [code for code in distinct.tolist() if len(rows.owners[code].processes) >= least]
    at = np.flatnonzero(np.isin(codes, np.array(shared, np.int32))) if shared else distinct[:0].astype(np.intp)
    return _SharedListeners(keys.row[at], rows.cookie[keys.row[at]], keys.key[at], codes[at], rows.owners)


def _connections(
    join: Join,
    sample: Sample,
    shared: _SharedListeners,
    interval_s: float,
    where: NDArray[np.intp] | slice,
) -> Iterator[_Connections]:
    """Yield the connections of shared listeners among these rows."""
    rows, is_shared = join.rows, np.zeros(1 << 16, np.bool_)
    is_shared[sample.local_port[shared.row]] = True
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


def _closed_connections(join: Join, sample: Sample, shared: _SharedListeners) -> Iterator[_Connections]:
    """Yield the connections of shared listeners that the trace saw begin and close; main threads alone are known."""
    if sample.trace_events is None:
        return
    keys = np.bincount(np.array([key.port for key in join.listener_keys.keys], np.intp), minlength=1 << 16)
    ports = sample.local_port[shared.row]
    at_port = {int(ports[at]): at for at in np.flatnonzero(keys[ports] == 1).tolist()}
    is_shared = np.zeros(1 << 16, np.bool_)
    is_shared[list(at_port)] = True
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
        at = at_port[port]
        for process in shared.owners[shared.code[at]].processes:
            if process.pid == pid:
                yield _Connections(int(shared.key[at]), Owner((process,)), time, 0)


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
    several = sorted(differs | set(np.flatnonzero(np.isin(codes, shared)).tolist()))
    order = np.argsort(keys.key, kind="stable") if several else keys.key[:0]
    begin, end = (np.searchsorted(keys.key[order], several, side).tolist() for side in ("left", "right"))
    for key, first, last in zip(several, begin, end, strict=True):
        held = member[order[first:last]]
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
