"""ListenerTable: the listeners of each poll, of which only those that changed are made anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.model.listeners.accept_stalls import AcceptStall, unseen_by_key
from tcpwatch.model.listeners.listener_keys import ListenerKey, ListenerKeys
from tcpwatch.model.listeners.listeners import Listener, QueueFacts
from tcpwatch.model.listeners.queue_limits import (
    UNKNOWN_QUEUE,
    LimitSource,
    Queue,
    accept_limit_source,
    syn_queue_limits,
)
from tcpwatch.model.listeners.waiting_connections import WaitingConnections
from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.rows import Rows


class _Figures(NamedTuple):
    """What a Listener is made from, as numbers; -1 where it is not known."""

    family: float
    inode: float
    interface: float
    owner: float
    """A number for each distinct owner."""
    depth: float
    limit: float
    peak: float
    syn_limit_is_backlog: float
    drops: float
    drops_per_s: float
    group_size: float
    syn_depth: float
    syn_limit: float
    syn_peak: float
    retransmitted: float
    waiting: float
    client_closed: float
    waiting_s: float
    waiting_is_minimum: float
    accepted_per_s: float


class ListenerTable:
    """Makes the listeners of each poll. A Listener whose figures have not changed is kept: mostly all are."""

    def __init__(self) -> None:
        self._common: tuple[Any, ...] = ()
        """What all listeners depend on."""
        self._keys: tuple[ListenerKey, ...] = ()
        self._owners: dict[Owner | None, int] = {}
        """The owners and their numbers in `_figures`."""
        self._next_owner = 0
        self._stalled = False
        self._source: tuple[object, ...] | None = None
        """What the listeners of the last poll were made from."""
        self._cookies, self._figures = np.empty(0, np.uint64), np.empty((0, len(_Figures._fields)))
        self._made: list[Listener] = []
        """Aligned with these."""
        self._by_port: list[int] = []
        """Indices, ordered by port and address."""
        self._listeners: tuple[Listener, ...] = ()
        """In the order of the View."""

    def step(self, poll: Poll, facts: QueueFacts) -> tuple[Listener, ...]:
        """Return every listener of the sample: the fullest accept queue first, then by port."""
        keys = facts.listener_keys
        rows = poll.rows.take(keys.row)
        source = _source(poll, facts, rows)
        if source is not None and source == self._source and keys.keys is self._keys:
            return self._listeners
        self._source = source
        figures = _figures(poll, facts, rows, self._owner_numbers(rows))
        before, kept = self._unchanged(poll, facts, rows, figures)
        anew = np.flatnonzero(~kept)
        self._figures = figures
        if len(anew) or not np.array_equal(rows.cookie, self._cookies):
            made: list[Any] = [self._made[at] if at >= 0 else None for at in before.tolist()]
            of_stalls = _OfStalls.of(poll, facts, rows)
            for at, values in zip(anew.tolist(), figures[anew].tolist(), strict=True):
                key, code = int(keys.key[at]), int(rows.owner[at])
                owner = rows.owners[code] if code >= 0 else None
                made[at] = self._listener(
                    int(rows.cookie[at]), keys.keys[key], owner, _Figures._make(values), of_stalls, key
                )
            self._order(rows.cookie, made)
        return self._listeners

    def _owner_numbers(self, rows: Rows) -> NDArray[np.float64]:
        """Return a number for the owner of each row, equal for equal owners of this poll and the one before."""
        codes, inverse = np.unique(np.maximum(rows.owner, -1), return_inverse=True)
        before, self._owners = self._owners, {}
        for owner in (rows.owners[code] if code >= 0 else None for code in codes.tolist()):
            if owner not in self._owners:
                self._next_owner += owner not in before
                self._owners[owner] = before.get(owner, self._next_owner)
        numbers = [self._owners[rows.owners[code] if code >= 0 else None] for code in codes.tolist()]
        return np.array(numbers, np.float64)[inverse]

    def _unchanged(
        self, poll: Poll, facts: QueueFacts, rows: Rows, figures: NDArray[np.float64]
    ) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Return the index of each listener in the previous poll, or NOT_FOUND, and whether it can be kept."""
        keys, accepting = facts.listener_keys, facts.accepting
        names = dict(rows.interfaces) if rows.table["idiag_if"].any() else {}
        common = poll.sample.sysctls.get("somaxconn"), poll.sample.capabilities.queues, names
        before = find_sorted(self._cookies, rows.cookie)
        kept = (before != NOT_FOUND) & (common == self._common)
        kept[kept] = (figures[kept] == self._figures[before[kept]]).all(axis=1)
        stalled = bool(accepting.stalls or accepting.unmoved)
        if stalled or self._stalled:  # the time for which nothing was accepted changes in each poll
            kept &= rows.table["idiag_rqueue"] == 0
        if keys.keys is not self._keys:
            for at in np.flatnonzero(kept).tolist():
                key, now = self._made[before[at]].key, keys.keys[keys.key[at]]
                kept[at] = key == now and key.is_spelled_as(now)
        self._common, self._stalled, self._keys = common, stalled, keys.keys
        return before, kept

    def _listener(
        self, cookie: int, key: ListenerKey, owner: Owner | None, figures: _Figures, of_stalls: _OfStalls, place: int
    ) -> Listener:
        """Return the listener with these figures. Setting the slots of a frozen class takes a third of the time."""
        somaxconn, queues_known, names = self._common
        limit = int(figures.syn_limit)
        queue = _queue(int(figures.depth), int(figures.limit)) if queues_known else UNKNOWN_QUEUE
        accept_source = accept_limit_source(queue.limit, somaxconn)
        group_size, waiting_s = int(figures.group_size), _known(figures.waiting_s)
        stall, client_reset = of_stalls.stall(cookie, group_size, waiting_s), 0
        accepted_per_s = _known(figures.accepted_per_s)
        if stall and group_size == 1:
            client_reset, accepted_per_s = of_stalls.unlisted[place], 0.0 if of_stalls.has_rates else None
        values = (
            cookie, int(figures.family), key.address, key.port, owner, queue,
            _queue(int(figures.syn_depth), limit if queues_known else None), group_size, _count(figures.drops),
            _known(figures.drops_per_s), key, int(figures.inode), names.get(int(figures.interface), ""),
            _count(figures.peak), int(figures.syn_peak), accept_source,
            LimitSource.SYN_BACKLOG if figures.syn_limit_is_backlog else accept_source, accepted_per_s, stall,
            of_stalls.unmoved.get(cookie), int(figures.waiting), int(figures.client_closed), client_reset, waiting_s,
            bool(figures.waiting_is_minimum), int(figures.retransmitted),
        )  # fmt: skip
        made = object.__new__(Listener)
        for set_slot, value in zip(_SETTERS, values, strict=True):
            set_slot(made, value)
        made.__post_init__()
        return made

    def _order(self, cookies: NDArray[np.uint64], made: list[Listener]) -> None:
        if not np.array_equal(cookies, self._cookies):
            by_port = sorted((one.local_port, one.local_address, one.cookie, at) for at, one in enumerate(made))
            self._cookies, self._by_port = cookies, [at for *_, at in by_port]
        self._made, ordered = made, [made[at] for at in self._by_port]
        fullest = sorted((one for one in ordered if one.accept_queue.depth), key=lambda one: -one.accept_queue.share)
        rest = [one for one in ordered if not one.accept_queue.depth] if fullest else ordered
        self._listeners = (*fullest, *rest)


