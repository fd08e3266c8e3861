"""Records of connections that ended, built from one step's polls, destroy events and trace events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.arrays.opaque_rows import take_rows
from tcpwatch.kernel.netlink.tcp_info import info_fields
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NO_PROCESS, UNKNOWN_NOT_LOOKED
from tcpwatch.model.lifecycle.archive import RECORD
from tcpwatch.model.lifecycle.classify import EndingEvidence, classify
from tcpwatch.model.lifecycle.control_bytes import control_bytes
from tcpwatch.model.lifecycle.destroyed_connections import DestroyedConnections
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.poll_changes import PollChanges
from tcpwatch.model.lifecycle.trace.traced_sockets import TRACED_SOCKET
from tcpwatch.model.lifecycle.transitions import Origin
from tcpwatch.model.listeners.acceptors import accepted_owners
from tcpwatch.model.listeners.key_index import LocalEndpoints
from tcpwatch.model.listeners.listener_keys import NO_LISTENER
from tcpwatch.model.sockets.join import Join
from tcpwatch.model.sockets.owner_registry import OwnerRegistry
from tcpwatch.model.sockets.payload import less
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import SMALL_SOCKET_STATES, Role, State
from tcpwatch.sample import Sample

_SLACK_S = 0.001
"""Error from combining the kernel's clock with ours."""


@dataclass(frozen=True, slots=True, eq=False)
class _Ended:
    """Facts of the connections that ended in one step, as aligned columns; those with a destroy event come first."""

    changes: PollChanges
    events: DestroyedConnections
    previous: NDArray[np.intp]
    """Index among the rows of the previous poll, or NOT_FOUND."""
    present: NDArray[np.intp]
    """Index among the present rows, as a small socket, or NOT_FOUND."""
    sockets: NDArray[np.void]
    """TRACED_SOCKET; all 0, and times NaN, where there is no trace of it."""
    disconnected: NDArray[np.bool_]
    """tcp_disconnect() removed its endpoints."""

    @property
    def polls(self) -> tuple[tuple[Rows, NDArray[np.intp]], ...]:
        """The rows of the previous and of the present poll, with the indices into them."""
        return (self.changes.previous_join.rows, self.previous), (self.changes.join.rows, self.present)


def build_records(
    changes: PollChanges,
    events: DestroyedConnections,
    vanished: NDArray[np.intp],
    closed: NDArray[np.void],
    reasons: Mapping[int, str],
    owners: OwnerRegistry,
) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
    """Return an archive.RECORD per connection that ended, and which of them count as ended connections.

    `events` are destroy events without a record so far; their records come first. `vanished` are rows of the previous
    poll that ended without an event. `closed` are the TRACED_SOCKETs that the trace saw close, ascending by cookie.
    `reasons` are the kernel's names of reset reasons. Half-open connections, and TIME_WAITs from before the first
    poll, do not count.
    """
    before, now = changes.previous_join.rows, changes.join.rows
    cookie = np.concatenate((events.cookie, before.cookie[vanished]))
    records = np.zeros(len(cookie), RECORD)
    if not len(cookie):
        return records, np.zeros(0, np.bool_)
    records["cookie"] = cookie
    disconnected = np.zeros(len(records), np.bool_)
    disconnected[: len(events.cookie)] = events.disconnected
    previous, present = find_sorted(before.cookie, cookie), find_sorted(now.cookie, cookie)
    ended = _Ended(changes, events, previous, present, _sockets_of(cookie, closed), disconnected)
    records["seen"] = (previous != NOT_FOUND) | (present != NOT_FOUND)
    _fill_rows(records, ended)
    _fill_role_and_owner(records, ended, owners)
    records["info"][: len(events.cookie)] = events.infos
    records["info_bytes"][: len(events.cookie)] = events.events.info_bytes
    evidence = _evidence(records, ended, owners)
    records["state"] = evidence.state
    records["ending"] = classify(evidence, {name: number for number, name in reasons.items()})
    unread = np.zeros(len(records), np.int64)
    unread[: len(events.cookie)] = events.table["idiag_rqueue"]
    _fill_control_bytes(records, evidence, unread, events.events.info_bytes)
    _fill_endings_without_event(records, changes.sample)
    _fill_times(records, ended)
    no_info = records["info_bytes"] == 0
    half_open = (records["state"] == State.SYN_RCVD) & (records["row"]["idiag_inode"] == 0) & no_info
    old_time_wait = no_info & (records["state"] == State.TIME_WAIT) & np.isnan(records["begin_slack"])
    records["info_bytes"][disconnected] = 0  # tcp_disconnect() has reset the figures
    return records, ~half_open & ~old_time_wait


