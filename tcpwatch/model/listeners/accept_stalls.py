"""AcceptStalls: since when it is certain that a listening socket has accepted nothing.

accept() takes the first connection of a queue (reqsk_queue_remove in include/net/request_sock.h), and nothing else
takes one out: a connection that is reset keeps its place, unseen, until it is accepted. There are two proofs:

- A queue whose connections were all visible in one sample has accepted none of them as long as all still wait. If some
  were not visible, it may have accepted these.
- Each connection that enters any accept queue of a network namespace raises PassiveOpens
  (tcp_create_openreq_child in net/ipv4/tcp_minisocks.c). If the queues together grew by as much as the counter, no
  socket has accepted any.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.model.listeners.listener_keys import ListenerKey, ListenerKeys
from tcpwatch.model.listeners.waiting_connections import WaitingConnections
from tcpwatch.sample import Sample


@dataclass(frozen=True, slots=True)
class AcceptStall:
    """A socket with waiting connections that has accepted none for some time."""

    for_s: float
    """It has accepted nothing for so long, at least."""
    since_first_sample: bool = False
    """Whether it accepted anything before that is not known."""
    never_accepted: bool = False
    """Nothing was ever accepted in this network namespace."""
    unseen: int = 0
    """Connections that the sample did not show when it began, as they had been reset: it may have accepted these."""


@dataclass(frozen=True, slots=True)
class AcceptFigures:
    """The proofs of one poll."""

    stalls: dict[int, AcceptStall]
    """Cookie of the listener → how long it has accepted nothing; absent where that is not certain."""
    unmoved: dict[int, AcceptStall]
    """Cookie of the listener → how long it has accepted none of the visible connections."""
    accepted_at_most: int | None
    """Connections that all listeners together have accepted since the previous sample; None if unknown."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """A sample whose visible connections still wait."""

    at: float
    unseen: int
    """Other connections in the queue at that time."""


@dataclass(frozen=True, slots=True)
class _Queue:
    """The accept queue of one socket in the previous sample; times are monotonic seconds."""

    depth: int
    stalled_since: float | None
    """Nothing was accepted since then."""
    all_visible: _Mark | None
    """The mark of a sample that showed all connections of the key."""
    some_visible: _Mark | None
    """That of any sample, for a socket that is alone."""


@dataclass(frozen=True, slots=True, eq=False)
class _Before:
    """The previous sample."""

    monotonic: float
    keys: tuple[ListenerKey, ...]
    cookie: NDArray[np.uint64]
    """Waiting connections, ascending."""
    key: NDArray[np.int32]
    entered: NDArray[np.float64]
    """Monotonic seconds of the first sample with each of them."""
    total_depth: int
    passive_opens: int | None


_NOTHING_YET = _Before(0.0, (), np.empty(0, np.uint64), np.empty(0, np.int32), np.empty(0), 0, 0)
"""The state of a new network namespace."""


class AcceptStalls:
    """Remembers the accept queues of the previous sample."""

    def __init__(self) -> None:
        self._before = _NOTHING_YET
        self._queues: dict[int, _Queue] = {}
        self._first: float | None = None
        self._never_accepted = True

    def step(self, sample: Sample, keys: ListenerKeys, waiting: WaitingConnections) -> AcceptFigures:
        """Return the proofs of this sample."""
        if not sample.capabilities.queues:
            return AcceptFigures({}, {}, None)
        before, now = self._before, sample.monotonic
        depths = sample.table["idiag_rqueue"][keys.row]
        total_depth = int(depths.sum())
        # A queue that an incomplete dump lacks would seem to grow later.
        whole = not (sample.completeness.interrupted or sample.completeness.answers_lost)
        passive_opens = sample.counters.get("PassiveOpens") if whole else None
        at_most = _accepted_at_most(before, total_depth, passive_opens)
        self._never_accepted = self._never_accepted and at_most == 0
        entered = _entered(before, waiting, now)
        queues = self._step_queues(sample, keys, depths, waiting, at_most == 0) if total_depth else {}
        first_step = self._first is None
        self._first = now if first_step else self._first
        self._queues = queues
        self._before = _Before(now, keys.keys, waiting.cookie, waiting.key, entered, total_depth, passive_opens)
        stalls = {cookie: stall for cookie, queue in queues.items() if (stall := self._stall(queue, now))}
        unmoved = {cookie: stall for cookie, queue in queues.items() if (stall := self._unmoved(queue, now))}
        return AcceptFigures(stalls, unmoved, None if first_step else at_most)

    def _step_queues(
        self,
        sample: Sample,
        keys: ListenerKeys,
        depths: NDArray[np.uint32],
        waiting: WaitingConnections,
        none_accepted: bool,
    ) -> dict[int, _Queue]:
        """Return the queues that hold connections, by the listener's cookie."""
        first_lost, unseen = _first_lost(self._before, waiting), unseen_by_key(keys, depths, waiting)
        visible, sizes = np.bincount(waiting.key, minlength=len(keys.keys)), np.bincount(keys.key)
        queues: dict[int, _Queue] = {}
        for at in np.flatnonzero(depths).tolist():
            cookie, key, depth = int(sample.cookie[keys.row[at]]), int(keys.key[at]), int(depths[at])
            lost = first_lost.get(keys.keys[key], np.inf)
            mark = _Mark(sample.monotonic, int(unseen[key]))
            alone = bool(visible[key]) and mark.unseen >= 0 and bool(sizes[key] == 1)
            queues[cookie] = self._queue(depth, self._queues.get(cookie), lost, mark, alone, none_accepted)
        return queues

    def _queue(
        self, depth: int, before: _Queue | None, lost: float, mark: _Mark, alone: bool, none_accepted: bool
    ) -> _Queue:
        """Return the queue after this sample; of the connections that no longer wait, the oldest came at `lost`."""
        all_visible = _kept(before.all_visible, lost) if before else None
        some_visible = _kept(before.some_visible, lost) if before else None
        still_proved = none_accepted or all_visible is not None
        if all_visible is None and mark.unseen == 0:
            all_visible = mark
        if alone and (some_visible is None or depth < (before.depth if before else 0)):
            some_visible = mark
        since: float | None = None
        if before is not None and depth >= before.depth and still_proved:
            since = self._before.monotonic if before.stalled_since is None else before.stalled_since
        elif all_visible is not None or none_accepted:
            since = mark.at
        return _Queue(depth, since, all_visible, some_visible)

    def _stall(self, queue: _Queue, now: float) -> AcceptStall | None:
        since = queue.stalled_since
        if since is None or (since == now and not self._never_accepted):
            return None
        from_first = since == self._first
        return AcceptStall(now - since, from_first, from_first and self._never_accepted)

    def _unmoved(self, queue: _Queue, now: float) -> AcceptStall | None:
        mark = queue.some_visible
        if mark is None or mark.at == now:
            return None
        return AcceptStall(now - mark.at, mark.at == self._first, unseen=mark.unseen)