def _source(poll: Poll, facts: QueueFacts, rows: Rows) -> tuple[object, ...] | None:
    """Return all that the listeners are made from; None if something was accepted, or waits, so that figures change."""
    sample, accepting, accepted = poll.sample, facts.accepting, facts.accepted
    if accepting.stalls or accepting.unmoved or len(facts.waiting.key) or (accepted is not None and accepted.any()):
        return None
    names = ("idiag_family", "idiag_inode", "idiag_if", "idiag_rqueue", "idiag_wqueue")
    half_open = facts.half_open.count_by_key(len(facts.listener_keys.keys), retransmitted=True)
    arrays = (rows.cookie, *(rows.table[name] for name in names), facts.syn_depth, facts.syn_peak, half_open)
    sysctls = ("somaxconn", "tcp_syncookies", "tcp_max_syn_backlog")
    return (
        *(array.tobytes() for array in arrays),
        [rows.owners[code] if code >= 0 else None for code in rows.owner.tolist()],
        [sample.sysctls.get(name) for name in sysctls],
        dict(sample.interfaces),
        sample.capabilities.queues,
        sample.accept_queue_peaks,
        sample.drops,
        poll.previous.drops if poll.previous else None,
        bool(poll.elapsed_s),
        accepted is None,
    )


_queue = lru_cache(4096)(Queue)
_SETTERS = tuple(vars(Listener)[each.name].__set__ for each in fields(Listener) if each.init)


def _known(figure: float) -> float | None:
    return figure if figure >= 0 else None


def _count(figure: float) -> int | None:
    return int(figure) if figure >= 0 else None


