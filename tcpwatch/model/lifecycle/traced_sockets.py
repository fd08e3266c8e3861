"""Threads: the trace's events brought together by socket, and told whose cookie that is.

The trace names a socket by its kernel address, of whatever network namespace. Its last event, tcp_destroy_sock, tells
the cookie: one that a sample or a destroy event has, is ours. One that lives still is found by its ends among the flows
that the polls saw change; where two live sockets of the trace have the same ends, in two namespaces, nobody is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind
from tcpwatch.model.lifecycle.trace_errors import event_sockets
from tcpwatch.model.sockets.endpoint_hashes import endpoint_pair_hashes
from tcpwatch.model.states import State
from tcpwatch.sample import take_rows

TRACED_SOCKET = np.dtype(
    [
        ("socket", "=u8"),
        ("cookie", "=u8"),
        ("begin", "=f8"),
        ("closed", "=f8"),
        ("destroyed", "=f8"),
        ("latest", "=f8"),
        ("endpoints", TRACE_EVENT),
        ("pid", "=i4"),
        ("visited", "=u2"),
        ("retransmitted", "=u2"),
        ("reason", "=u2"),
        ("error", "=u2"),
        ("last", "u1"),
        ("reset_in", "u1"),
        ("reset_received", "?"),
    ]
)
"""One socket of the trace, so far.

begin, closed, destroyed: times of its opening (connect(), or the last ACK of a handshake with us), of its change to
CLOSE, and of tcp_destroy_sock, NaN for what was not seen; latest: of its last event; pid: the thread that called
connect(), 0 for none; error: the errno that the application was told, 0 for none; ends: an event that tells both ends,
all 0 where none did; visited: bit n for state n; reason, reset_in: of the last reset that it sent, and the state it was
in then, 0 for none; last: the state that it left for CLOSE, or its present one.
"""

KEPT_EVENTS = 300_000
"""Events of sockets of which nobody knows whose they are, that are kept for the day when somebody does."""
MATCH_TIMEOUT_S = 1.0
"""So long after tcp_destroy_sock a destroy event, or a poll, may still say that a socket is ours."""

_NOT_A_FLOW = (0, State.LISTEN, State.TIME_WAIT, 12)
"""States of a socket that answers a segment with a reset and is no connection's full socket; 12 is NEW_SYN_RECV."""
_OF_CONNECTIONS = (
    TraceEventKind.DESTROYED,
    TraceEventKind.RETRANSMIT,
    TraceEventKind.RESET_RECEIVED,
    TraceEventKind.ERROR,
)

Membership = Callable[[NDArray[np.uint64]], NDArray[np.bool_]]
Moved = Callable[[], tuple[NDArray[np.void], NDArray[np.uint64]]]
"""Rows of uapi.SOCKET with their cookies."""


class TraceStep(NamedTuple):
    """What one step learnt."""

    events: NDArray[np.void]
    """TRACE_EVENT of our sockets, with their cookies, in the order of time of each."""
    ended: NDArray[np.void]
    """THREAD of those of our sockets that were destroyed, sorted by cookie."""
    closed: NDArray[np.void]
    """THREAD of those that are closed and not destroyed, sorted by cookie; in each step while they are."""
    foreign_sockets: int
    """Sockets that turned out to be another namespace's."""
    unmatched_sockets: int
    """Living sockets that no poll has told of since PATIENCE_S: another namespace's, or their ends are not known."""


