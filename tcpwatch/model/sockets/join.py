"""Two samples joined by cookie: which flows opened, which ended, which changed, and what is remembered of each.

A flow's memory is a handful of arrays aligned with the sample's rows; the step from one sample to the next is a merge
of two sorted cookie columns, without a loop over sockets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.listeners.listener_keys import ListenerKeys
from tcpwatch.model.sockets.rows import Mark, Rows
from tcpwatch.model.sockets.throughput import Throughput
from tcpwatch.model.states import Closer, Role, State
from tcpwatch.sample import Sample

CLOSED_KEPT = 2_000
"""Ended flows that a View keeps as rows for one step; beyond it they are counted only."""


@dataclass(frozen=True, slots=True, eq=False)
class Join:
    """One sample's rows with their memory, and what has changed since the sample before."""

    rows: Rows
    closed: Rows
    """The first CLOSED_KEPT of the flows that ended, as they were last seen."""
    ended_cookie: NDArray[np.uint64]
    ended_state: NDArray[np.uint8]
    """All flows that ended, and the state in which they were last seen."""
    ended_previous: NDArray[np.intp]
    """Where these were among the rows before."""
    changed: NDArray[np.intp]
    """Rows whose state is another than before."""
    changed_previous: NDArray[np.intp]
    """Where these were among the rows before."""
    old_state: NDArray[np.uint8]
    """Their states before."""
    new: NDArray[np.intp]
    """Rows that were not there before; empty on the first step."""
    listener_keys: ListenerKeys


def first(sample: Sample) -> Join:
    """The first sample: every flow was there before us."""
    size = len(sample.cookie)
    times = np.full(size, sample.time)
    rows = _rows(
        sample,
        Throughput().after(sample.tcp_info_table),
        first_seen=times,
        since=times,
        begin_seen=np.zeros(size, np.bool_),
        role=np.zeros(size, np.uint8),
        closer=np.zeros(size, np.uint8),
        mark=np.zeros(size, np.uint8),
    )
    listening = ListenerKeys.of(sample)
    _judge(rows, np.arange(size), sample, listening)
    none = np.empty(0, np.intp)
    return Join(
        rows=_frozen(rows),
        closed=rows.take(none),
        ended_cookie=sample.cookie[:0],
        ended_state=sample.state[:0],
        ended_previous=none,
        changed=none,
        changed_previous=none,
        old_state=sample.state[:0],
        new=none,
        listener_keys=listening,
    )


def join(earlier: Join, sample: Sample) -> Join:
    """The next sample, with the memory of the one before it."""
    before = earlier.rows
    known, stays = _shared(sample.cookie, before.cookie)
    size = len(known)
    first_seen = _carried(before.first_seen, stays, known, sample.time)
    since = _carried(before.since, stays, known, sample.time)
    begin_seen = _carried(before.begin_seen, stays, known, True)
    role = _carried(before.role, stays, known, 0)
    closer = _carried(before.closer, stays, known, 0)
    states = before.state[stays]
    differs = np.flatnonzero(states != sample.state[known])
    changed, old_state = np.flatnonzero(known)[differs], states[differs]
    new, gone = np.flatnonzero(~known), np.flatnonzero(~stays)
    mark = np.zeros(size, np.uint8)
    mark[changed], mark[new] = Mark.CHANGED, Mark.NEW
    since[changed] = sample.time
    throughput = before.throughput.after(sample.tcp_info_table)
    rows = _rows(
        sample,
        throughput,
        first_seen=first_seen,
        since=since,
        begin_seen=begin_seen,
        role=role,
        closer=closer,
        mark=mark,
    )
    listening = ListenerKeys.of(sample)
    _judge(rows, np.concatenate((changed, new)), sample, listening)
    if set(listening.keys) - set(
        earlier.listener_keys.keys
    ):  # a listener that came later still makes its port a server's
        _serve(rows, sample, listening)
    return Join(
        rows=_frozen(rows),
        closed=_closed(before, gone, sample.time),
        ended_cookie=before.cookie[gone],
        ended_state=before.state[gone],
        ended_previous=gone,
        changed=changed,
        changed_previous=np.flatnonzero(stays)[differs],
        old_state=old_state,
        new=new,
        listener_keys=listening,
    )


