"""Closed flows: the record of each full socket that has ended, from what a step knows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.kernel.netlink.tcp_info import info_fields
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NO_PROCESS
from tcpwatch.model.lifecycle.archive import RECORD
from tcpwatch.model.lifecycle.classify import EndingEvidence, classify
from tcpwatch.model.lifecycle.destroyed_connections import DestroyedConnections
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.poll_changes import PollChanges
from tcpwatch.model.lifecycle.traced_sockets import TRACED_SOCKET
from tcpwatch.model.lifecycle.transitions import Origin
from tcpwatch.model.listeners.listener_keys import NO_LISTENER
from tcpwatch.model.sockets.join import Join
from tcpwatch.model.sockets.owner_registry import OwnerRegistry
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import Role, State
from tcpwatch.sample import Sample, take_rows

_SLACK_S = 0.001
"""Times of the kernel and ours, put together."""


class _Local(NamedTuple):
    """Sockets as Listening.takers wants them."""

    table: NDArray[np.void]
    local_port: NDArray[np.uint16]
    family: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class _Ended:
    """What one step knows of those that ended; the columns are aligned, those that events told of first."""

    polled: PollChanges
    events: DestroyedConnections
    was: NDArray[np.intp]
    """Where each was among the rows before; NOWHERE if no poll had it."""
    lives: NDArray[np.intp]
    """Where it is now, as a small socket."""
    threads: NDArray[np.void]
    """traced.THREAD; all 0, and times NaN, where the trace told nothing."""
    disconnected: NDArray[np.bool_]
    """The kernel had taken its ends: tcp_disconnect()."""


def build_records(
    polled: PollChanges,
    events: DestroyedConnections,
    gone: NDArray[np.intp],
    closed: NDArray[np.void],
    reasons: Mapping[int, str],
    owners: OwnerRegistry,
) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
    """past.CLOSED of each, those of `events` first, and which count as ended: none half-open, nor old TIME_WAITs.

    `events` are those of flows without a record, `gone` the rows of `polled.before` that ended without an event,
    `closed` the traced.THREADs of those that the trace saw close, ascending by cookie, `reasons` the kernel's names of
    resets.
    """
    before, now = polled.previous_join.rows, polled.join.rows
    cookie = np.concatenate((events.cookie, before.cookie[gone]))
    found = np.zeros(len(cookie), RECORD)
    if not len(cookie):
        return found, np.zeros(0, np.bool_)
    found["cookie"] = cookie
    disconnected = np.zeros(len(found), np.bool_)
    disconnected[: len(events.cookie)] = events.disconnected
    was, lives = find_sorted(before.cookie, cookie), find_sorted(now.cookie, cookie)
    ended = _Ended(polled, events, was, lives, _threads_of(cookie, closed), disconnected)
    found["seen"] = (was != NOT_FOUND) | (lives != NOT_FOUND)
    _fill_rows(found, ended)
    _fill_memory(found, ended, owners)
    found["info"][: len(events.cookie)] = events.infos
    found["info_bytes"][: len(events.cookie)] = events.events.info_bytes
    evidence = _evidence(found, ended, owners)
    found["state"] = evidence.state
    found["ending"] = classify(evidence, {name: number for number, name in reasons.items()})
    _fill_vanished(found, polled.sample)
    _fill_times(found, ended)
    half_open = (found["state"] == State.SYN_RCVD) & (found["row"]["idiag_inode"] == 0) & (found["info_bytes"] == 0)
    waited = (found["info_bytes"] == 0) & (found["state"] == State.TIME_WAIT) & np.isnan(found["begin_slack"])
    found["info_bytes"][disconnected] = 0  # tcp_disconnect() has set the figures back
    return found, ~half_open & ~waited


def _threads_of(cookie: NDArray[np.uint64], closed: NDArray[np.void]) -> NDArray[np.void]:
    at = find_sorted(closed["cookie"], cookie)
    threads = np.zeros(len(cookie), TRACED_SOCKET)
    threads["begin"] = threads["closed"] = threads["destroyed"] = np.nan
    there = np.flatnonzero(at != NOT_FOUND)
    threads[there] = take_rows(closed, at[there])
    return threads


def updated_records(
    record: NDArray[np.void], events: DestroyedConnections, closed: NDArray[np.void], reasons: Mapping[int, str]
) -> NDArray[np.void]:
    """Records that were made without an event, with the last figures, which came late; both aligned.

    `closed` and `reasons` as in `records`.
    """
    better = record.copy()
    disconnected = events.disconnected
    better["info"], better["info_bytes"] = events.infos, np.where(disconnected, 0, events.events.info_bytes)
    size, none = len(better), np.zeros(len(better), np.uint8)
    evidence = EndingEvidence(
        state=better["state"],
        remaining_state=none,
        role=better["role"],
        closer=better["closer"],
        queued=better["ending"] == Ending.NOT_ACCEPTED,
        info_known=np.ones(size, np.bool_),
        info=better["info"],
        disconnected=disconnected,
        traced=_threads_of(better["cookie"], closed),
    )
    judgement = classify(evidence, {name: number for number, name in reasons.items()})
    better["ending"] = np.where(judgement != Ending.UNKNOWN, judgement, better["ending"])
    return better


def tcp_info_of(record: np.void) -> dict[str, int] | None:
    """Return the last tcp_info of one archive.CLOSED record, or None where its destroy event had none."""
    told = int(record["info_bytes"])
    return info_fields(record["info"].tobytes()[:told]) if told else None


def _fill_rows(found: NDArray[np.void], ended: _Ended) -> None:
    """The row as it was last seen, else as the event has it, with the ends that the trace knows."""
    row = found["row"]
    row[: len(ended.events.cookie)] = ended.events.table
    for rows, at in ((ended.polled.join.rows, ended.lives), (ended.polled.previous_join.rows, ended.was)):
        known = np.flatnonzero(at != NOT_FOUND)  # the older one was a full socket
        row[known] = take_rows(rows.table, at[known])
    bare = np.flatnonzero((row["idiag_dport"] == 0) & (ended.threads["endpoints"]["dport"] != 0))
    ends = ended.threads["endpoints"][bare]
    for name, told_as in _ENDS.items():
        row[name][bare] = ends[told_as]


_ENDS = {
    "idiag_sport": "sport", "idiag_dport": "dport", "idiag_src": "src", "idiag_dst": "dst", "idiag_family": "family",
}  # fmt: skip


def _fill_memory(found: NDArray[np.void], ended: _Ended, owners: OwnerRegistry) -> None:
    """Role, first closer and owner: what polls remember; of those that none saw, what their listener tells."""
    found["owner"] = UNKNOWN_NO_PROCESS
    for rows, at in ((ended.polled.previous_join.rows, ended.was), (ended.polled.join.rows, ended.lives)):
        known = at != NOT_FOUND
        for name in ("role", "closer"):
            found[name][known] = getattr(rows, name)[at[known]]
        codes = owners.register(rows.owner[at[known]], rows.owners)
        # A small socket is nobody's: who had the full one is remembered.
        found["owner"][known] = np.where(codes >= 0, codes, found["owner"][known])
    unseen = np.flatnonzero(~found["seen"])
    taken, owner = _listened((ended.polled.previous_join, ended.polled.join), take_rows(found["row"], unseen), owners)
    found["role"][unseen] = np.where(taken, Role.SERVER, Role.CLIENT)
    found["owner"][unseen] = owner
    visited = ended.threads["visited"]
    found["role"][visited & (1 << State.SYN_SENT) != 0] = Role.CLIENT
    found["role"][visited & (1 << State.LISTEN) != 0] = Role.SERVER
    _fill_callers(found, ended, owners)


def _fill_callers(found: NDArray[np.void], ended: _Ended, owners: OwnerRegistry) -> None:
    """Who called connect(), of those that no poll has seen with their owner."""
    callers = ended.polled.sample.callers
    at = np.flatnonzero((found["owner"] < 0) & (ended.threads["pid"] > 0))
    if not callers or not len(at):
        return
    distinct, inverse = np.unique(ended.threads["pid"][at], return_inverse=True)
    people = list(callers.values())
    place = {pid: number for number, pid in enumerate(callers)}
    codes = np.array([place.get(pid, UNKNOWN_NO_PROCESS) for pid in distinct.tolist()], np.int32)
    found["owner"][at] = owners.register(codes, people)[inverse]


def _listened(
    samples: Sequence[Join], row: NDArray[np.void], owners: OwnerRegistry
) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Whether a listener in one of these took them, and who holds that."""
    local = _Local(row, row["idiag_sport"].astype(np.uint16), np.ascontiguousarray(row["idiag_family"]))
    taken, owner = np.zeros(len(row), np.bool_), np.full(len(row), UNKNOWN_NO_PROCESS, np.int32)
    for joined in samples:  # a listener may have gone, or have come, meanwhile
        if len(row) and joined.listener_keys.keys:
            taker = joined.listener_keys.lookup(local, np.arange(len(row)))
            of_key = np.full(len(joined.listener_keys.keys) + 1, UNKNOWN_NO_PROCESS, np.int32)
            of_key[joined.listener_keys.key] = owners.register(
                joined.rows.owner[joined.listener_keys.row], joined.rows.owners
            )
            owner = np.where(taker != NO_LISTENER, of_key[taker], owner)
            taken |= taker != NO_LISTENER
    return taken, owner


