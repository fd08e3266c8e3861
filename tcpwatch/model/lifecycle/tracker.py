"""Lives: what happened to flows since the last sample, from polls, destroy events and the trace; each end counted once.

An end is told by a destroy event; where none came, by the next poll. A flow whose full socket has ended may go on as a
small one, in TIME_WAIT or FIN_WAIT_2: its cookie is the same, so that its story goes on, and its end is not told again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.append_log import AppendLog
from tcpwatch.arrays.lookup import NOT_FOUND, ascending, find_sorted, is_in_sorted
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind
from tcpwatch.model.lifecycle.archive import RECORD, Archive
from tcpwatch.model.lifecycle.cookie_aliases import CookieAliases, resolve_aliases
from tcpwatch.model.lifecycle.destroyed_connections import DestroyedConnections, destroyed_connections
from tcpwatch.model.lifecycle.poll_changes import PollChanges
from tcpwatch.model.lifecycle.records import build_records, updated_records
from tcpwatch.model.lifecycle.traced_sockets import TracedSockets, TraceStep, sort_traced_sockets
from tcpwatch.model.lifecycle.transitions import TRANSITION, Origin, TransitionIndex, TransitionKind, transition_rows
from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.join import Join
from tcpwatch.model.sockets.owner_registry import OwnerRegistry
from tcpwatch.model.states import State
from tcpwatch.sample import Sample, take_rows

OVER_STEPS = 3
AWAITED = 16_384
"""Flows that a poll found gone, whose destroy event may still come: an application may hold a dead socket for hours."""
_NOT_FLOWS = (State.LISTEN, State.CLOSED)
_SMALL = (State.TIME_WAIT, State.FIN_WAIT_2)
_NOTHING_TRACED = np.empty(0, TRACE_EVENT)


@dataclass(frozen=True, slots=True, eq=False)
class LifecycleStep:
    """What one step adds to the totals."""

    opened: NDArray[np.void]
    """uapi.SOCKET rows of flows that opened."""
    opened_role: NDArray[np.uint8]
    opened_owner: NDArray[np.int32]
    """For Past.owner."""
    ended: NDArray[np.void]
    """past.CLOSED of flows that ended, each once."""
    archive: Archive = field(default_factory=Archive)
    foreign_sockets: int = 0
    """Sockets of other network namespaces that the trace reported."""
    unmatched_sockets: int = 0
    """Open sockets that the trace reported and that no poll has shown."""


NOTHING_HAPPENED = LifecycleStep(
    np.empty(0, uapi.SOCKET), np.empty(0, np.uint8), np.empty(0, np.int32), np.empty(0, RECORD)
)


class Tracker:
    """Remembers, in a bounded memory."""

    def __init__(self, memory_mib: int = 64) -> None:
        half = memory_mib * (1 << 20) // 2
        self._closed = AppendLog(RECORD, max(1_000, half // RECORD.itemsize))
        self._told = AppendLog(TRANSITION, max(10_000, half // TRANSITION.itemsize))
        self._finder = TransitionIndex()
        self._owners = OwnerRegistry()
        self._threads = TracedSockets()
        self._aliases = CookieAliases()
        self._recorded = np.empty(0, np.uint64)
        """Flows that go on as small sockets, whose full socket's end is recorded; ascending."""
        self._awaited = np.empty(0, np.uint64)
        """Cookies of those that a poll found gone, without an event; the latest last."""
        self._before_that = np.empty(0, np.uint64)
        """Cookies of the step before's destroy events: the trace may tell of them later."""
        self._over: deque[NDArray[np.void]] = deque(maxlen=OVER_STEPS)
        """traced.THREAD of the last steps' sockets that the trace saw destroyed: the event may come later."""
        self._ended = 0
        self.foreign_sockets = 0
        """Sockets of other namespaces that the trace told of."""
        self.unmatched_sockets = 0
        """Living sockets of the trace of which it is not known whose they are."""

    @property
    def archive(self) -> Archive:
        """All that is remembered, frozen."""
        return Archive(
            self._closed.chunks,
            self._told.chunks,
            self._owners.owners,
            self._owners.begin,
            self._closed.written,
            self._told.written,
            self._ended,
            self._finder,
        )

    def step(self, poll: Poll) -> LifecycleStep:
        """Return the connections that opened and ended since the previous poll, and all that is remembered."""
        if poll.previous and poll.previous_join:
            step = self._step(PollChanges(poll.join, poll.previous_join, poll.sample, poll.previous))
        else:
            self._begin(poll.join, poll.sample)
            step = NOTHING_HAPPENED
        return replace(
            step,
            archive=self.archive,
            foreign_sockets=self.foreign_sockets,
            unmatched_sockets=self.unmatched_sockets,
        )

    def _begin(self, joined: Join, sample: Sample) -> None:
        """With the first sample: flows that opened since the trace began, and that live, have their beginning."""
        if sample.trace_events is not None:
            rows = joined.rows
            followed = self._threads.step(
                sample.trace_events.events,
                sample.monotonic,
                lambda cookies: is_in_sorted(rows.cookie, cookies),
                lambda: (rows.table, rows.cookie),
            )
            self._told.add(_of_trace(followed.events, sample))

    def _step(self, polled: PollChanges) -> LifecycleStep:
        joined, sample = polled.join, polled.sample
        if self._nothing_happened(joined, sample):
            return NOTHING_HAPPENED
        events = destroyed_connections(sample.destroyed)
        followed = self._follow(polled, events)
        if sample.destroyed is not None:
            aliases = self._aliases.step(joined.rows, joined.new, events.table, events.when)
            events = events.with_aliases(aliases)
            for found in (followed.events, followed.ended):
                found["cookie"] = resolve_aliases(found["cookie"], aliases)
        self._tell_polls(polled, _known(followed.events, events.cookie))
        self._over.append(followed.ended)
        threads = sort_traced_sockets(np.concatenate((followed.closed, *self._over)))
        reasons = sample.trace_events.reset_reasons if sample.trace_events else {}
        late = self._late(polled, events.cookie)
        if late.any():
            self._improve(events.take(np.flatnonzero(late)), threads, reasons)
            events = events.take(np.flatnonzero(~late))
        found, counted = build_records(
            polled, events, self._gone(polled, events.cookie), threads, reasons, self._owners
        )
        self._closed.add(found)
        self._told.add(_of_events(found))
        self._told.add(_of_trace(followed.events, sample))
        self._remember(joined, found, events.cookie)
        self._ended += int(np.count_nonzero(counted))
        return self._lived(polled, found if counted.all() else take_rows(found, np.flatnonzero(counted)))

    def _nothing_happened(self, joined: Join, sample: Sample) -> bool:
        """An idle host costs nothing."""
        told = (
            sample.destroyed.table if sample.destroyed else (),
            sample.trace_events.events if sample.trace_events else (),
        )
        moved = (joined.new, joined.changed, joined.ended_previous, *told, self._before_that, *self._over)
        return not any(map(len, moved)) and self._threads.idle

    def _follow(self, polled: PollChanges, events: DestroyedConnections) -> TraceStep:
        sample, joined = polled.sample, polled.join
        recent, self._before_that = ascending(self._before_that, events.cookie), events.cookie

        def ours(cookies: NDArray[np.uint64]) -> NDArray[np.bool_]:
            known = (joined.rows.cookie, polled.previous_join.rows.cookie, recent, np.sort(self._awaited))
            there: NDArray[np.bool_] = np.any([is_in_sorted(column, cookies) for column in known], axis=0)
            return there

        def moved() -> tuple[NDArray[np.void], NDArray[np.uint64]]:
            at, closed = np.concatenate((polled.new, joined.changed)), joined.closed
            table = np.concatenate((take_rows(joined.rows.table, at), np.ascontiguousarray(closed.table)))
            return table, np.concatenate((joined.rows.cookie[at], closed.cookie))

        traced = sample.trace_events.events if sample.trace_events else _NOTHING_TRACED
        followed = self._threads.step(traced, sample.monotonic, ours, moved)
        self.foreign_sockets += followed.foreign_sockets
        self.unmatched_sockets = followed.unmatched_sockets
        return followed

    def _tell_polls(self, polled: PollChanges, told: NDArray[np.uint64]) -> None:
        """What nobody `told` better in this step.

        A half-open connection is told of when it became another, or vanished: a flood's never do, or all at once.
        """
        joined, rows, old = polled.join, polled.join.rows, polled.previous_join.rows
        time, slack = polled.sample.time, polled.elapsed_s
        grown = joined.changed_previous[polled.was_half_open(joined.changed_previous)]
        half, full = polled.vanished
        begun = np.concatenate((grown, half))
        begun = begun[old.begin_seen[begun]]
        new = polled.new[~is_in_sorted(told, _state_key(rows.cookie[polled.new], rows.state[polled.new]))]
        kept = np.flatnonzero(~is_in_sorted(told, _state_key(rows.cookie[joined.changed], rows.state[joined.changed])))
        changed = joined.changed[kept]
        over = is_in_sorted(told, _state_key(old.cookie[full], State.CLOSED)) & ~np.isin(old.state[full], _SMALL)
        left = np.concatenate((half, full[~over]))
        for part in (
            transition_rows(old.first_seen[begun], old.cookie[begun], 0, State.SYN_RCVD, Origin.POLL, slack),
            polled.transitions(new, 0),
            polled.transitions(changed, joined.old_state[kept]),
            transition_rows(time, old.cookie[left], old.state[left], 0, Origin.POLL, slack),
        ):
            self._told.add(part)

    def _gone(self, polled: PollChanges, told: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Rows that a poll found gone and no event told of, now or when they became small."""
        half, full = polled.vanished
        cookies = polled.previous_join.rows.cookie[full]
        silent = ~is_in_sorted(np.sort(told), cookies) & ~is_in_sorted(self._recorded, cookies)
        silent &= ~np.isin(polled.previous_join.rows.state[full], _NOT_FLOWS)
        return np.concatenate(
            (half[~is_in_sorted(np.sort(told), polled.previous_join.rows.cookie[half])], full[silent])
        )

    def _late(self, polled: PollChanges, told: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which events are of flows that a poll had found gone; not of those whose socket was connected again."""
        if len(self._awaited):
            moved = np.concatenate((polled.new, polled.join.changed))
            alive = moved[polled.sample.state[moved] != State.CLOSED]
            self._awaited = self._awaited[~np.isin(self._awaited, polled.join.rows.cookie[alive])]
        return np.isin(told, self._awaited)

    def _improve(self, events: DestroyedConnections, threads: NDArray[np.void], reasons: Mapping[int, str]) -> None:
        """Late events: the flow's end was told by a poll; its last figures come now."""
        self._awaited = self._awaited[~np.isin(self._awaited, events.cookie)]
        for chunk in self._closed.chunks:
            at = np.flatnonzero(is_in_sorted(events.cookie, np.ascontiguousarray(chunk["cookie"])))
            if len(at):
                found = take_rows(chunk, at)
                told = events.take(find_sorted(events.cookie, found["cookie"]))
                self._closed.add(updated_records(found, told, threads, reasons))

    def _remember(self, joined: Join, found: NDArray[np.void], told: NDArray[np.uint64]) -> None:
        by_poll = found[len(told) :]
        full = by_poll["cookie"][by_poll["state"] != State.TIME_WAIT]
        self._awaited = np.concatenate((self._awaited, full))[-AWAITED:]
        lives = is_in_sorted(joined.rows.cookie, told)
        if len(joined.ended_cookie) or lives.any():
            left = self._recorded[~is_in_sorted(joined.ended_cookie, self._recorded)]
            self._recorded = ascending(left, told[lives])

    def _lived(self, polled: PollChanges, ended: NDArray[np.void]) -> LifecycleStep:
        joined, rows = polled.join, polled.join.rows
        again = (joined.old_state == State.CLOSED) & ~np.isin(rows.state[joined.changed], _NOT_FLOWS)
        grown = joined.changed[polled.was_half_open(joined.changed_previous) | again]
        opened = np.concatenate((polled.new[~np.isin(rows.state[polled.new], _NOT_FLOWS)], grown))
        was = find_sorted(polled.previous_join.rows.cookie, ended["cookie"])
        there = np.flatnonzero(was != NOT_FOUND)
        first_told = ~ended["seen"]
        first_told[there] |= polled.was_half_open(was[there])
        unseen = np.flatnonzero(first_told & ~is_in_sorted(rows.cookie, ended["cookie"]))
        return LifecycleStep(
            np.concatenate((take_rows(rows.table, opened), take_rows(ended["row"], unseen))),
            np.concatenate((rows.role[opened], ended["role"][unseen])),
            np.concatenate((self._owners.register(rows.owner[opened], rows.owners), ended["owner"][unseen])),
            ended,
        )


def _state_key(cookie: NDArray[np.uint64], state: NDArray[np.uint8] | int) -> NDArray[np.uint64]:
    """One number for both."""
    return cookie << np.uint64(4) | np.asarray(state, np.uint64)


def _known(events: NDArray[np.void], ended: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The states of flows that the trace told of, and ends that events told of, as `_state_key`, ascending."""
    changes = take_rows(events, np.flatnonzero(events["kind"] == TraceEventKind.STATE))
    keys = [_state_key(changes["cookie"], changes[name]) for name in ("old", "new")]
    return ascending(*keys, _state_key(ended, State.CLOSED))


def _of_events(found: NDArray[np.void]) -> NDArray[np.void]:
    """The ends that destroy events told."""
    told = np.flatnonzero(found["origin"] == Origin.EVENT)
    end, cookie, state, slack = (found[name][told] for name in ("end", "cookie", "state", "end_slack"))
    return transition_rows(end, cookie, state, State.CLOSED, Origin.EVENT, slack)


_WHAT = np.zeros(256, np.uint8)
_WHAT[[TraceEventKind.STATE, TraceEventKind.RETRANSMIT, TraceEventKind.RESET_SENT, TraceEventKind.RESET_RECEIVED,
    TraceEventKind.DROP, TraceEventKind.ERROR]] = (
    TransitionKind.STATE, TransitionKind.RETRANSMITTED, TransitionKind.RESET_SENT, TransitionKind.RESET_RECEIVED,
        TransitionKind.DROPPED, TransitionKind.ERROR,
)  # fmt: skip
_FROM = np.arange(256, dtype=np.uint8)
_FROM[[State.CLOSED, State.LISTEN]] = 0  # of a connection these are no states


def _of_trace(events: NDArray[np.void], sample: Sample) -> NDArray[np.void]:
    what = _WHAT[events["kind"]]
    at = np.flatnonzero(what)
    events = take_rows(events, at)
    time = events["time"] + (sample.time - sample.monotonic)
    return transition_rows(
        time, events["cookie"], _FROM[events["old"]], events["new"], Origin.TRACE, 0.0, what[at], events["reason"]
    )
