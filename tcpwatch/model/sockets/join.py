"""Join: two samples joined by cookie, to find the sockets that opened, closed or changed.

What is remembered of each socket are arrays aligned with the rows of the sample. They are carried from one sample to
the next by a merge of two sorted cookie columns, without a loop over sockets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.model.listeners.listener_keys import ListenerKeys
from tcpwatch.model.sockets.opener import has_proof, roles_by_bytes
from tcpwatch.model.sockets.rows import Mark, Rows
from tcpwatch.model.sockets.throughput import Throughput
from tcpwatch.model.states import Closer, Role, State
from tcpwatch.sample import Sample

CLOSED_KEPT = 2_000
"""Closed sockets in `Join.closed`; beyond it they are only counted."""

UNPROVED_KEPT = 200
"""Sockets in `Join.unproved`."""


@dataclass(frozen=True, slots=True, eq=False)
class Join:
    """The rows of one sample, and what changed since the previous one."""

    rows: Rows
    closed: Rows
    """The first CLOSED_KEPT of the sockets that closed, as they were last seen."""
    ended_cookie: NDArray[np.uint64]
    """Cookies of all sockets that closed."""
    ended_previous: NDArray[np.intp]
    """Their indices in the previous rows."""
    changed: NDArray[np.intp]
    """Rows whose state changed."""
    changed_previous: NDArray[np.intp]
    """Their indices in the previous rows."""
    old_state: NDArray[np.uint8]
    """Their previous states."""
    new: NDArray[np.intp]
    """Rows of new sockets; empty on the first step."""
    unproved: NDArray[np.intp]
    """The first UNPROVED_KEPT rows whose role is unknown or assumed, and whose tcp_info would show it."""
    listener_keys: ListenerKeys


def first(sample: Sample) -> Join:
    """Return the first sample without a previous one: every socket opened at an unknown time."""
    size, none = len(sample.cookie), np.empty(0, np.intp)
    times = np.full(size, sample.time)
    memory = {name: np.zeros(size, np.uint8) for name in ("role", "closer", "mark")}
    rows = _rows(sample, Throughput(), first_seen=times, since=times, begin_seen=np.zeros(size, np.bool_), **memory)
    listening = ListenerKeys.of(sample)
    unproved = _set_role_and_closer(rows, np.arange(size), np.zeros(size, np.bool_), sample, listening)
    return Join(
        rows=_frozen(rows),
        closed=rows.take(none),
        ended_cookie=sample.cookie[:0],
        ended_previous=none,
        changed=none,
        changed_previous=none,
        old_state=sample.state[:0],
        new=none,
        unproved=unproved[has_proof(sample, unproved)][:UNPROVED_KEPT],
        listener_keys=listening,
    )


def join(previous: Join, sample: Sample) -> Join:
    """Return the next sample joined with the previous one."""
    before = previous.rows
    listening = ListenerKeys.of(sample, previous.listener_keys)
    if np.array_equal(before.cookie, sample.cookie) and np.array_equal(before.state, sample.state):
        rows = _rows(sample, before.throughput, **{name: getattr(before, name) for name in REMEMBERED})
        unproved = _still_unproved(previous, rows, _NONE, sample)
        if listening.keys is previous.listener_keys.keys and not has_proof(sample, unproved).any():
            return _nothing_happened(previous, rows, listening)
    known, stays = _shared(sample.cookie, before.cookie)
    fresh = {"first_seen": sample.time, "since": sample.time, "begin_seen": True, "role": 0, "closer": 0}
    memory = {name: _carried(getattr(before, name), stays, known, value) for name, value in fresh.items()}
    states = before.state[stays]
    differs = np.flatnonzero(states != sample.state[known])
    changed, old_state = np.flatnonzero(known)[differs], states[differs]
    new, ended = np.flatnonzero(~known), np.flatnonzero(~stays)
    mark = np.zeros(len(known), np.uint8)
    mark[changed], mark[new] = Mark.CHANGED, Mark.NEW
    memory["since"][changed] = sample.time
    rows = _rows(sample, before.throughput, mark=mark, **memory)
    connected = np.concatenate((old_state == State.CLOSED, np.zeros(len(new), np.bool_)))
    assumed = _set_role_and_closer(rows, np.concatenate((changed, new)), connected, sample, listening)
    unproved = _prove_roles(rows, _still_unproved(previous, rows, assumed, sample), sample)
    before_keys = previous.listener_keys.keys
    if listening.keys is not before_keys and set(listening.keys) - set(
        before_keys
    ):  # a new listener: its connections are a server's
        _set_servers(rows, sample, listening)
    return Join(
        rows=_frozen(rows),
        closed=_closed(before, ended, sample.time),
        ended_cookie=before.cookie[ended],
        ended_previous=ended,
        changed=changed,
        changed_previous=np.flatnonzero(stays)[differs],
        old_state=old_state,
        new=new,
        unproved=unproved,
        listener_keys=listening,
    )


REMEMBERED = ("first_seen", "since", "begin_seen", "role", "closer", "mark")
_NONE = np.empty(0, np.intp)


def _nothing_happened(previous: Join, rows: Rows, listening: ListenerKeys) -> Join:
    """Return the join of two samples with the same sockets in the same states, and nothing new about their roles."""
    mark = rows.mark if not rows.mark.any() else np.zeros(len(rows), np.uint8)
    return Join(
        rows=_frozen(replace(rows, mark=mark)),
        closed=rows.take(_NONE),
        ended_cookie=rows.cookie[:0],
        ended_previous=_NONE,
        changed=_NONE,
        changed_previous=_NONE,
        old_state=rows.state[:0],
        new=_NONE,
        unproved=_NONE,
        listener_keys=listening,
    )


def _shared(cookie: NDArray[np.uint64], other: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which of the first sorted array are in the second, and which of the second are in the first."""
    if np.array_equal(cookie, other):
        return np.ones(len(cookie), np.bool_), np.ones(len(other), np.bool_)
    if not len(cookie) or not len(other):
        return np.zeros(len(cookie), np.bool_), np.zeros(len(other), np.bool_)
    low = min(cookie[0], other[0])
    span = int(max(cookie[-1], other[-1]) - low) + 1
    if span <= _DENSE * (len(cookie) + len(other)):
        # The kernel counts cookies up, so those of a flood are close together and fit into a small table.
        places, other_places = (cookie - low).astype(np.intp), (other - low).astype(np.intp)
        return _marked(other_places, span)[places], _marked(places, span)[other_places]
    at = np.searchsorted(other, cookie)
    at[at == len(other)] = 0
    known = other[at] == cookie
    stays = np.zeros(len(other), np.bool_)
    stays[at[known]] = True
    return known, stays


