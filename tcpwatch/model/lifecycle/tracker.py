"""Lives: what happened to flows since the last sample, from polls, destroy events and the trace; each end counted once.

An end is told by a destroy event; where none came, by the next poll. A flow whose full socket has ended may go on as a
small one, in TIME_WAIT or FIN_WAIT_2: its cookie is the same, so that its story goes on, and its end is not told again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.append_log import Log
from tcpwatch.arrays.lookup import NOWHERE, among, ascending, places
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, Kind
from tcpwatch.model.lifecycle.archive import CLOSED, Past
from tcpwatch.model.lifecycle.cookie_aliases import Aliases, renamed
from tcpwatch.model.lifecycle.destroyed_connections import Connections, connections
from tcpwatch.model.lifecycle.poll_changes import Polled
from tcpwatch.model.lifecycle.records import improved, records
from tcpwatch.model.lifecycle.traced_sockets import Followed, Threads, by_cookie
from tcpwatch.model.lifecycle.transitions import TRANSITION, Finder, Origin, What, made
from tcpwatch.model.sockets.join import Joined
from tcpwatch.model.sockets.owner_registry import OwnerCodes
from tcpwatch.model.states import State
from tcpwatch.sample import Sample, gathered

OVER_STEPS = 3
AWAITED = 16_384
"""Flows that a poll found gone, whose destroy event may still come: an application may hold a dead socket for hours."""
_NOT_FLOWS = (State.LISTEN, State.CLOSED)
_SMALL = (State.TIME_WAIT, State.FIN_WAIT_2)
_NOTHING_TRACED = np.empty(0, TRACE_EVENT)


@dataclass(frozen=True, slots=True, eq=False)
class Lived:
    """What one step adds to the totals."""

    opened: NDArray[np.void]
    """uapi.SOCKET rows of flows that opened."""
    opened_role: NDArray[np.uint8]
    opened_owner: NDArray[np.int32]
    """For Past.owner."""
    ended: NDArray[np.void]
    """past.CLOSED of flows that ended, each once."""


_NOTHING_LIVED = Lived(np.empty(0, uapi.SOCKET), np.empty(0, np.uint8), np.empty(0, np.int32), np.empty(0, CLOSED))


class Lives:
    """Remembers, in a bounded memory."""

    def __init__(self, memory_mib: int = 64) -> None:
        half = memory_mib * (1 << 20) // 2
        self._closed = Log(CLOSED, max(1_000, half // CLOSED.itemsize))
        self._told = Log(TRANSITION, max(10_000, half // TRANSITION.itemsize))
        self._finder = Finder()
        self._owners = OwnerCodes()
        self._threads = Threads()
        self._aliases = Aliases()
        self._recorded = np.empty(0, np.uint64)
        """Flows that go on as small sockets, whose full socket's end is recorded; ascending."""
        self._awaited = np.empty(0, np.uint64)
        """Cookies of those that a poll found gone, without an event; the latest last."""
        self._before_that = np.empty(0, np.uint64)
        """Cookies of the step before's destroy events: the trace may tell of them later."""
        self._over: deque[NDArray[np.void]] = deque(maxlen=OVER_STEPS)
        """traced.THREAD of the last steps' sockets that the trace saw destroyed: the event may come later."""
        self._ended = 0
        self.foreign = 0
        """Sockets of other namespaces that the trace told of."""
        self.unsure = 0
        """Living sockets of the trace of which it is not known whose they are."""

    @property
    def past(self) -> Past:
        """All that is remembered, frozen."""
        return Past(
            self._closed.chunks,
            self._told.chunks,
            self._owners.owners,
            self._owners.begin,
            self._closed.written,
            self._told.written,
            self._ended,
            self._finder,
        )

    def begin(self, joined: Joined, sample: Sample) -> None:
        """With the first sample: flows that opened since the trace began, and that live, have their beginning."""
        if sample.traced is not None:
            rows = joined.rows
            followed = self._threads.step(
                sample.traced.events,
                sample.monotonic,
                lambda cookies: among(rows.cookie, cookies),
                lambda: (rows.table, rows.cookie),
            )
            self._told.add(_of_trace(followed.events, sample))

    def step(self, joined: Joined, before: Joined, sample: Sample, earlier: Sample) -> Lived:
        """What happened between two samples."""
        if self._nothing_happened(joined, sample):
            return _NOTHING_LIVED
        polled = Polled(joined, before, sample, earlier)
        events = connections(sample.destroyed)
        followed = self._follow(polled, events)
        if sample.destroyed is not None:
            aliases = self._aliases.step(joined.rows, joined.new, events.table, events.when)
            events = events.renamed(aliases)
            for found in (followed.events, followed.ended):
                found["cookie"] = renamed(found["cookie"], aliases)
        self._tell_polls(polled, _known(followed.events, events.cookie))
        self._over.append(followed.ended)
        threads = by_cookie(np.concatenate((followed.closed, *self._over)))
        reasons = sample.traced.reset_reasons if sample.traced else {}
        late = self._late(polled, events.cookie)
        if late.any():
            self._improve(events.take(np.flatnonzero(late)), threads, reasons)
            events = events.take(np.flatnonzero(~late))
        found, counted = records(polled, events, self._gone(polled, events.cookie), threads, reasons, self._owners)
        self._closed.add(found)
        self._told.add(_of_events(found))
        self._told.add(_of_trace(followed.events, sample))
        self._remember(joined, found, events.cookie)
        self._ended += int(np.count_nonzero(counted))
        return self._lived(polled, found if counted.all() else gathered(found, np.flatnonzero(counted)))

    def _nothing_happened(self, joined: Joined, sample: Sample) -> bool:
        """An idle host costs nothing."""
        told = (sample.destroyed.table if sample.destroyed else (), sample.traced.events if sample.traced else ())
        moved = (joined.new, joined.changed, joined.gone, *told, self._before_that, *self._over)
        return not any(map(len, moved)) and self._threads.idle

    def _follow(self, polled: Polled, events: Connections) -> Followed:
        sample, joined = polled.sample, polled.joined
        recent, self._before_that = ascending(self._before_that, events.cookie), events.cookie

        def ours(cookies: NDArray[np.uint64]) -> NDArray[np.bool_]:
            known = (joined.rows.cookie, polled.before.rows.cookie, recent, np.sort(self._awaited))
            there: NDArray[np.bool_] = np.any([among(column, cookies) for column in known], axis=0)
            return there

        def moved() -> tuple[NDArray[np.void], NDArray[np.uint64]]:
            at, closed = np.concatenate((polled.new, joined.changed)), joined.closed
            table = np.concatenate((gathered(joined.rows.table, at), np.ascontiguousarray(closed.table)))
            return table, np.concatenate((joined.rows.cookie[at], closed.cookie))

        traced = sample.traced.events if sample.traced else _NOTHING_TRACED
        followed = self._threads.step(traced, sample.monotonic, ours, moved)
        self.foreign += followed.foreign
        self.unsure = followed.unsure
        return followed

    def _tell_polls(self, polled: Polled, told: NDArray[np.uint64]) -> None:
        """What nobody `told` better in this step.

        A half-open connection is told of when it became another, or vanished: a flood's never do, or all at once.
        """
        joined, rows, old = polled.joined, polled.joined.rows, polled.before.rows
        time, slack = polled.sample.time, polled.elapsed_s
        grown = joined.was[polled.was_half_open(joined.was)]
        half, full = polled.gone
        begun = np.concatenate((grown, half))
        begun = begun[old.born[begun]]
        new = polled.new[~among(told, _state_key(rows.cookie[polled.new], rows.state[polled.new]))]
        kept = np.flatnonzero(~among(told, _state_key(rows.cookie[joined.changed], rows.state[joined.changed])))
        changed = joined.changed[kept]
        over = among(told, _state_key(old.cookie[full], State.CLOSED)) & ~np.isin(old.state[full], _SMALL)
        left = np.concatenate((half, full[~over]))
        for part in (
            made(old.first_seen[begun], old.cookie[begun], 0, State.SYN_RCVD, Origin.POLL, slack),
            polled.told(new, 0),
            polled.told(changed, joined.old_state[kept]),
            made(time, old.cookie[left], old.state[left], 0, Origin.POLL, slack),
        ):
            self._told.add(part)

    def _gone(self, polled: Polled, told: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Rows that a poll found gone and no event told of, now or when they became small."""
        half, full = polled.gone
        cookies = polled.before.rows.cookie[full]
        silent = ~among(np.sort(told), cookies) & ~among(self._recorded, cookies)
        silent &= ~np.isin(polled.before.rows.state[full], _NOT_FLOWS)
        return np.concatenate((half[~among(np.sort(told), polled.before.rows.cookie[half])], full[silent]))

    def _late(self, polled: Polled, told: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which events are of flows that a poll had found gone; not of those whose socket was connected again."""
        if len(self._awaited):
            moved = np.concatenate((polled.new, polled.joined.changed))
            alive = moved[polled.sample.state[moved] != State.CLOSED]
            self._awaited = self._awaited[~np.isin(self._awaited, polled.joined.rows.cookie[alive])]
        return np.isin(told, self._awaited)

    def _improve(self, events: Connections, threads: NDArray[np.void], reasons: Mapping[int, str]) -> None:
        """Late events: the flow's end was told by a poll; its last figures come now."""
        self._awaited = self._awaited[~np.isin(self._awaited, events.cookie)]
        for chunk in self._closed.chunks:
            at = np.flatnonzero(among(events.cookie, np.ascontiguousarray(chunk["cookie"])))
            if len(at):
                found = gathered(chunk, at)
                told = events.take(places(events.cookie, found["cookie"]))
                self._closed.add(improved(found, told, threads, reasons))

    def _remember(self, joined: Joined, found: NDArray[np.void], told: NDArray[np.uint64]) -> None:
        by_poll = found[len(told) :]
        full = by_poll["cookie"][by_poll["state"] != State.TIME_WAIT]
        self._awaited = np.concatenate((self._awaited, full))[-AWAITED:]
        lives = among(joined.rows.cookie, told)
        if len(joined.ended_cookie) or lives.any():
            left = self._recorded[~among(joined.ended_cookie, self._recorded)]
            self._recorded = ascending(left, told[lives])

    def _lived(self, polled: Polled, ended: NDArray[np.void]) -> Lived:
        joined, rows = polled.joined, polled.joined.rows
        again = (joined.old_state == State.CLOSED) & ~np.isin(rows.state[joined.changed], _NOT_FLOWS)
        grown = joined.changed[polled.was_half_open(joined.was) | again]
        opened = np.concatenate((polled.new[~np.isin(rows.state[polled.new], _NOT_FLOWS)], grown))
        was = places(polled.before.rows.cookie, ended["cookie"])
        there = np.flatnonzero(was != NOWHERE)
        first_told = ~ended["seen"]
        first_told[there] |= polled.was_half_open(was[there])
        unseen = np.flatnonzero(first_told & ~among(rows.cookie, ended["cookie"]))
        return Lived(
            np.concatenate((gathered(rows.table, opened), gathered(ended["row"], unseen))),
            np.concatenate((rows.role[opened], ended["role"][unseen])),
            np.concatenate((self._owners.of(rows.owner[opened], rows.owners), ended["owner"][unseen])),
            ended,
        )


def _state_key(cookie: NDArray[np.uint64], state: NDArray[np.uint8] | int) -> NDArray[np.uint64]:
    """One number for both."""
    return cookie << np.uint64(4) | np.asarray(state, np.uint64)


def _known(events: NDArray[np.void], ended: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The states of flows that the trace told of, and ends that events told of, as `_state_key`, ascending."""
    changes = gathered(events, np.flatnonzero(events["kind"] == Kind.STATE))
    keys = [_state_key(changes["cookie"], changes[name]) for name in ("old", "new")]
    return ascending(*keys, _state_key(ended, State.CLOSED))


def _of_events(found: NDArray[np.void]) -> NDArray[np.void]:
    """The ends that destroy events told."""
    told = np.flatnonzero(found["origin"] == Origin.EVENT)
    end, cookie, state, slack = (found[name][told] for name in ("end", "cookie", "state", "end_slack"))
    return made(end, cookie, state, State.CLOSED, Origin.EVENT, slack)


_WHAT = np.zeros(256, np.uint8)
_WHAT[[Kind.STATE, Kind.RETRANSMIT, Kind.RESET_SENT, Kind.RESET_RECEIVED, Kind.DROP, Kind.ERROR]] = (
    What.STATE, What.RETRANSMITTED, What.RESET_SENT, What.RESET_RECEIVED, What.DROPPED, What.ERROR,
)  # fmt: skip
_FROM = np.arange(256, dtype=np.uint8)
_FROM[[State.CLOSED, State.LISTEN]] = 0  # of a connection these are no states


def _of_trace(events: NDArray[np.void], sample: Sample) -> NDArray[np.void]:
    what = _WHAT[events["kind"]]
    at = np.flatnonzero(what)
    events = gathered(events, at)
    time = events["time"] + (sample.time - sample.monotonic)
    return made(
        time, events["cookie"], _FROM[events["old"]], events["new"], Origin.TRACE, 0.0, what[at], events["reason"]
    )