def _figures(poll: Poll, facts: QueueFacts, rows: Rows, owners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return _Figures as columns, with a row for each listening row."""
    sample, keys = poll.sample, facts.listener_keys
    place, count, cookies = keys.key, len(keys.keys), rows.cookie.tolist()
    queues_known, watched = sample.capabilities.queues, sample.accept_queue_peaks
    depth = rows.table["idiag_rqueue"].astype(np.float64)
    peak: Any = -1
    if queues_known and watched:
        peaks = np.fromiter(map(watched.get, cookies, repeat(-1)), np.float64, len(cookies))
        peak = np.where(peaks < 0, -1, np.maximum(peaks, depth))
    limits, is_backlog = syn_queue_limits(sample, keys.row)
    of_keys: list[NDArray[Any]] = [
        np.bincount(place, minlength=count),
        facts.syn_depth,
        np.bincount(place, limits, count),
        facts.syn_peak,
        facts.half_open.count_by_key(count, retransmitted=True),
        *_waiting_figures(poll, facts.waiting, count),
        facts.accepted / poll.elapsed_s if facts.accepted is not None and poll.elapsed_s else np.full(count, -1.0),
    ]
    columns = [
        rows.table["idiag_family"], rows.table["idiag_inode"], rows.table["idiag_if"], owners, depth,
        rows.table["idiag_wqueue"], peak, is_backlog & queues_known, *_drops(poll, cookies),
        *(column[place] for column in of_keys),
    ]  # fmt: skip
    figures = np.empty((len(place), len(columns)))
    for at, column in enumerate(columns):
        figures[:, at] = column
    return figures


def _drops(poll: Poll, cookies: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the drops of each listener and their rate."""
    drops, before = (
        np.fromiter(map(known.get, cookies, repeat(-1)), np.float64, len(cookies))
        for known in (poll.sample.drops, poll.previous.drops if poll.previous else {})
    )
    if not poll.elapsed_s:
        return drops, np.full(len(drops), -1.0)
    rise = (drops - before) % (1 << 32)  # sk_drops is a u32 that may wrap
    return drops, np.where((drops < 0) | (before < 0), -1.0, rise / poll.elapsed_s)


def _waiting_figures(poll: Poll, waiting: WaitingConnections, count: int) -> list[NDArray[Any]]:
    """Return for each key the connections that wait, those closed, for how long, and whether that is a minimum."""
    if not len(waiting.key):
        return [np.zeros(count), np.zeros(count), np.full(count, -1.0), np.zeros(count)]
    is_minimum = np.zeros(count, np.bool_)
    is_minimum[waiting.key[~waiting.arrival_seen]] = True
    waits = np.bincount(waiting.key, minlength=count)
    since = np.maximum(poll.rows.time - waiting.oldest_by_key(count), 0.0)
    closed = np.bincount(waiting.key[waiting.client_closed], minlength=count)
    return [waits, closed, np.where(waits > 0, since, -1.0), is_minimum]


@dataclass(frozen=True, slots=True, eq=False)
class _OfStalls:
    """What is known about accept queues from which nothing is taken."""

    stalls: Mapping[int, AcceptStall]
    unmoved: Mapping[int, AcceptStall]
    unlisted: Sequence[int]
    """See _unlisted(); empty where nothing stalls."""
    has_rates: bool

    @classmethod
    def of(cls, poll: Poll, facts: QueueFacts, rows: Rows) -> _OfStalls:
        accepting = facts.accepting
        depths = rows.table["idiag_rqueue"]
        unlisted = _unlisted(facts.listener_keys, depths, facts.waiting) if accepting.stalls else ()
        return cls(accepting.stalls, accepting.unmoved, unlisted, bool(poll.elapsed_s))

    def stall(self, cookie: int, group_size: int, waiting_s: float | None) -> AcceptStall | None:
        """Return the stall of a listener."""
        stall = self.stalls.get(cookie)
        if stall is None or not stall.never_accepted:
            return stall
        # What waits at a socket that has never accepted anything has found it so.
        for_s = max(stall.for_s, waiting_s or 0.0) if group_size == 1 else stall.for_s
        return AcceptStall(for_s) if for_s else None


def _unlisted(keys: ListenerKeys, depths: NDArray[np.uint32], waiting: WaitingConnections) -> list[int]:
    """Return for each key the connections that its queues hold and the sample does not list.

    All 0 if the listener of some connection is not known, or certainly not the right one.
    """
    unlisted = unseen_by_key(keys, depths, waiting)
    certain = not waiting.without_listener and bool((unlisted >= 0).all())
    return [count if certain else 0 for count in unlisted.tolist()]