_DENSE = 8
"""Up to this span per cookie, a table costs less than a binary search."""


def _marked(places: NDArray[np.intp], size: int) -> NDArray[np.bool_]:
    table = np.zeros(size, np.bool_)
    table[places] = True
    return table


def _carried(old: NDArray[Any], stays: NDArray[np.bool_], known: NDArray[np.bool_], fresh: object) -> NDArray[Any]:
    """Return a column for the new rows: the old values of the sockets that stay, `fresh` for the others."""
    kept = old[stays]
    if len(kept) == len(known):
        return kept
    values = np.full(len(known), fresh, old.dtype)
    values[known] = kept
    return values


def _rows(sample: Sample, before: Throughput, **memory: NDArray[Any]) -> Rows:
    return Rows(
        time=sample.time,
        table=sample.table,
        cookie=sample.cookie,
        state=sample.state,
        owner=sample.owner,
        owners=sample.owners,
        users=sample.users,
        interfaces=sample.interfaces,
        throughput=before.after(sample.tcp_info_table),
        **memory,
    )


def _set_role_and_closer(
    rows: Rows, where: NDArray[np.intp], connected: NDArray[np.bool_], sample: Sample, listening: ListenerKeys
) -> NDArray[np.intp]:
    """Set role and first closer of the rows that are new or in a new state. Return those whose role is not proved.

    The state proves the role of a connection that is being opened or waits to be accepted, and tcp_info that of others.
    Without tcp_info, a local end that a listener accepts is a server's. Another connection is taken for a client's if
    it began after the first sample: a listener may have opened, accepted it and closed meanwhile. `connected` are the
    rows of sockets that were bound to a port before, and did not listen.
    """
    state = rows.state[where]
    role = rows.role[where]
    unset = role == Role.UNKNOWN
    by_state = _roles_by_state(sample, where)
    by_state[connected & (by_state == Role.UNKNOWN)] = Role.CLIENT
    asked = np.flatnonzero(unset & (by_state == Role.UNKNOWN))
    by_bytes, matched = np.zeros(len(where), np.uint8), np.zeros(len(where), np.bool_)
    by_bytes[asked] = roles_by_bytes(sample, where[asked])
    matched[asked] = listening.lookup(sample, where[asked]) >= 0
    # In SYN_RCVD a full socket comes from a connect() in a simultaneous open, or was accepted with TCP Fast Open.
    calls = rows.begin_seen[where] | (state == State.SYN_RCVD)
    otherwise = np.where(matched, Role.SERVER, np.where(calls, Role.CLIENT, Role.UNKNOWN))
    found = np.where(by_state != Role.UNKNOWN, by_state, np.where(by_bytes != Role.UNKNOWN, by_bytes, otherwise))
    role = np.where(unset, found, role)
    role[state == State.LISTEN] = Role.LISTENER
    role[state == State.CLOSED] = Role.UNKNOWN
    rows.role[where] = role
    _set_closer(rows, where)
    unproved: NDArray[np.intp] = where[asked[(by_bytes[asked] == Role.UNKNOWN) & ~matched[asked]]]
    return unproved