def _sockets_of(cookie: NDArray[np.uint64], closed: NDArray[np.void]) -> NDArray[np.void]:
    at = find_sorted(closed["cookie"], cookie)
    sockets = np.zeros(len(cookie), TRACED_SOCKET)
    sockets["begin"] = sockets["closed"] = sockets["destroyed"] = np.nan
    traced = np.flatnonzero(at != NOT_FOUND)
    sockets[traced] = take_rows(closed, at[traced])
    return sockets


def updated_records(
    records: NDArray[np.void], events: DestroyedConnections, closed: NDArray[np.void], reasons: Mapping[int, str]
) -> NDArray[np.void]:
    """Return `records` with the tcp_info and the ending that their late destroy events add; both are aligned.

    `closed` and `reasons` are those of `build_records`.
    """
    updated = records.copy()
    disconnected = events.disconnected
    updated["info"], updated["info_bytes"] = events.infos, np.where(disconnected, 0, events.events.info_bytes)
    evidence = EndingEvidence(
        state=updated["state"],
        remaining_state=np.zeros(len(updated), np.uint8),
        role=updated["role"],
        closer=updated["closer"],
        queued=updated["ending"] == Ending.NOT_ACCEPTED,
        info_known=np.ones(len(updated), np.bool_),
        info=updated["info"],
        when=events.when,
        disconnected=disconnected,
        traced=_sockets_of(updated["cookie"], closed),
    )
    ending = classify(evidence, {name: number for number, name in reasons.items()})
    updated["ending"] = np.where(ending != Ending.UNKNOWN, ending, updated["ending"])
    unread = events.table["idiag_rqueue"].astype(np.int64)
    _fill_control_bytes(updated, evidence, unread, events.events.info_bytes)
    return updated


def _fill_control_bytes(
    records: NDArray[np.void], evidence: EndingEvidence, unread: NDArray[np.int64], info_bytes: int
) -> None:
    control = control_bytes(evidence, records["ending"], unread, info_bytes)
    records["control_received"], records["control_acked"] = control


def tcp_info_of(record: np.void) -> dict[str, int] | None:
    """Return the last tcp_info of one archive.RECORD, or None where its destroy event had none.

    bytes_received and bytes_acked are bytes of data, without SYN and FIN.
    """
    size = int(record["info_bytes"])
    if not size:
        return None
    info = info_fields(record["info"].tobytes()[:size])
    return {**info, **less(info, int(record["control_received"]), int(record["control_acked"]))}


