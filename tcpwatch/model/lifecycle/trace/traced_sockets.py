"""TracedSockets: trace events grouped by socket, and matched to the cookies of this network namespace.

The trace identifies a socket by its kernel address and covers all network namespaces. Its last event, tcp_destroy_sock,
has the cookie: if a sample or a destroy event has the same one, the socket is ours. A socket that still exists is
matched by its endpoints to the sockets of the next two polls, which also finds connections that are older than the
trace. If two sockets of the trace have the same endpoints (in two namespaces), or two polled ones (on two devices),
none of them is matched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted, is_in_sorted
from tcpwatch.arrays.opaque_rows import concat_rows, take_rows
from tcpwatch.config.memory import BUDGET
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind
from tcpwatch.model.lifecycle.trace.errors import event_sockets
from tcpwatch.model.lifecycle.trace.polled_sockets import PolledSockets
from tcpwatch.model.sockets.endpoint_hashes import endpoint_pair_hashes
from tcpwatch.model.states import State

TRACED_SOCKET = np.dtype(
    [
        ("socket", "=u8"),
        ("cookie", "=u8"),
        ("begin", "=f8"),
        ("closed", "=f8"),
        ("destroyed", "=f8"),
        ("latest_event", "=f8"),
        ("endpoints", TRACE_EVENT),
        ("pid", "=i4"),
        ("visited", "=u2"),
        ("retransmitted", "=u2"),
        ("reset_reason", "=u2"),
        ("error", "=u2"),
        ("last_state", "u1"),
        ("reset_in_state", "u1"),
        ("reset_received", "?"),
        ("no_port", "?"),
    ]
)
"""One row per socket of the trace, built from its events so far.