def _roles_by_state(sample: Sample, where: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Return the roles that state and inode prove; UNKNOWN for the other rows."""
    state = sample.state[where]
    no_inode = sample.inode[where] == 0
    roles = np.zeros(len(where), np.uint8)
    # A half-open socket belongs to a listener, which may be closed by now.
    roles[(state == State.SYN_RCVD) & no_inode] = Role.SERVER
    roles[state == State.SYN_SENT] = Role.CLIENT
    if sample.capabilities.inodes:  # it waits to be accepted
        roles[((state == State.ESTABLISHED) | (state == State.CLOSE_WAIT)) & no_inode] = Role.SERVER
    return roles


def _still_unproved(previous: Join, rows: Rows, assumed: NDArray[np.intp], sample: Sample) -> NDArray[np.intp]:
    """Return the rows whose role is still to be proved; `assumed` are the new ones of this step."""
    has_infos = sample.tcp_info_table is not None
    unknown = np.flatnonzero(rows.role == Role.UNKNOWN) if has_infos else assumed[:0]
    earlier = find_sorted(rows.cookie, previous.rows.cookie[previous.unproved])
    return np.unique(np.concatenate((unknown, earlier[earlier != NOT_FOUND], assumed)))


def _prove_roles(rows: Rows, unproved: NDArray[np.intp], sample: Sample) -> NDArray[np.intp]:
    """Set the roles that tcp_info shows now, and return the first of the rows whose role is still not proved."""
    unproved = unproved[has_proof(sample, unproved)]
    role = roles_by_bytes(sample, unproved)
    rows.role[unproved[role != Role.UNKNOWN]] = role[role != Role.UNKNOWN]
    remaining: NDArray[np.intp] = unproved[role == Role.UNKNOWN][:UNPROVED_KEPT]
    return remaining


def _set_closer(rows: Rows, where: NDArray[np.intp]) -> None:
    state = rows.state[where]
    closer = rows.closer[where]
    first_closer = _FIRST_CLOSER[state]
    # TIME_WAIT follows an active close, or CLOSING, where both sides closed: it does not replace a known closer.
    unknown = (first_closer == Closer.UNKNOWN) | ((state == State.TIME_WAIT) & (closer != Closer.UNKNOWN))
    rows.closer[where] = np.where(unknown, closer, first_closer)


def _set_servers(rows: Rows, sample: Sample, listening: ListenerKeys) -> None:
    others = np.flatnonzero(((rows.role == Role.CLIENT) | (rows.role == Role.UNKNOWN)) & _ACCEPTED[rows.state])
    served = others[listening.lookup(sample, others) >= 0]
    rows.role[served[roles_by_bytes(sample, served) != Role.CLIENT]] = Role.SERVER


_ACCEPTED = np.ones(256, np.bool_)
_ACCEPTED[[State.LISTEN, State.SYN_SENT, State.CLOSED]] = False
"""Whether a socket in this state may be a listener's."""


_FIRST_CLOSER = np.zeros(256, np.uint8)
_FIRST_CLOSER[[State.FIN_WAIT_1, State.FIN_WAIT_2, State.TIME_WAIT]] = Closer.LOCAL
_FIRST_CLOSER[[State.CLOSE_WAIT, State.LAST_ACK]] = Closer.PEER
_FIRST_CLOSER[State.CLOSING] = Closer.BOTH


def _closed(before: Rows, ended: NDArray[np.intp], time: float) -> Rows:
    """Return the rows of sockets that closed, as they were last seen."""
    kept = before.take(ended[:CLOSED_KEPT])
    return replace(kept, time=time, mark=np.full(len(kept), Mark.CLOSED, np.uint8))


def _frozen(rows: Rows) -> Rows:
    for name in REMEMBERED:
        getattr(rows, name).flags.writeable = False
    return rows