def payload_of_records(records: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the bytes of data that each archive.RECORD's connection received, and that were acknowledged."""
    info = records["info"]
    return (
        info["tcpi_bytes_received"].astype(np.int64) - records["control_received"],
        info["tcpi_bytes_acked"].astype(np.int64) - records["control_acked"],
    )


def _fill_rows(records: NDArray[np.void], ended: _Ended) -> None:
    """Fill the row of the last poll, or else of the event, with endpoints from the trace where they are missing."""
    row = records["row"]
    row[: len(ended.events.cookie)] = ended.events.table
    for rows, at in reversed(ended.polls):  # the previous poll last: it had the full socket
        known = np.flatnonzero(at != NOT_FOUND)
        row[known] = take_rows(rows.table, at[known])
    bare = np.flatnonzero((row["idiag_dport"] == 0) & (ended.sockets["endpoints"]["dport"] != 0))
    endpoints = ended.sockets["endpoints"][bare]
    for name, trace_name in _ENDPOINT_FIELDS.items():
        row[name][bare] = endpoints[trace_name]


_ENDPOINT_FIELDS = {
    "idiag_sport": "sport", "idiag_dport": "dport", "idiag_src": "src", "idiag_dst": "dst", "idiag_family": "family",
}  # fmt: skip


def _fill_role_and_owner(records: NDArray[np.void], ended: _Ended, owners: OwnerRegistry) -> None:
    """Fill role, first closer and owner from polls, or else from the listener that accepted the connection.

    An unknown owner keeps its reason. That of a connection that no poll saw was not looked up.
    """
    records["owner"] = np.where(records["seen"], UNKNOWN_NO_PROCESS, UNKNOWN_NOT_LOOKED)
    for rows, at in ended.polls:
        known = at != NOT_FOUND
        for name in ("role", "closer"):
            records[name][known] = getattr(rows, name)[at[known]]
        codes = owners.register(rows.owner[at[known]], rows.owners)
        # A small socket has no process: keep the one of the full socket, or why that is unknown.
        is_better = (codes >= 0) | ((records["owner"][known] < 0) & (codes != UNKNOWN_NO_PROCESS))
        records["owner"][known] = np.where(is_better, codes, records["owner"][known])
    unseen = np.flatnonzero(~records["seen"])
    joins = (ended.changes.previous_join, ended.changes.join)
    accepted, owner = _listened(joins, take_rows(records["row"], unseen), owners)
    records["role"][unseen] = np.where(accepted, Role.SERVER, Role.CLIENT)
    records["owner"][unseen] = owner
    visited = ended.sockets["visited"]
    records["role"][visited & (1 << State.SYN_SENT) != 0] = Role.CLIENT
    records["role"][visited & (1 << State.LISTEN) != 0] = Role.SERVER
    _fill_callers(records, ended, owners)


def _fill_callers(records: NDArray[np.void], ended: _Ended, owners: OwnerRegistry) -> None:
    """Fill the process that called connect(), where no poll saw the owner."""
    callers = ended.changes.sample.callers
    at = np.flatnonzero((records["owner"] < 0) & (ended.sockets["pid"] > 0))
    if not callers or not len(at):
        return
    distinct, inverse = np.unique(ended.sockets["pid"][at], return_inverse=True)
    place = {pid: number for number, pid in enumerate(callers)}
    codes = np.array([place.get(pid, UNKNOWN_NOT_LOOKED) for pid in distinct.tolist()], np.int32)
    caller = owners.register(codes, list(callers.values()))[inverse]
    records["owner"][at] = np.where(caller >= 0, caller, records["owner"][at])


def _listened(
    joins: Sequence[Join], row: NDArray[np.void], owners: OwnerRegistry
) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Return which of these uapi.SOCKET rows a listener in one of `joins` accepted, and the owner of that listener."""
    local = LocalEndpoints(row, row["idiag_sport"].astype(np.uint16), np.ascontiguousarray(row["idiag_family"]))
    accepted, owner = np.zeros(len(row), np.bool_), np.full(len(row), UNKNOWN_NOT_LOOKED, np.int32)
    for joined in joins:  # a listener may have closed or opened between them
        keys = joined.listener_keys
        if len(row) and keys.keys:
            key = keys.lookup(local, np.arange(len(row)))
            owner_of_key = owners.register(*accepted_owners(joined))
            owner = np.where(key != NO_LISTENER, owner_of_key[key], owner)
            accepted |= key != NO_LISTENER
    return accepted, owner


def _evidence(records: NDArray[np.void], ended: _Ended, owners: OwnerRegistry) -> EndingEvidence:
    old, now = (_states(rows, at) for rows, at in ended.polls)
    last = ended.sockets["last_state"]
    queued = records["seen"] & (records["row"]["idiag_inode"] == 0) & np.isin(old, _OPEN)
    queued[queued] = ~_listened([ended.changes.join], take_rows(records["row"], np.flatnonzero(queued)), owners)[0]
    return EndingEvidence(
        state=np.where(last != 0, last, np.where(old != 0, old, now)).astype(np.uint8),
        remaining_state=np.where(np.isin(now, SMALL_SOCKET_STATES), now, 0).astype(np.uint8),
        role=records["role"],
        closer=records["closer"],
        queued=queued,
        info_known=records["info_bytes"] != 0,
        info=records["info"],
        when=np.append(ended.events.when, np.zeros(len(records) - len(ended.events.cookie))),
        disconnected=ended.disconnected,
        traced=ended.sockets,
    )


_OPEN = (State.ESTABLISHED, State.CLOSE_WAIT)


def _states(rows: Rows, at: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Return the states of connections; 0 for CLOSED: a socket that is still bound."""
    states = np.zeros(len(at), np.uint8)
    states[at != NOT_FOUND] = rows.state[at[at != NOT_FOUND]]
    return np.where(states == State.CLOSED, 0, states).astype(np.uint8)


def _fill_endings_without_event(records: NDArray[np.void], sample: Sample) -> None:
    """Fill the endings of request sockets and TIME_WAITs, which have no destroy event, from their last rows."""
    open_question = (records["info_bytes"] == 0) & (records["ending"] == Ending.UNKNOWN)
    retries = sample.sysctls.get("tcp_synack_retries")
    if retries is not None:
        exhausted = (records["state"] == State.SYN_RCVD) & (records["row"]["idiag_retrans"] >= retries)
        records["ending"][open_question & exhausted] = Ending.TIMED_OUT
    records["ending"][open_question & (records["state"] == State.TIME_WAIT)] = Ending.BY_US


def _fill_times(records: NDArray[np.void], ended: _Ended) -> None:
    """Fill begin and end: from polls, then from destroy events, then from the trace, which is exact."""
    sample, elapsed_s = ended.changes.sample, ended.changes.elapsed_s
    previous, sockets, events = ended.previous, ended.sockets, len(ended.events.cookie)
    offset = sample.time - sample.monotonic
    records["end"], records["end_slack"], records["origin"] = sample.time, elapsed_s, Origin.POLL
    received, slack = _event_times(records, ended)
    records["end"][:events], records["end_slack"][:events] = received + offset, slack
    records["origin"][:events] = Origin.EVENT
    # An application may hold a socket after TCP closed it: in TIME_WAIT for a while, or bound and CLOSED.
    before = ended.changes.previous_join.rows
    for state, held_slack in ((State.TIME_WAIT, elapsed_s), (State.CLOSED, np.nan)):
        held = np.flatnonzero(previous != NOT_FOUND)
        held = held[before.state[previous[held]] == state]
        records["end"][held] = np.minimum(records["end"][held], before.since[previous[held]])
        records["end_slack"][held], records["origin"][held] = held_slack, Origin.POLL
    closed = ~np.isnan(sockets["closed"])
    records["end"][closed] = sockets["closed"][closed] + offset
    records["end_slack"][closed], records["origin"][closed] = 0.0, Origin.TRACE
    records["begin"], records["begin_slack"] = records["end"], records["end_slack"]
    for rows, at in reversed(ended.polls):
        known = np.flatnonzero(at != NOT_FOUND)
        records["begin"][known] = np.minimum(rows.first_seen[at[known]], records["end"][known])
        records["begin_slack"][known] = np.where(rows.begin_seen[at[known]], elapsed_s, np.nan)
    begun = ~np.isnan(sockets["begin"])
    records["begin"][begun], records["begin_slack"][begun] = sockets["begin"][begun] + offset, 0.0


def _event_times(records: NDArray[np.void], ended: _Ended) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the monotonic times of the destroy events, and their slack.

    A connection was open when the previous sample began, or opened after that, so it did not end before that. NaN where
    neither is true: the connection was reset long ago, and an application held the socket.
    """
    sample, earlier, events = ended.changes.sample, ended.changes.previous, len(ended.events.cookie)
    received = np.minimum(ended.events.when, sample.monotonic)
    slack = np.maximum(received - (earlier.begin_monotonic_s or earlier.monotonic), 0.0) + _SLACK_S
    idle_s = records["info"]["tcpi_last_ack_recv"][:events] / 1000.0
    slack[(ended.previous[:events] == NOT_FOUND) & (idle_s > slack)] = np.nan
    return received, slack