class TracedSockets:
    """Follows sockets from step to step."""

    def __init__(self) -> None:
        self._open = np.empty(0, TRACE_EVENT)
        """Events of sockets that nobody knows, sorted by socket and time."""
        self._known = np.empty(0, TRACED_SOCKET)
        """Ours that live, sorted by socket."""

    @property
    def idle(self) -> bool:
        """Nothing waits to be told, or to be understood."""
        return not len(self._open) and not len(self._closed())

    def step(self, events: NDArray[np.void], now: float, ours: Membership, moved: Moved) -> TraceStep:
        """Take these events (TRACE_EVENT, in the order of time); `now` is monotonic.

        `ours` says which cookies this namespace has, or had; `moved` gives the flows that polls saw appear, change or
        end, by whose ends a living socket is known.
        """
        events = np.concatenate((self._open, self._of_flows(events))) if len(events) else self._open
        if not len(events):
            return TraceStep(events, self._known[:0], self._closed(), 0, 0)
        events = take_rows(events, np.argsort(events["socket"], kind="stable"))
        start = _starts(events)
        threads = _summed(events, start)
        known = self._continued(threads, events[start])
        asked = np.flatnonzero((threads["cookie"] == 0) & (threads["endpoints"]["dport"] != 0))
        found = _by_ends(threads["endpoints"][asked], *moved()) if len(asked) else np.empty(0, np.uint64)
        found[np.isin(found, self._known["cookie"]) | np.isin(found, threads["cookie"])] = 0  # another socket's
        threads["cookie"][asked] = found
        mine = (threads["cookie"] != 0) & (known | ours(threads["cookie"]))
        destroyed = ~np.isnan(threads["destroyed"])
        lost = ~mine & destroyed & (threads["destroyed"] < now - MATCH_TIMEOUT_S)
        waiting = ~mine & ~lost
        of_event = np.repeat(np.arange(len(threads)), np.diff(np.append(start, len(events))))
        told = take_rows(events, np.flatnonzero(mine[of_event]))
        told["cookie"] = threads["cookie"][of_event[mine[of_event]]]
        self._open = take_rows(events, np.flatnonzero(waiting[of_event]))
        if len(self._open) > KEPT_EVENTS:
            self._open = self._newest(self._open)
        alive = take_rows(threads, np.flatnonzero(mine & ~destroyed))
        stay = np.flatnonzero(~np.isin(self._known["socket"], threads["socket"][mine]))
        kept = np.concatenate((take_rows(self._known, stay), alive))
        self._known = take_rows(kept, np.argsort(kept["socket"], kind="stable"))
        return TraceStep(
            told,
            sort_traced_sockets(take_rows(threads, np.flatnonzero(mine & destroyed))),
            self._closed(),
            int(np.count_nonzero(lost)),
            int(np.count_nonzero(waiting & (events["time"][start] < now - MATCH_TIMEOUT_S))),
        )

    def _closed(self) -> NDArray[np.void]:
        return sort_traced_sockets(take_rows(self._known, np.flatnonzero(~np.isnan(self._known["closed"]))))

    def _of_flows(self, events: NDArray[np.void]) -> NDArray[np.void]:
        """Those that tell of a connection's own socket: none of listeners, nor of segments that met none."""
        kind, old, new = (np.ascontiguousarray(events[name]) for name in ("kind", "old", "new"))
        socket = event_sockets(events)
        listens = (new == State.LISTEN) | ((old == State.LISTEN) & (new == State.CLOSED))
        told = np.isin(kind, _OF_CONNECTIONS) | ((kind == TraceEventKind.STATE) & ~listens)
        told |= (kind == TraceEventKind.RESET_SENT) & ~np.isin(old, _NOT_A_FLOW)
        dropped = np.flatnonzero(kind == TraceEventKind.DROP)
        told[dropped] = np.isin(socket[dropped], np.concatenate((self._known["socket"], socket[told])))
        taken = np.flatnonzero(told & (socket != 0))
        events = take_rows(events, taken)
        events["socket"] = socket[taken]
        return events

    def _continued(self, threads: NDArray[np.void], opening: NDArray[np.void]) -> NDArray[np.bool_]:
        """Go on where an earlier step had got to; says of which threads one knew. `opening`: first events."""
        known = np.zeros(len(threads), np.bool_)
        if not len(self._known) or not len(threads):
            return known
        at = np.searchsorted(self._known["socket"], threads["socket"])
        at[at == len(self._known)] = 0
        begins = (opening["kind"] == TraceEventKind.STATE) & np.isin(opening["old"], (State.CLOSED, State.LISTEN))
        # A socket that was closed may be connected again; else, the address was given out again, and what was told of
        # the end of who had it is lost.
        again = (opening["old"] == State.CLOSED) & ~np.isnan(self._known["closed"][at])
        # What came before that is of somebody else, who had the address then, and of whom it is not known who that was.
        later = opening["time"] > self._known["latest"][at]
        same = (self._known["socket"][at] == threads["socket"]) & later
        known[:] = same & (~begins | again)
        known[1:] &= (threads["socket"][1:] != threads["socket"][:-1]) | ~same[:-1]
        threads["cookie"][known] = self._known["cookie"][at[known]]
        whose = known.copy()
        known &= np.isnan(threads["begin"])  # of another life of the same socket nothing else carries on
        old = self._known[at[known]]
        for name in ("begin", "pid"):
            threads[name][known] = old[name]
        threads["closed"][known] = np.fmin(threads["closed"][known], old["closed"])
        threads["visited"][known] |= old["visited"]
        threads["retransmitted"][known] += old["retransmitted"]
        threads["reset_received"][known] |= old["reset_received"]
        threads["error"][known] = np.maximum(threads["error"][known], old["error"])
        for name, where in (("last", "last"), ("reason", "reset_in"), ("reset_in", "reset_in")):
            empty = known.copy()
            empty[known] = threads[where][known] == 0
            threads[name][empty] = old[name][empty[known]]
        silent = known.copy()
        silent[known] = threads["endpoints"]["dport"][known] == 0
        threads["endpoints"][silent] = old["endpoints"][silent[known]]
        return whose

    @staticmethod
    def _newest(events: NDArray[np.void]) -> NDArray[np.void]:
        latest = np.sort(np.argpartition(events["time"], -KEPT_EVENTS // 2)[-KEPT_EVENTS // 2 :])
        return take_rows(events, latest)


def _starts(events: NDArray[np.void]) -> NDArray[np.intp]:
    """Where each socket's events begin: at another address, and after the end of who had it."""
    if not len(events):
        return np.empty(0, np.intp)
    socket, kind = np.ascontiguousarray(events["socket"]), np.ascontiguousarray(events["kind"])
    gone, reset = kind == TraceEventKind.DESTROYED, kind == TraceEventKind.RESET_SENT
    # Data that met a closed socket is answered by a reset after its end.
    last = gone.copy()
    last[:-1] &= ~(reset[1:] & (socket[1:] == socket[:-1]))
    last[1:] |= reset[1:] & gone[:-1] & (socket[1:] == socket[:-1])
    return np.flatnonzero(np.append(True, (socket[1:] != socket[:-1]) | last[:-1]))


def _summed(events: NDArray[np.void], start: NDArray[np.intp]) -> NDArray[np.void]:
    """THREAD for each run of events that begins at `start`."""
    threads = np.zeros(len(start), TRACED_SOCKET)
    if not len(start):
        return threads
    kind, time, old, new = (np.ascontiguousarray(events[name]) for name in ("kind", "time", "old", "new"))
    place = np.arange(len(events))
    opening = (kind == TraceEventKind.STATE) & ((old == State.CLOSED) | (old == State.LISTEN))
    opened = np.maximum.reduceat(np.where(opening, place, -1), start)
    # A socket may be connected again after it was refused, or after tcp_disconnect(): only its last life counts.
    lives = place >= np.repeat(opened, np.diff(np.append(start, len(events))))
    calls = (opened >= 0) & (old[opened] == State.CLOSED)
    threads["pid"] = np.where(calls, events["pid"][opened], 0)
    state, sent = (kind == TraceEventKind.STATE) & lives, (kind == TraceEventKind.RESET_SENT) & lives
    closing = state & (new == State.CLOSED)
    threads["socket"] = events["socket"][start]
    threads["cookie"] = np.maximum.reduceat(events["cookie"], start)
    for name, where in (
        ("begin", opening & lives),
        ("closed", closing),
        ("destroyed", kind == TraceEventKind.DESTROYED),
    ):
        threads[name] = np.fmin.reduceat(np.where(where, time, np.nan), start)
    threads["latest"] = np.maximum.reduceat(time, start)
    bits = np.where(state, (1 << new.astype(np.uint16)) | (1 << old.astype(np.uint16)), 0).astype(np.uint16)
    threads["visited"] = np.bitwise_or.reduceat(bits, start)
    told = (kind == TraceEventKind.ERROR) & lives
    threads["error"] = np.maximum.reduceat(np.where(told, events["reason"], 0), start)
    threads["retransmitted"] = np.add.reduceat(((kind == TraceEventKind.RETRANSMIT) & lives).astype(np.uint16), start)
    threads["reset_received"] = np.logical_or.reduceat((kind == TraceEventKind.RESET_RECEIVED) & lives, start)
    change = np.maximum.reduceat(np.where(state, place, -1), start)
    threads["last"] = np.where(change < 0, 0, np.where(closing[change], old[change], new[change]))
    reset = np.maximum.reduceat(np.where(sent, place, -1), start)
    for name, values in (("reason", events["reason"]), ("reset_in", old)):
        threads[name] = np.where(reset < 0, 0, values[reset])
    ends = np.maximum.reduceat(np.where((events["dport"] != 0) & (events["sport"] != 0), place, -1), start)
    threads["endpoints"][ends >= 0] = events[ends[ends >= 0]]
    return threads


def _by_ends(ends: NDArray[np.void], flows: NDArray[np.void], cookies: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The cookie of the flow that has these ends; 0 where there is none, or where somebody else has them too."""
    found = np.zeros(len(ends), np.uint64)
    if not len(ends) or not len(flows):
        return found
    wanted = endpoint_pair_hashes(ends, "sport", "dport", "src", "dst")
    there = endpoint_pair_hashes(flows)
    order = np.argsort(there)
    at = np.searchsorted(there[order], wanted)
    at[at == len(order)] = 0
    at = order[at]
    _, inverse, count = np.unique(wanted, return_inverse=True, return_counts=True)
    hit = (there[at] == wanted) & (count[inverse] == 1)
    found[hit] = cookies[at[hit]]
    return found


def sort_traced_sockets(threads: NDArray[np.void]) -> NDArray[np.void]:
    """THREADs, ascending by cookie."""
    return take_rows(threads, np.argsort(threads["cookie"], kind="stable"))
