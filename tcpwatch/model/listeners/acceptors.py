"""Acceptors: which of the processes that hold a listener accept its connections.

With socket activation systemd(1) holds the listener too, a server that forks shares it with its workers, and a program
that was started without closing it has it by accident. The kernel does not report who calls accept(). An accepted
connection proves it: the process that holds it, and was running before it began, has accepted it. A process that was
started later has inherited it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NOT_LOOKED, Owner
from tcpwatch.kernel.proc.process import Process
from tcpwatch.model.sockets.join import Join
from tcpwatch.model.states import Role
from tcpwatch.sample import Sample

_LOOKED_AT, _NEWEST = 4096, 65_536
"""Connections looked at in one step: the newest of these listeners, among so many sockets of the host; among all when a
listener is seen for the first time."""
_CLOCK_S = 0.05
"""Error of the start time of a process, which is in ticks of the clock."""
_FADING = 0.95
_OLDER = -np.inf
"""In place of the beginning of a connection that is older than the first sample."""


_Identity = tuple[int, float]


@dataclass(frozen=True, slots=True)
class _SharedListener:
    """A listener with several holders."""

    row: int
    cookie: int
    key: int
    owner: Owner
    holders: frozenset[_Identity]


class Acceptors:
    """Remembers the processes that accepted a connection, for as long as they hold the listener."""

    def __init__(self) -> None:
        self._accepting: dict[int, set[_Identity]] = {}
        """By cookie of the listener."""
        self._interval_s = 0.0

    def step(self, join: Join, sample: Sample, elapsed_s: float | None) -> Join:
        """Return the join with the owners of shared listeners in order: first the processes that accept."""
        shared = _shared_listeners(join)
        held = {listener.cookie: listener.holders for listener in shared}
        begin = 0 if held.keys() - self._accepting.keys() else max(0, len(join.rows) - _NEWEST)
        self._accepting = {cookie: self._accepting.get(cookie, set()) & held[cookie] for cookie in held}
        if not shared:
            return join
        # A connection may have been found out some steps ago, when a step took longer.
        self._interval_s = max(elapsed_s or 0.0, _FADING * self._interval_s)
        for listener, process in _accepted(join, sample, shared, self._interval_s, begin):
            self._accepting[listener.cookie].add(_identity(process))
        rows = join.rows
        owner, owners = rows.owner.copy(), list(rows.owners)
        for listener in shared:
            owner[listener.row] = len(owners)
            owners.append(_ordered(listener.owner, self._accepting[listener.cookie]))
        owner.flags.writeable = False
        return replace(join, rows=replace(rows, owner=owner, owners=owners))


def _identity(process: Process) -> _Identity:
    return process.pid, process.started_unix_s


def _shared_listeners(join: Join) -> list[_SharedListener]:
    keys, rows = join.listener_keys, join.rows
    codes = rows.owner[keys.row]
    distinct = ((code, rows.owners[code].processes) for code in np.unique(codes[codes >= 0]).tolist())
    holders = {code: frozenset(map(_identity, processes)) for code, processes in distinct if len(processes) > 1}
    return [
        _SharedListener(int(row), int(rows.cookie[row]), int(key), rows.owners[code], holders[code])
        for row, key, code in zip(keys.row, keys.key, codes.tolist(), strict=True)
        if code in holders
    ]


def _accepted(
    join: Join, sample: Sample, shared: Sequence[_SharedListener], interval_s: float, begin: int
) -> Iterator[tuple[_SharedListener, Process]]:
    """Yield the pairs of a listener and a process that has accepted a connection of it."""
    by_key, names = defaultdict(list), defaultdict[int, Counter[str]](Counter)
    for listener in shared:
        by_key[listener.key].append(listener)
        names[listener.key].update(process.name for process in listener.owner.processes)
    for key, owner, began, older in _connections(join, sample, shared, interval_s, begin):
        for process in _acceptor(owner, began, older, names[key]):
            holding = [listener for listener in by_key[key] if _identity(process) in listener.holders]
            if len(holding) == 1:  # of a SO_REUSEPORT group, a process may hold sockets that others serve
                yield holding[0], process


def _connections(
    join: Join, sample: Sample, shared: Sequence[_SharedListener], interval_s: float, begin: int
) -> Iterator[tuple[int, Owner, float, int]]:
    """Yield listener key, holders, when the newest connection began at the earliest, and how many are older than us.

    The connections of a key with the same holders are one group. Rows before `begin` are left out.
    """
    rows, is_shared = join.rows, np.zeros(1 << 16, np.bool_)
    is_shared[sample.local_port[[listener.row for listener in shared]]] = True
    accepted = is_shared[sample.local_port[begin:]] & (rows.owner[begin:] >= 0) & (rows.role[begin:] == Role.SERVER)
    at = begin + np.flatnonzero(accepted)[-_LOOKED_AT:]
    key, code = join.listener_keys.lookup(sample, at).astype(np.int64), rows.owner[at]
    distinct, inverse = np.unique(key << 32 | code, return_inverse=True)
    began = np.full(len(distinct), _OLDER)
    np.maximum.at(began, inverse, np.where(rows.begin_seen[at], rows.first_seen[at] - interval_s - _CLOCK_S, _OLDER))
    older = np.bincount(inverse[~rows.begin_seen[at]], minlength=len(distinct))
    for number, group in enumerate(distinct.tolist()):
        yield group >> 32, rows.owners[group & 0xFFFFFFFF], float(began[number]), int(older[number])


def _acceptor(owner: Owner, began: float, older: int, names: Mapping[str, int]) -> Iterator[Process]:
    """Yield the process that accepted these connections, if it is certain.

    `names` counts the holders of the listener by name.
    """
    running = [process for process in owner.processes if process.started_unix_s <= began]
    if len(running) == 1:
        yield running[0]
    elif not running and older and len(owner.processes) == 1:
        # A server that forks for each connection, and whose child keeps the listener open, has one in each child.
        process = owner.processes[0]
        if older > 1 or names.get(process.name, 0) <= 1:
            yield process


def _ordered(owner: Owner, accepting: set[_Identity]) -> Owner:
    """Return the processes that accept, then the others; where none is known, first those that another program started.

    A service manager opens a listener for a program that it starts later; the workers of one program have its name.
    """
    if accepting:
        rest = [process for process in owner.processes if _identity(process) not in accepting]
        first = [process for process in owner.processes if _identity(process) in accepting]
        return Owner((*first, *rest), len(first))
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
    are_known = len(processes) == 1 or (len(holders) == 1 and bool(holders[0].accepting))
    ordered = tuple(processes[pid] for pid in sorted(processes))
    return Owner(ordered, len(ordered) if are_known and len(ordered) > 1 else None if are_known else 0)