def _kept(mark: _Mark | None, lost: float) -> _Mark | None:
    return mark if mark is not None and mark.at < lost else None


def _accepted_at_most(before: _Before, total_depth: int, passive_opens: int | None) -> int | None:
    """Return how many connections have left the accept queues at most; None if the counter is unknown or was reset."""
    if passive_opens is None or before.passive_opens is None or passive_opens < before.passive_opens:
        return None
    return max(0, passive_opens - before.passive_opens - (total_depth - before.total_depth))


def _entered(before: _Before, waiting: WaitingConnections, now: float) -> NDArray[np.float64]:
    if np.array_equal(before.cookie, waiting.cookie):
        return before.entered
    entered = np.full(len(waiting.cookie), now)
    place = find_sorted(before.cookie, waiting.cookie)
    known = np.flatnonzero(place != NOT_FOUND)
    entered[known] = before.entered[place[known]]
    return entered


def _first_lost(before: _Before, waiting: WaitingConnections) -> dict[ListenerKey, float]:
    """Return when the oldest of those connections came that waited and wait no longer, of each key that lost one."""
    if np.array_equal(before.cookie, waiting.cookie):
        return {}
    lost = find_sorted(waiting.cookie, before.cookie) == NOT_FOUND
    first = np.full(len(before.keys), np.inf)
    np.minimum.at(first, before.key[lost], before.entered[lost])
    return {before.keys[at]: float(first[at]) for at in np.flatnonzero(first < np.inf).tolist()}


def unseen_by_key(keys: ListenerKeys, depths: NDArray[np.uint32], waiting: WaitingConnections) -> NDArray[np.intp]:
    """Return for each key how many connections its queues hold and the sample does not show.

    A negative number shows that connections of another listener are among the visible ones.
    """
    size = len(keys.keys)
    held: NDArray[np.intp] = np.bincount(keys.key, depths, size).astype(np.intp)
    held -= np.bincount(waiting.key, minlength=size)
    return held
