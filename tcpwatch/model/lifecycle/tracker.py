"""Tracker: what happened to connections between two samples, from polls, destroy events and the trace.

A destroy event reports the end of a connection; without one, the next poll does. Each end is counted once. After
the end of its full socket a connection may continue as a small socket, in TIME_WAIT or FIN_WAIT_2. Its cookie is the
same, so its history continues, and its end is not reported again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.append_log import AppendLog
from tcpwatch.arrays.lookup import NOT_FOUND, ascending, find_sorted, is_in_sorted
from tcpwatch.arrays.opaque_rows import opaque, take_rows
from tcpwatch.config.memory import BUDGET
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind
from tcpwatch.model.lifecycle.archive import RECORD, Archive
from tcpwatch.model.lifecycle.cookie_aliases import NO_ALIASES, CookieAliases, resolve_aliases
from tcpwatch.model.lifecycle.destroyed_connections import DestroyedConnections, destroyed_connections
from tcpwatch.model.lifecycle.history import TICK_S
from tcpwatch.model.lifecycle.opened_owners import OpenedOwners
from tcpwatch.model.lifecycle.poll_changes import PollChanges
from tcpwatch.model.lifecycle.records import build_records, updated_records
from tcpwatch.model.lifecycle.trace.polled_sockets import sockets_with_ports
from tcpwatch.model.lifecycle.trace.traced_sockets import TracedSockets, TraceStep, sort_traced_sockets
from tcpwatch.model.lifecycle.transitions import TRANSITION, Origin, TransitionIndex, TransitionKind, transition_rows
from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.join import Join
from tcpwatch.model.sockets.owner_registry import OwnerRegistry
from tcpwatch.model.states import SMALL_SOCKET_STATES, State
from tcpwatch.sample import Sample

DESTROYED_STEPS = 3
"""How many steps a traced socket is kept after its destruction: its destroy event may come later."""
AWAITED = 16_384
"""How many connections that a poll found ended wait for their destroy event: it comes when the application closes the
socket, perhaps hours later."""
_NOT_CONNECTIONS = (State.LISTEN, State.CLOSED)
_NO_TRACE_EVENTS = np.empty(0, TRACE_EVENT)


@dataclass(frozen=True, slots=True, eq=False)
class LifecycleStep:
    """The result of one step: connections that opened and ended, each counted once."""

    opened: NDArray[np.void]
    """uapi.SOCKET rows."""
    opened_role: NDArray[np.uint8]
    opened_owner: NDArray[np.int32]
    """For Archive.owner."""
    found_owner: NDArray[np.int32]
    """The same, of connections that have opened without an owner and have one now."""
    ended: NDArray[np.void]
    """archive.RECORD"""
    archive: Archive = field(default_factory=Archive)
    foreign_sockets: int = 0
    """Sockets of other network namespaces in the trace, since the start."""
    unmatched_sockets: int = 0
    """Open sockets of the trace that match no polled socket."""
    trace_events_dropped: int = 0
    """Recent trace events of unmatched sockets that were too many to be kept."""


NOTHING_HAPPENED = LifecycleStep(
    np.empty(0, uapi.SOCKET), np.empty(0, np.uint8), np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, RECORD)
)


class Tracker:
    """Keeps transitions and records in bounded memory."""

    def __init__(self, memory_mib: int = 64) -> None:
        """Use at most `memory_mib` for transitions and records together, with those that only an earlier View holds."""
        part = memory_mib * (1 << 20) * 2 // 3 // 3  # an AppendLog takes up to 4/3 of its capacity
        self._records = AppendLog(RECORD, max(1_000, 2 * part // RECORD.itemsize))
        self._transitions = AppendLog(TRANSITION, max(10_000, part // TRANSITION.itemsize))
        self._index = TransitionIndex()
        self._owners = OwnerRegistry()
        self._opened_owners = OpenedOwners(self._owners)
        self._traced_sockets = TracedSockets()
        self._aliases = CookieAliases()
        self._recorded = np.empty(0, np.uint64)
        """Cookies of small sockets whose full socket has a record; ascending."""
        self._awaited = np.empty(0, np.uint64)
        """Cookies that a poll found ended and that have no destroy event yet; the latest last."""
        self._last_destroyed = np.empty(0, np.uint64)
        """Cookies of the previous step's destroy events: their trace events may come later."""
        self._last_reported = np.empty(0, np.uint64)
        """The `_state_key`s that trace and destroy events reported in the previous step."""
        self._destroyed: deque[NDArray[np.void]] = deque(maxlen=DESTROYED_STEPS)
        """TRACED_SOCKETs destroyed in the last steps."""
        self._ended = self._foreign_sockets = self._unmatched_sockets = self._dropped = 0

    @property
    def archive(self) -> Archive:
        """An immutable snapshot of what is kept."""
        return Archive(
            self._records.chunks,
            self._transitions.chunks,
            self._owners.owners,
            self._owners.begin,
            self._records.written,
            self._transitions.written,
            self._ended,
            self._index,
        )

    def step(self, poll: Poll) -> LifecycleStep:
        """Return the connections that opened and ended since the previous poll, and all that is kept."""
        if poll.previous and poll.previous_join:
            step = self._step(PollChanges(poll.join, poll.previous_join, poll.sample, poll.previous))
        else:
            self._begin(poll.join, poll.sample)
            step = NOTHING_HAPPENED
        dropped, self._dropped = self._dropped, 0
        return replace(
            step,
            archive=self.archive,
            foreign_sockets=self._foreign_sockets,
            unmatched_sockets=self._unmatched_sockets,
            trace_events_dropped=dropped,
        )

    def _begin(self, joined: Join, sample: Sample) -> None:
        """Take the first sample: the trace may already know when some of its connections opened."""
        if sample.trace_events is not None:
            for traced in self._step_trace(joined, sample, (joined.rows.cookie,)):
                self._transitions.add(_trace_transitions(traced.events, sample))

    def _step(self, changes: PollChanges) -> LifecycleStep:
        joined, sample = changes.join, changes.sample
        if self._nothing_happened(joined, sample):
            self._last_reported = self._last_reported[:0]
            return NOTHING_HAPPENED
        events = destroyed_connections(sample.destroyed)
        unaliased, aliases = events.cookie, NO_ALIASES
        if sample.destroyed is not None:
            aliases = self._aliases.step(joined.rows, joined.new, events.table, events.when)
            events = events.with_aliases(aliases)
        sockets, reported = self._trace(changes, unaliased, events.cookie, aliases)
        # The events go on to the end of the dump, which may have read a row before its last event.
        self._add_polled_transitions(changes, ascending(self._last_reported, reported), sockets)
        self._last_reported = reported
        reasons = sample.trace_events.reset_reasons if sample.trace_events else {}
        late = self._is_late(changes, events.cookie)
        if late.any():
            self._update_records(events.take(np.flatnonzero(late)), sockets, reasons)
            events = events.take(np.flatnonzero(~late))
        vanished = self._vanished_without_event(changes, events.cookie)
        self._opened_owners.add_orphans(joined, changes.previous_join)
        ended, count = np.empty(len(events.cookie) + len(vanished), RECORD), 0
        for some in _slices(len(events.cookie)):
            part = events.take(some)
            records, counted = build_records(changes, part, vanished, sockets, reasons, self._owners)
            vanished = vanished[:0]  # they are in the first slice
            self._opened_owners.fill(records)
            self._records.add(records)
            self._transitions.add(_event_transitions(records))
            self._remember(joined, records, counted, part.cookie)
            records = records if counted.all() else take_rows(records, np.flatnonzero(counted))
            opaque(ended)[count : count + len(records)] = opaque(records)
            count += len(records)
        self._ended += count
        return self._totals(changes, ended[:count])

    def _trace(
        self,
        changes: PollChanges,
        unaliased: NDArray[np.uint64],
        destroyed: NDArray[np.uint64],
        aliases: tuple[NDArray[np.uint64], NDArray[np.uint64]],
    ) -> tuple[NDArray[np.void], NDArray[np.uint64]]:
        """Add the transitions in the trace; return the TRACED_SOCKETs that closed, and the states reported by events.

        The sockets are ascending by cookie, the states are `_state_key`s, ascending. `destroyed` are the cookies of the
        destroy events of this step, `unaliased` the same before aliases were replaced.
        """
        sample, joined = changes.sample, changes.join
        recent, self._last_destroyed = ascending(self._last_destroyed, unaliased), unaliased
        known = (joined.rows.cookie, changes.previous_join.rows.cookie, recent, np.sort(self._awaited))
        ended, reported = [], [_state_key(destroyed, State.CLOSED)]
        for traced in self._step_trace(joined, sample, known):
            for part in (traced.events, traced.ended, traced.closed):
                part["cookie"] = resolve_aliases(part["cookie"], aliases)
            self._transitions.add(_trace_transitions(traced.events, sample))
            reported += _reported_states(traced.events)
            ended.append(traced.ended)
            closed = traced.closed
        sockets = sort_traced_sockets(np.concatenate((closed, *ended, *self._destroyed)))
        # Those that have their destroy event, and no row that could change later, are not needed in later steps.
        begin = sample.begin_monotonic_s or sample.monotonic
        self._destroyed.append(
            np.concatenate(
                [
                    take_rows(part, np.flatnonzero(_is_unfinished(part, destroyed, joined.rows.cookie, begin)))
                    for part in ended
                ]
            )
        )
        return sockets, ascending(*reported)

    def _nothing_happened(self, joined: Join, sample: Sample) -> bool:
        """Return whether the step can be skipped: an idle host costs nothing."""
        tables = (
            sample.destroyed.table if sample.destroyed else (),
            sample.trace_events.events if sample.trace_events else (),
        )
        inputs = (joined.new, joined.changed, joined.ended_previous, *tables, self._last_destroyed, *self._destroyed)
        return not any(map(len, inputs)) and self._traced_sockets.idle

    def _step_trace(self, joined: Join, sample: Sample, known: Sequence[NDArray[np.uint64]]) -> Iterator[TraceStep]:
        """Yield the trace of one poll, slice by slice; `known` are cookies of this namespace, ascending."""

        def ours(cookies: NDArray[np.uint64]) -> NDArray[np.bool_]:
            return reduce(np.logical_or, (is_in_sorted(column, cookies) for column in known))

        polled = partial(sockets_with_ports, joined, sample)
        events = sample.trace_events.events if sample.trace_events else _NO_TRACE_EVENTS
        self._foreign_sockets += sample.trace_events.foreign_sockets if sample.trace_events else 0
        until = sample.begin_monotonic_s or -np.inf
        for traced in self._traced_sockets.steps(events, sample.monotonic, ours, polled, until):
            self._foreign_sockets += traced.foreign_sockets
            self._unmatched_sockets = traced.unmatched_sockets
            self._dropped += traced.dropped_events
            yield traced
        self._traced_sockets.forget(joined.rows.cookie)

    def _add_polled_transitions(
        self, changes: PollChanges, reported: NDArray[np.uint64], sockets: NDArray[np.void]
    ) -> None:
        """Add the changes between two polls that neither the trace nor a destroy event reported (`_state_key`s).

        `sockets` are the TRACED_SOCKETs that the trace saw close, ascending by cookie. A half-open connection is added
        when it changes its state or vanishes: most of a flood's never change.
        """
        joined, rows, old = changes.join, changes.join.rows, changes.previous_join.rows
        time, slack = changes.sample.time, changes.elapsed_s
        established = joined.changed_previous[changes.was_half_open(joined.changed_previous)]
        half_open, others = changes.vanished
        begun = np.concatenate((established, half_open))
        begun = begun[old.begin_seen[begun]]
        new = changes.new[~is_in_sorted(reported, _state_key(rows.cookie[changes.new], rows.state[changes.new]))]
        if changes.sample.trace_events is not None and not changes.sample.trace_events.lost:
            # The trace has reported connect(), but without a local port: it is matched by its next event.
            new = new[rows.state[new] != State.SYN_SENT]
        states = _state_key(rows.cookie[joined.changed], rows.state[joined.changed])
        kept = np.flatnonzero(~is_in_sorted(reported, states))
        changed = joined.changed[kept]
        ended = is_in_sorted(reported, _state_key(old.cookie[others], State.CLOSED))
        ended &= ~np.isin(old.state[others], SMALL_SOCKET_STATES)
        left = np.concatenate((half_open, others[~ended]))
        for part in (
            transition_rows(old.first_seen[begun], old.cookie[begun], 0, State.SYN_RCVD, Origin.POLL, slack),
            _without_traced_ends(changes.transitions(new, 0), sockets, changes),
            _without_traced_ends(changes.transitions(changed, joined.old_state[kept]), sockets, changes),
            transition_rows(time, old.cookie[left], old.state[left], 0, Origin.POLL, slack),
        ):
            self._transitions.add(part)

    def _vanished_without_event(self, changes: PollChanges, destroyed: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return previous rows that vanished and have no destroy event, now or when they became small sockets."""
        half_open, others = changes.vanished
        rows, destroyed = changes.previous_join.rows, np.sort(destroyed)
        cookies = rows.cookie[others]
        unreported = ~is_in_sorted(destroyed, cookies) & ~is_in_sorted(self._recorded, cookies)
        unreported &= ~np.isin(rows.state[others], _NOT_CONNECTIONS)
        return np.concatenate((half_open[~is_in_sorted(destroyed, rows.cookie[half_open])], others[unreported]))

    def _is_late(self, changes: PollChanges, destroyed: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return which destroy events belong to connections that an earlier poll found ended.

        A socket that was connected again since is a new connection.
        """
        if len(self._awaited):
            moved = np.concatenate((changes.new, changes.join.changed))
            open_again = moved[changes.sample.state[moved] != State.CLOSED]
            self._awaited = self._awaited[~np.isin(self._awaited, changes.join.rows.cookie[open_again])]
        return np.isin(destroyed, self._awaited)

    def _update_records(
        self, events: DestroyedConnections, sockets: NDArray[np.void], reasons: Mapping[int, str]
    ) -> None:
        """Add the records of late events again, with their last tcp_info."""
        self._awaited = self._awaited[~np.isin(self._awaited, events.cookie)]
        for chunk in self._records.chunks:
            at = np.flatnonzero(is_in_sorted(events.cookie, np.ascontiguousarray(chunk["cookie"])))
            if len(at):
                records = take_rows(chunk, at)
                aligned = events.take(find_sorted(events.cookie, records["cookie"]))
                self._records.add(updated_records(records, aligned, sockets, reasons))

    def _remember(
        self, joined: Join, records: NDArray[np.void], counted: NDArray[np.bool_], destroyed: NDArray[np.uint64]
    ) -> None:
        """Keep the cookies that later steps need; the records of `destroyed` come first."""
        # A half-open connection that vanished may have opened and ended: its late event is then counted.
        awaited = counted & (records["state"] != State.TIME_WAIT)
        awaited[: len(destroyed)] = False
        self._awaited = np.concatenate((self._awaited, records["cookie"][awaited]))[-AWAITED:]
        small = is_in_sorted(joined.rows.cookie, destroyed)
        if len(joined.ended_cookie) or small.any():
            left = self._recorded[~is_in_sorted(joined.ended_cookie, self._recorded)]
            self._recorded = ascending(left, destroyed[small])

    def _totals(self, changes: PollChanges, ended: NDArray[np.void]) -> LifecycleStep:
        """Return the connections that opened and `ended`; one that no poll saw counts as opened when it ends."""
        joined, rows = changes.join, changes.join.rows
        again = (joined.old_state == State.CLOSED) & ~np.isin(rows.state[joined.changed], _NOT_CONNECTIONS)
        established = joined.changed[changes.was_half_open(joined.changed_previous) | again]
        opened = changes.new[~np.isin(rows.state[changes.new], _NOT_CONNECTIONS)]
        opened = np.concatenate((opened, established))
        previous = find_sorted(changes.previous_join.rows.cookie, ended["cookie"])
        at = np.flatnonzero(previous != NOT_FOUND)
        not_counted = ~ended["seen"]
        not_counted[at] |= changes.was_half_open(previous[at])
        unseen = np.flatnonzero(not_counted & ~is_in_sorted(rows.cookie, ended["cookie"]))
        owner = self._owners.register(rows.owner[opened], rows.owners)
        return LifecycleStep(
            np.concatenate((take_rows(rows.table, opened), take_rows(ended["row"], unseen))),
            np.concatenate((rows.role[opened], ended["role"][unseen])),
            np.concatenate((owner, ended["owner"][unseen])),
            self._opened_owners.step(rows.cookie[opened], owner, ended, joined),
            ended,
        )


def _state_key(cookie: NDArray[np.uint64], state: NDArray[np.uint8] | int) -> NDArray[np.uint64]:
    """Return one number per cookie and state."""
    return cookie << np.uint64(4) | np.asarray(state, np.uint64)


def _slices(count: int) -> Iterator[NDArray[np.intp]]:
    """Yield the indices from 0 to `count` in parts that one step works on together; at least one, perhaps empty."""
    for begin in range(0, max(count, 1), BUDGET.slice):
        yield np.arange(begin, min(begin + BUDGET.slice, count))


def _reported_states(events: NDArray[np.void]) -> list[NDArray[np.uint64]]:
    """Return the states in trace events as `_state_key`s."""
    changes = take_rows(events, np.flatnonzero(events["kind"] == TraceEventKind.STATE))
    return [_state_key(changes["cookie"], changes[name]) for name in ("old", "new")]


def _is_unfinished(
    sockets: NDArray[np.void], destroyed: NDArray[np.uint64], polled: NDArray[np.uint64], begin: float
) -> NDArray[np.bool_]:
    """Return which TRACED_SOCKETs have no destroy event, are `polled`, or ended after the `begin` of the dump."""
    cookie = sockets["cookie"]
    return ~is_in_sorted(destroyed, cookie) | is_in_sorted(polled, cookie) | (sockets["destroyed"] >= begin)


def _without_traced_ends(
    transitions: NDArray[np.void], sockets: NDArray[np.void], changes: PollChanges
) -> NDArray[np.void]:
    """Return polled transitions without those to a TIME_WAIT that began when the trace saw the full socket close.

    One that began later was an orphan in FIN_WAIT_2 before, which is a small socket too.
    """
    waits = np.flatnonzero(transitions["new"] == State.TIME_WAIT)
    at = find_sorted(sockets["cookie"], transitions["cookie"][waits])
    waits, closed = waits[at != NOT_FOUND], take_rows(sockets, at[at != NOT_FOUND])
    sample, previous = changes.sample, changes.previous
    passed_s = transitions["time"][waits] - (sample.time - sample.monotonic) - closed["closed"]
    later = (passed_s > transitions["slack"][waits] + TICK_S) & (closed["last_state"] == State.FIN_WAIT_2)
    was_small = closed["closed"] < (previous.begin_monotonic_s or previous.monotonic)
    later |= was_small & (transitions["old"][waits] == State.FIN_WAIT_2)
    transitions["old"][waits[later]] = State.FIN_WAIT_2
    return np.delete(transitions, waits[~later & ~np.isnan(closed["closed"])])


def _event_transitions(records: NDArray[np.void]) -> NDArray[np.void]:
    """Return the transitions to CLOSED that destroy events reported."""
    at = np.flatnonzero(records["origin"] == Origin.EVENT)
    end, cookie, state, slack = (records[name][at] for name in ("end", "cookie", "state", "end_slack"))
    return transition_rows(end, cookie, state, State.CLOSED, Origin.EVENT, slack)


_KINDS = np.zeros(256, np.uint8)
_KINDS[[TraceEventKind.STATE, TraceEventKind.RETRANSMIT, TraceEventKind.RESET_SENT, TraceEventKind.RESET_RECEIVED,
    TraceEventKind.DROP, TraceEventKind.ERROR]] = (
    TransitionKind.STATE, TransitionKind.RETRANSMITTED, TransitionKind.RESET_SENT, TransitionKind.RESET_RECEIVED,
        TransitionKind.DROPPED, TransitionKind.ERROR,
)  # fmt: skip
_OLD_STATES = np.arange(256, dtype=np.uint8)
_OLD_STATES[[State.CLOSED, State.LISTEN]] = 0  # not states of a connection


def _trace_transitions(events: NDArray[np.void], sample: Sample) -> NDArray[np.void]:
    kinds = _KINDS[events["kind"]]
    at = np.flatnonzero(kinds)
    events = take_rows(events, at)
    time, old = events["time"] + (sample.time - sample.monotonic), _OLD_STATES[events["old"]]
    return transition_rows(time, events["cookie"], old, events["new"], Origin.TRACE, 0.0, kinds[at], events["reason"])