begin: time of connect(), or of the last ACK of the handshake of an accepted connection.
closed, destroyed: times of the change to CLOSE and of tcp_destroy_sock. NaN where no event reported it.
latest_event: time of the last event.
endpoints: an event that has both endpoints, or else the remote one; all 0 if none has.
pid: the thread that called connect(); 0 for none.
visited: bit n is set if the socket was in state n.
reset_reason, reset_in_state: of the last reset that it sent: why, and the state that it was in then; 0 for none.
error: the errno that the application received; 0 for none.
last_state: the state before CLOSE, or the present one.
no_port: it went from SYN_SENT to CLOSE without a local port: connect() found none (__inet_hash_connect in
net/ipv4/inet_hashtables.c), and failed before it sent a SYN.
"""

KEPT_EVENTS = BUDGET.unmatched
"""Events of unmatched sockets that are kept, since a later poll or destroy event may match them."""
MATCH_TIMEOUT_S = 1.0
"""How long after tcp_destroy_sock a destroy event or a poll may still match a socket."""
HURRIED_S = 0.4
"""The same while there are more than KEPT_EVENTS: destroy events are mostly some milliseconds late."""

_NOT_A_CONNECTION = (0, State.LISTEN, State.TIME_WAIT, 12)
"""States of sockets that send resets and are not the full socket of a connection; 12 is NEW_SYN_RECV."""
_OF_CONNECTIONS = (
    TraceEventKind.DESTROYED,
    TraceEventKind.RETRANSMIT,
    TraceEventKind.RESET_RECEIVED,
    TraceEventKind.ERROR,
)

Membership = Callable[[NDArray[np.uint64]], NDArray[np.bool_]]
SocketsWithPorts = Callable[[NDArray[np.uint16], NDArray[np.uint16], bool], PolledSockets]
"""polled_sockets.sockets_with_ports"""


class TraceStep(NamedTuple):
    """The result of one step."""

    events: NDArray[np.void]
    """TRACE_EVENTs of our sockets with their cookies; those of one socket are in the order of time."""
    ended: NDArray[np.void]
    """TRACED_SOCKETs of ours that were destroyed, sorted by cookie."""
    closed: NDArray[np.void]
    """TRACED_SOCKETs of ours that are closed and not yet destroyed, sorted by cookie; repeated in each step."""
    foreign_sockets: int
    """Sockets found in this step to be of another namespace."""
    unmatched_sockets: int
    """Sockets unmatched for longer than MATCH_TIMEOUT_S: of another namespace, or with unknown endpoints."""
    dropped_events: int = 0
    """Recent events of unmatched sockets that were too many to be kept."""


class TracedSockets:
    """Follows sockets from step to step."""

    def __init__(self) -> None:
        self._unmatched = np.empty(0, TRACE_EVENT)
        """Events of unmatched sockets, sorted by socket and time."""
        self._known = np.empty(0, TRACED_SOCKET)
        """Our sockets that are not destroyed, sorted by kernel address."""
        self._steps = (-np.inf, -np.inf)
        """Times of the last two steps."""

    @property
    def idle(self) -> bool:
        """Whether no socket is closed and not destroyed, and none is unmatched."""
        return not len(self._unmatched) and not len(self._closed())

    def steps(
        self,
        events: NDArray[np.void],
        now: float,
        ours: Membership,
        polled: SocketsWithPorts,
        destroyed_until: float = -np.inf,
    ) -> Iterator[TraceStep]:
        """Add the events of one poll, part by part, so that the working memory is bounded; parameters as for `step`."""
        sockets = event_sockets(events)  # an error and its change of state may be in two parts
        for part in _parts(np.ascontiguousarray(events["time"])):
            some = events[part].copy()
            some["socket"] = sockets[part]
            yield self.step(some, now, ours, polled if part.stop == len(events) else None, destroyed_until)

    def step(
        self,
        events: NDArray[np.void],
        now: float,
        ours: Membership,
        polled: SocketsWithPorts | None,
        destroyed_until: float = -np.inf,
    ) -> TraceStep:
        """Add events (TRACE_EVENT, in the order of time); `now` is monotonic.

        `ours` returns which cookies belong to this namespace, by the destroy events until `destroyed_until` and by the
        polls. `polled` returns sockets of the present poll; sockets of the trace that have no cookie yet are matched to
        them by their endpoints. It is None if more events of the same poll follow in another call.
        """
        since = self._steps[0]
        if polled is not None:
            self._steps = self._steps[1], now
        events = concat_rows((self._unmatched, self._of_connections(events))) if len(events) else self._unmatched
        if not len(events):
            return TraceStep(events, self._known[:0], self._closed(), 0, 0)
        events = take_rows(events, np.argsort(events["socket"], kind="stable"))
        start = _starts(events)
        sockets = _summarised(events, start)
        known = self._continued(sockets, events[start])
        unnamed = np.flatnonzero((sockets["cookie"] == 0) & (sockets["endpoints"]["sport"] != 0))
        # A socket of ours that had an event is in this poll or in the next one.
        if polled is not None and len(unnamed) and (sockets["latest_event"][unnamed] > since).any():
            cookies = _cookies_by_endpoints(take_rows(sockets, unnamed), since, polled)
            cookies[np.isin(cookies, self._known["cookie"]) | np.isin(cookies, sockets["cookie"])] = 0  # taken
            sockets["cookie"][unnamed] = cookies
        matched = (sockets["cookie"] != 0) & (known | ours(sockets["cookie"]))
        destroyed = ~np.isnan(sockets["destroyed"])
        lost = ~matched & destroyed & (sockets["destroyed"] < now - MATCH_TIMEOUT_S)
        of_event = np.repeat(np.arange(len(sockets)), np.diff(np.append(start, len(events))))
        if np.count_nonzero(~(matched | lost)[of_event]) > KEPT_EVENTS:
            lost |= ~matched & destroyed & (sockets["destroyed"] < destroyed_until - HURRIED_S)
        waiting = ~matched & ~lost
        own_events = take_rows(events, np.flatnonzero(matched[of_event]))
        own_events["cookie"] = sockets["cookie"][of_event[matched[of_event]]]
        self._unmatched = take_rows(events, np.flatnonzero(waiting[of_event]))
        dropped = 0
        if len(self._unmatched) > KEPT_EVENTS:
            recent = int(np.count_nonzero(self._unmatched["time"] > since))
            self._unmatched = self._newest(self._unmatched)
            dropped = max(0, recent - len(self._unmatched))
        alive = take_rows(sockets, np.flatnonzero(matched & ~destroyed))
        stay = np.flatnonzero(~np.isin(self._known["socket"], sockets["socket"][matched]))
        kept = concat_rows((take_rows(self._known, stay), alive))
        self._known = take_rows(kept, np.argsort(kept["socket"], kind="stable"))
        return TraceStep(
            own_events,
            sort_traced_sockets(take_rows(sockets, np.flatnonzero(matched & destroyed))),
            self._closed(),
            int(np.count_nonzero(lost)),
            int(np.count_nonzero(waiting & (events["time"][start] < now - MATCH_TIMEOUT_S))),
            dropped,
        )

    def forget(self, cookies: NDArray[np.uint64]) -> None:
        """Keep at most BUDGET.known open sockets beside those of the poll, whose ascending cookies are given.

        One whose last event was lost would be kept for ever.
        """
        if len(self._known) <= BUDGET.known + len(cookies):
            return
        others = np.flatnonzero(~is_in_sorted(cookies, self._known["cookie"]))
        oldest = others[np.argsort(self._known["latest_event"][others])][: -BUDGET.known or None]
        self._known = take_rows(self._known, np.delete(np.arange(len(self._known)), oldest))

    def _closed(self) -> NDArray[np.void]:
        return sort_traced_sockets(take_rows(self._known, np.flatnonzero(~np.isnan(self._known["closed"]))))

    def _of_connections(self, events: NDArray[np.void]) -> NDArray[np.void]:
        """Return the events of connections' own sockets, without listeners and segments that match no socket."""
        kind, old, new = (np.ascontiguousarray(events[name]) for name in ("kind", "old", "new"))
        socket = event_sockets(events)
        listens = (new == State.LISTEN) | ((old == State.LISTEN) & (new == State.CLOSED))
        wanted = np.isin(kind, _OF_CONNECTIONS) | ((kind == TraceEventKind.STATE) & ~listens)
        wanted |= (kind == TraceEventKind.RESET_SENT) & ~np.isin(old, _NOT_A_CONNECTION)
        dropped = np.flatnonzero(kind == TraceEventKind.DROP)
        wanted[dropped] = np.isin(socket[dropped], np.concatenate((self._known["socket"], socket[wanted])))
        taken = np.flatnonzero(wanted & (socket != 0))
        events = take_rows(events, taken)
        events["socket"] = socket[taken]
        return events

    def _continued(self, sockets: NDArray[np.void], opening: NDArray[np.void]) -> NDArray[np.bool_]:
        """Add the facts of earlier steps to `sockets`; return which were known. `opening` are their first events."""
        known = np.zeros(len(sockets), np.bool_)
        if not len(self._known):
            return known
        at = np.searchsorted(self._known["socket"], sockets["socket"])
        at[at == len(self._known)] = 0
        begins = (opening["kind"] == TraceEventKind.STATE) & np.isin(opening["old"], (State.CLOSED, State.LISTEN))
        # A closed socket may be connected again. Otherwise the kernel address was reused, and the event of the end of
        # its previous owner was lost.
        again = (opening["old"] == State.CLOSED) & ~np.isnan(self._known["closed"][at])
        # Earlier events belong to an unmatched socket that had this address before.
        later = opening["time"] > self._known["latest_event"][at]
        same = (self._known["socket"][at] == sockets["socket"]) & later
        known[:] = same & (~begins | again)
        known[1:] &= (sockets["socket"][1:] != sockets["socket"][:-1]) | ~same[:-1]
        sockets["cookie"][known] = self._known["cookie"][at[known]]
        ours = known.copy()
        known &= np.isnan(sockets["begin"])  # a socket that was connected again starts anew
        old = self._known[at[known]]
        for name in ("begin", "pid"):
            sockets[name][known] = old[name]
        sockets["closed"][known] = np.fmin(sockets["closed"][known], old["closed"])
        sockets["visited"][known] |= old["visited"]
        sockets["retransmitted"][known] += old["retransmitted"]
        for name in ("reset_received", "no_port"):
            sockets[name][known] |= old[name]
        sockets["error"][known] = np.maximum(sockets["error"][known], old["error"])
        for name, where in (
            ("last_state", "last_state"),
            ("reset_reason", "reset_in_state"),
            ("reset_in_state", "reset_in_state"),
        ):
            empty = known.copy()
            empty[known] = sockets[where][known] == 0
            sockets[name][empty] = old[name][empty[known]]
        bare = known.copy()
        bare[known] = (sockets["endpoints"]["sport"][known] == 0) & (old["endpoints"]["dport"] != 0)
        sockets["endpoints"][bare] = old["endpoints"][bare[known]]
        return ours

    @staticmethod
    def _newest(events: NDArray[np.void]) -> NDArray[np.void]:
        latest = np.sort(np.argpartition(events["time"], -KEPT_EVENTS // 2)[-KEPT_EVENTS // 2 :])
        return take_rows(events, latest)


def _parts(time: NDArray[np.float64]) -> Iterator[slice]:
    """Yield parts of ascending times, at least one; equal times are in one part."""
    begin, end = 0, -1
    while end < len(time):
        cut = begin + BUDGET.slice
        end = len(time) if cut >= len(time) else int(np.searchsorted(time, time[cut - 1], "right"))
        yield slice(begin, end)
        begin = end


def _starts(events: NDArray[np.void]) -> NDArray[np.intp]:
    """Return where the events of each socket begin: at another address, and after a socket was destroyed."""
    socket, kind = np.ascontiguousarray(events["socket"]), np.ascontiguousarray(events["kind"])
    destroyed, reset = kind == TraceEventKind.DESTROYED, kind == TraceEventKind.RESET_SENT
    # The reset that answers data for a closed socket may come after its tcp_destroy_sock.
    last = destroyed.copy()
    last[:-1] &= ~(reset[1:] & (socket[1:] == socket[:-1]))
    last[1:] |= reset[1:] & destroyed[:-1] & (socket[1:] == socket[:-1])
    return np.flatnonzero(np.append(True, (socket[1:] != socket[:-1]) | last[:-1]))


def _summarised(events: NDArray[np.void], start: NDArray[np.intp]) -> NDArray[np.void]:
    """Return one TRACED_SOCKET per run of events that begins at `start`."""
    sockets = np.zeros(len(start), TRACED_SOCKET)
    kind, time, old, new = (np.ascontiguousarray(events[name]) for name in ("kind", "time", "old", "new"))
    place = np.arange(len(events))
    opening = (kind == TraceEventKind.STATE) & ((old == State.CLOSED) | (old == State.LISTEN))
    opened = np.maximum.reduceat(np.where(opening, place, -1), start)
    # A socket may be connected again after a refusal or tcp_disconnect(): only its last connection counts.
    current = place >= np.repeat(opened, np.diff(np.append(start, len(events))))
    by_connect = (opened >= 0) & (old[opened] == State.CLOSED)
    sockets["pid"] = np.where(by_connect, events["pid"][opened], 0)
    state, sent = (kind == TraceEventKind.STATE) & current, (kind == TraceEventKind.RESET_SENT) & current
    closing = state & (new == State.CLOSED)
    sockets["socket"] = events["socket"][start]
    sockets["cookie"] = np.maximum.reduceat(events["cookie"], start)
    for name, where in (
        ("begin", opening & current),
        ("closed", closing),
        ("destroyed", kind == TraceEventKind.DESTROYED),
    ):
        sockets[name] = np.fmin.reduceat(np.where(where, time, np.nan), start)
    sockets["latest_event"] = np.maximum.reduceat(time, start)
    bits = np.where(state, (1 << new.astype(np.uint16)) | (1 << old.astype(np.uint16)), 0).astype(np.uint16)
    sockets["visited"] = np.bitwise_or.reduceat(bits, start)
    failed = (kind == TraceEventKind.ERROR) & current
    sockets["error"] = np.maximum.reduceat(np.where(failed, events["reason"], 0), start)
    sockets["retransmitted"] = np.add.reduceat(((kind == TraceEventKind.RETRANSMIT) & current).astype(np.uint16), start)
    sockets["reset_received"] = np.logical_or.reduceat((kind == TraceEventKind.RESET_RECEIVED) & current, start)
    portless = closing & (old == State.SYN_SENT) & (events["sport"] == 0)
    sockets["no_port"] = np.logical_or.reduceat(portless, start)
    change = np.maximum.reduceat(np.where(state, place, -1), start)
    sockets["last_state"] = np.where(change < 0, 0, np.where(closing[change], old[change], new[change]))
    reset = np.maximum.reduceat(np.where(sent, place, -1), start)
    for name, values in (("reset_reason", events["reason"]), ("reset_in_state", old)):
        sockets[name] = np.where(reset < 0, 0, values[reset])
    remote = events["dport"] != 0
    for known in (remote, remote & (events["sport"] != 0)):
        last = np.maximum.reduceat(np.where(known, place, -1), start)
        sockets["endpoints"][last >= 0] = events[last[last >= 0]]
    return sockets


def _cookies_by_endpoints(sockets: NDArray[np.void], since: float, polled: SocketsWithPorts) -> NDArray[np.uint64]:
    """Return the cookie of the only polled socket with the endpoints of each TRACED_SOCKET; 0 for none, or for several.

    0 also where two of `sockets` have the same endpoints, and for those without an event after `since`. A socket that
    is open in the trace is a full socket in the poll, and one that retransmitted has done so in its tcp_info.
    """
    matched = np.zeros(len(sockets), np.uint64)
    endpoints = take_rows(sockets["endpoints"], np.arange(len(sockets)))
    recent = sockets["latest_event"] > since
    # The row of a socket that opened after the first poll is new; this is a small part of all rows.
    old = bool(np.isnan(sockets["begin"][recent]).any()) or since == -np.inf
    found = polled(endpoints["sport"][recent], endpoints["dport"][recent], old)
    if not len(found.cookie):
        return matched
    wanted = endpoint_pair_hashes(endpoints, "sport", "dport", "src", "dst")
    _, inverse, count = np.unique(wanted, return_inverse=True, return_counts=True)
    is_open = np.isnan(sockets["closed"])
    older = np.isnan(sockets["begin"]) & (sockets["retransmitted"] > 0)  # of a new one, tcp_info may be older
    present = endpoint_pair_hashes(found.table)
    for which, candidates in ((is_open, np.flatnonzero(found.is_full)), (~is_open, np.arange(len(found.cookie)))):
        distinct, first, times = np.unique(present[candidates], return_index=True, return_counts=True)
        at = find_sorted(distinct, wanted)
        unique = which & recent & (count[inverse] == 1) & (at != NOT_FOUND)
        unique[unique] = times[at[unique]] == 1
        row = candidates[first[at[unique]]]
        plausible = ~older[unique] | found.may_retransmit[row]
        matched[np.flatnonzero(unique)[plausible]] = found.cookie[row[plausible]]
    return matched


def sort_traced_sockets(sockets: NDArray[np.void]) -> NDArray[np.void]:
    """Return TRACED_SOCKETs in ascending order of their cookies."""
    return take_rows(sockets, np.argsort(sockets["cookie"], kind="stable"))