def _evidence(found: NDArray[np.void], ended: _Ended, owners: OwnerRegistry) -> EndingEvidence:
    old, now = _states(ended.polled.previous_join.rows, ended.was), _states(ended.polled.join.rows, ended.lives)
    last = ended.threads["last"]
    queued = found["seen"] & (found["row"]["idiag_inode"] == 0) & np.isin(old, _OPEN)
    queued[queued] = ~_listened([ended.polled.join], take_rows(found["row"], np.flatnonzero(queued)), owners)[0]
    return EndingEvidence(
        state=np.where(last != 0, last, np.where(old != 0, old, now)).astype(np.uint8),
        remaining_state=np.where(np.isin(now, _SMALL), now, 0).astype(np.uint8),
        role=found["role"],
        closer=found["closer"],
        queued=queued,
        info_known=found["info_bytes"] != 0,
        info=found["info"],
        disconnected=ended.disconnected,
        traced=ended.threads,
    )


_OPEN = (State.ESTABLISHED, State.CLOSE_WAIT)
_SMALL = (State.TIME_WAIT, State.FIN_WAIT_2)


def _states(rows: Rows, at: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Of a connection; CLOSED is none: a socket that is bound still."""
    states = np.zeros(len(at), np.uint8)
    states[at != NOT_FOUND] = rows.state[at[at != NOT_FOUND]]
    return np.where(states == State.CLOSED, 0, states).astype(np.uint8)


def _fill_vanished(found: NDArray[np.void], sample: Sample) -> None:
    """Of request sockets and TIME_WAITs the kernel tells no end: what their last row says."""
    silent = (found["info_bytes"] == 0) & (found["ending"] == Ending.UNKNOWN)
    retries = sample.sysctls.get("tcp_synack_retries")
    if retries is not None:
        repeated = silent & (found["state"] == State.SYN_RCVD) & (found["row"]["idiag_retrans"] >= retries)
        found["ending"][repeated] = Ending.TIMED_OUT
    found["ending"][silent & (found["state"] == State.TIME_WAIT)] = Ending.BY_US


def _fill_times(found: NDArray[np.void], ended: _Ended) -> None:
    sample, earlier, told = ended.polled.sample, ended.polled.previous, len(ended.events.cookie)
    was, lives, threads = ended.was, ended.lives, ended.threads
    offset = sample.time - sample.monotonic
    elapsed_s = ended.polled.elapsed_s
    found["end"], found["end_slack"], found["origin"] = sample.time, elapsed_s, Origin.POLL
    when = np.minimum(ended.events.when, sample.monotonic)
    # It lived when the sample before was begun, or was born since; one that was reset long ago and held is neither.
    slack = (
        np.maximum(when - earlier.begin_monotonic_s if earlier.begin_monotonic_s else when - earlier.monotonic, 0.0)
        + _SLACK_S
    )
    idle_s = found["info"]["tcpi_last_ack_recv"][:told] / 1000.0
    slack[(was[:told] == NOT_FOUND) & (idle_s > slack)] = np.nan
    found["end"][:told], found["end_slack"][:told], found["origin"][:told] = when + offset, slack, Origin.EVENT
    # An application may hold what TCP has done with: in TIME_WAIT for a while, or bound and closed since before a poll.
    before = ended.polled.previous_join.rows
    for state, held_slack in ((State.TIME_WAIT, elapsed_s), (State.CLOSED, np.nan)):
        held = np.flatnonzero(was != NOT_FOUND)
        held = held[before.state[was[held]] == state]
        found["end"][held] = np.minimum(found["end"][held], before.since[was[held]])
        found["end_slack"][held], found["origin"][held] = held_slack, Origin.POLL
    closed = ~np.isnan(threads["closed"])
    found["end"][closed] = threads["closed"][closed] + offset
    found["end_slack"][closed], found["origin"][closed] = 0.0, Origin.TRACE
    found["begin"], found["begin_slack"] = found["end"], found["end_slack"]
    for rows, at in ((ended.polled.join.rows, lives), (ended.polled.previous_join.rows, was)):
        known = np.flatnonzero(at != NOT_FOUND)
        found["begin"][known] = np.minimum(rows.first_seen[at[known]], found["end"][known])
        found["begin_slack"][known] = np.where(rows.begin_seen[at[known]], elapsed_s, np.nan)
    begun = ~np.isnan(threads["begin"])
    found["begin"][begun], found["begin_slack"][begun] = threads["begin"][begun] + offset, 0.0