def _shared(cookie: NDArray[np.uint64], other: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For two sorted arrays: which of the first are in the second, and which of the second are in the first."""
    if np.array_equal(cookie, other):
        return np.ones(len(cookie), np.bool_), np.ones(len(other), np.bool_)
    if not len(cookie) or not len(other):
        return np.zeros(len(cookie), np.bool_), np.zeros(len(other), np.bool_)
    low = min(cookie[0], other[0])
    span = int(max(cookie[-1], other[-1]) - low) + 1
    if span <= _DENSE * (len(cookie) + len(other)):
        # Cookies are counted up: those of a flood lie close together, and a table of their span is quickly looked up.
        here, there = (cookie - low).astype(np.intp), (other - low).astype(np.intp)
        return _marked(there, span)[here], _marked(here, span)[there]
    at = np.searchsorted(other, cookie)
    at[at == len(other)] = 0
    known = other[at] == cookie
    stays = np.zeros(len(other), np.bool_)
    stays[at[known]] = True
    return known, stays


_DENSE = 8
"""Up to so many numbers for each cookie, a table costs less than a search."""


def _marked(places: NDArray[np.intp], size: int) -> NDArray[np.bool_]:
    table = np.zeros(size, np.bool_)
    table[places] = True
    return table


def _carried(old: NDArray[Any], stays: NDArray[np.bool_], known: NDArray[np.bool_], fresh: object) -> NDArray[Any]:
    """The memory of those that stay, at their places among the new rows; `fresh` for the others."""
    kept = old[stays]
    if len(kept) == len(known):
        return kept
    values = np.full(len(known), fresh, old.dtype)
    values[known] = kept
    return values


def _rows(sample: Sample, throughput: Throughput, **memory: NDArray[Any]) -> Rows:
    return Rows(
        time=sample.time,
        table=sample.table,
        cookie=sample.cookie,
        state=sample.state,
        owner=sample.owner,
        owners=sample.owners,
        users=sample.users,
        interfaces=sample.interfaces,
        throughput=throughput,
        **memory,
    )


def _judge(rows: Rows, where: NDArray[np.intp], sample: Sample, listening: ListenerKeys) -> None:
    """Role and first closer of the rows that are new or in a new state."""
    state = rows.state[where]
    role = rows.role[where]
    # Half-open sockets are a listener's, which may have closed since; one that has an inode is a connect() that
    # crossed the peer's SYN.
    half_open = (state == State.SYN_RCVD) & (sample.inode[where] == 0)
    server = ((listening.lookup(sample, where) >= 0) & (state != State.SYN_SENT)) | half_open
    role = np.where(role == Role.UNKNOWN, np.where(server, Role.SERVER, Role.CLIENT), role)
    role[state == State.LISTEN] = Role.LISTENER
    role[state == State.CLOSED] = Role.UNKNOWN
    rows.role[where] = role
    closer = rows.closer[where]
    told = _FIRST_CLOSER[state]
    # TIME_WAIT is the active closer's, but after CLOSING it was both: it tells only where nothing else did.
    silent = (told == Closer.UNKNOWN) | ((state == State.TIME_WAIT) & (closer != Closer.UNKNOWN))
    rows.closer[where] = np.where(silent, closer, told)


def _serve(rows: Rows, sample: Sample, listening: ListenerKeys) -> None:
    clients = np.flatnonzero((rows.role == Role.CLIENT) & (rows.state != State.SYN_SENT))
    rows.role[clients[listening.lookup(sample, clients) >= 0]] = Role.SERVER


_FIRST_CLOSER = np.zeros(256, np.uint8)
_FIRST_CLOSER[[State.FIN_WAIT_1, State.FIN_WAIT_2, State.TIME_WAIT]] = Closer.LOCAL
_FIRST_CLOSER[[State.CLOSE_WAIT, State.LAST_ACK]] = Closer.PEER
_FIRST_CLOSER[State.CLOSING] = Closer.BOTH


def _closed(before: Rows, gone: NDArray[np.intp], time: float) -> Rows:
    """The rows that are no more, as they were last seen."""
    kept = before.take(gone[:CLOSED_KEPT])
    return replace(kept, time=time, mark=np.full(len(kept), Mark.CLOSED, np.uint8))


def _frozen(rows: Rows) -> Rows:
    for name in ("first_seen", "since", "begin_seen", "role", "closer", "mark"):
        getattr(rows, name).flags.writeable = False
    return rows
