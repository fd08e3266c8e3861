"""ListenerTable: the listeners of each poll, of which only those that changed are made anew."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import repeat
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.arrays.address_words import hash_addresses, mapped_halves
from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.kernel.netlink import uapi
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


@dataclass(frozen=True, slots=True, eq=False)
class _Stalls:
    """What is known about accept queues from which nothing is taken."""

    stalls: Mapping[int, AcceptStall]
    unmoved: Mapping[int, AcceptStall]
    unlisted: Sequence[int]
    """See _unlisted(); empty where nothing stalls."""
    has_rates: bool

    @classmethod
    def of_poll(cls, poll: Poll, facts: QueueFacts, rows: Rows) -> _Stalls:
        accepting = facts.accepting
        depths = rows.table["idiag_rqueue"]
        unlisted = _unlisted(facts.listener_keys, depths, facts.waiting) if accepting.stalls else ()
        return cls(accepting.stalls, accepting.unmoved, unlisted, bool(poll.elapsed_s))

    def __bool__(self) -> bool:
        return bool(self.stalls or self.unmoved)

    def of(self, cookie: int, group_size: int, waiting_s: float | None) -> AcceptStall | None:
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


@dataclass(frozen=True, slots=True, eq=False)
class _Material:
    """What the listeners of one poll are made from: aligned columns."""

    cookie: NDArray[np.uint64]
    figures: NDArray[np.float64]
    """_Figures"""
    place: NDArray[np.int32]
    """Index in `keys`."""
    keys: tuple[ListenerKey, ...]
    owners: Sequence[Owner | None]
    common: tuple[Any, ...]
    """somaxconn, whether queues are known, and the names of interfaces."""
    stalls: _Stalls

    def make(self, at: int) -> Listener:
        """Return a listener. Setting the slots of a frozen class takes a third of the time."""
        figures, key, cookie = _Figures._make(self.figures[at].tolist()), self.keys[self.place[at]], self.cookie[at]
        somaxconn, queues_known, names = self.common
        limit = int(figures.syn_limit)
        queue = _queue(int(figures.depth), int(figures.limit)) if queues_known else UNKNOWN_QUEUE
        accept_source = accept_limit_source(queue.limit, somaxconn)
        group_size, waiting_s = int(figures.group_size), _known(figures.waiting_s)
        stall, client_reset = self.stalls.of(int(cookie), group_size, waiting_s), 0
        accepted_per_s = _known(figures.accepted_per_s)
        if stall and group_size == 1:
            client_reset, accepted_per_s = self.stalls.unlisted[self.place[at]], 0.0 if self.stalls.has_rates else None
        values = (
            int(cookie), int(figures.family), key.address, key.port, self.owners[at], queue,
            _queue(int(figures.syn_depth), limit if queues_known else None), group_size, _count(figures.drops),
            _known(figures.drops_per_s), key, int(figures.inode), names.get(int(figures.interface), ""),
            _count(figures.peak), int(figures.syn_peak), accept_source,
            LimitSource.SYN_BACKLOG if figures.syn_limit_is_backlog else accept_source, accepted_per_s, stall,
            self.stalls.unmoved.get(int(cookie)), int(figures.waiting), int(figures.client_closed), client_reset,
            waiting_s, bool(figures.waiting_is_minimum), int(figures.retransmitted),
        )  # fmt: skip
        made = object.__new__(Listener)
        for set_slot, value in zip(_SETTERS, values, strict=True):
            set_slot(made, value)
        made.__post_init__()
        return made

    def is_busy(self) -> NDArray[np.bool_]:
        """Return Listener.is_busy of each."""
        if not self.common[1]:
            return np.ones(len(self.cookie), np.bool_)
        return np.asarray((self.figures[:, _OF_BUSY] > 0).any(axis=1))


_OF_BUSY = [
    _Figures._fields.index(name) for name in ("depth", "peak", "drops_per_s", "syn_depth", "syn_peak", "accepted_per_s")
]


class Listeners(Sequence[Listener]):
    """The listeners of one poll, the fullest accept queue first, then by port; each is made when it is asked for."""

    def __init__(self, material: _Material, made: list[Listener | None], order: NDArray[np.intp]) -> None:
        """`made` has those that are kept; `order` are the indices in the order of the sequence."""
        self._material, self._made, self._order = material, made, order

    def _make(self, at: int) -> Listener:
        made = self._made[at]
        if made is None:
            made = self._made[at] = self._material.make(at)
        return made

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, at: int) -> Listener: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Listener, ...]: ...
    def __getitem__(self, at: int | slice) -> Listener | tuple[Listener, ...]:
        if isinstance(at, slice):
            return tuple(map(self._make, self._order[at].tolist()))
        return self._make(int(self._order[at]))

    def __iter__(self) -> Iterator[Listener]:
        return map(self._make, self._order.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def busy(self) -> tuple[Listener, ...]:
        """Return those with Listener.is_busy."""
        return tuple(map(self._make, self._order[self._material.is_busy()[self._order]].tolist()))

    def whose_key(self, is_wanted: Callable[[ListenerKey], bool]) -> tuple[Listener, ...]:
        """Return those whose key is wanted."""
        wanted = np.array([is_wanted(key) for key in self._material.keys], np.bool_)
        return tuple(map(self._make, self._order[wanted[self._material.place[self._order]]].tolist()))

    def with_cookies(self, cookies: Collection[int], most: int | None = None) -> tuple[Listener, ...]:
        """Return those with these cookies, or the first `most` of them."""
        wanted = np.isin(self._material.cookie[self._order], np.array(list(cookies), np.uint64))
        return tuple(map(self._make, self._order[wanted][:most].tolist()))


class ListenerTable:
    """Remembers the listeners of the last poll: one whose figures have not changed is kept, and mostly all are."""

    def __init__(self) -> None:
        self._source: tuple[object, ...] | None = None
        """What the listeners of the last poll were made from."""
        self._owners: dict[Owner | None, int] = {}
        """The owners and their numbers in the figures."""
        self._next_owner = 0
        self._by_port = np.empty(0, np.intp)
        """Indices, ordered by port and address."""
        self._material: _Material | None = None
        self._made: list[Listener | None] = []
        self._listeners: Listeners | None = None

    def step(self, poll: Poll, facts: QueueFacts) -> Listeners:
        """Return every listener of the sample."""
        keys, last = facts.listener_keys, self._material
        rows = poll.rows.take(keys.row)
        source = _source(poll, facts, rows)
        if self._listeners and last and source and source == self._source and keys.keys is last.keys:
            return self._listeners
        names = dict(rows.interfaces) if rows.table["idiag_if"].any() else {}
        material = _Material(
            rows.cookie,
            _figures(poll, facts, rows, self._owner_numbers(rows)),
            keys.key,
            keys.keys,
            [rows.owners[code] if code >= 0 else None for code in rows.owner.tolist()],
            (poll.sample.sysctls.get("somaxconn"), poll.sample.capabilities.queues, names),
            _Stalls.of_poll(poll, facts, rows),
        )
        if last is None or not np.array_equal(last.cookie, rows.cookie):
            self._by_port = _by_port(rows)
        shares = material.figures[:, _DEPTH] / np.maximum(material.figures[:, _LIMIT], 1) * material.common[1]
        order = self._by_port[np.argsort(-shares[self._by_port], kind="stable")]
        self._made = self._kept(last, material) if last else [None] * len(rows)
        self._source, self._material, self._listeners = source, material, Listeners(material, self._made, order)
        return self._listeners

    def _kept(self, last: _Material, now: _Material) -> list[Listener | None]:
        """Return the listeners that are the same as in the last poll; None in place of the others."""
        before = find_sorted(last.cookie, now.cookie)
        kept = (before != NOT_FOUND) & (last.common == now.common)
        kept[kept] = (now.figures[kept] == last.figures[before[kept]]).all(axis=1)
        if now.stalls or last.stalls:  # the time for which nothing was accepted changes in each poll
            kept &= now.figures[:, _DEPTH] == 0
        made = [self._made[at] if at >= 0 else None for at in np.where(kept, before, NOT_FOUND).tolist()]
        if now.keys is last.keys:
            return made
        keys = (now.keys[place] for place in now.place.tolist())
        pairs = zip(made, keys, strict=True)
        return [one if one and one.key == key and one.key.is_spelled_as(key) else None for one, key in pairs]

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


_DEPTH, _LIMIT = _Figures._fields.index("depth"), _Figures._fields.index("limit")


def _by_port(rows: Rows) -> NDArray[np.intp]:
    """Return the indices in the order of the ports, then of the addresses as text, then of the cookies."""
    halves = mapped_halves(rows.table["idiag_src"], rows.table["idiag_family"] == uapi.AF_INET)
    _, first, inverse = np.unique(hash_addresses(halves), return_index=True, return_inverse=True)
    texts = [units.address(high.to_bytes(8) + low.to_bytes(8), uapi.AF_INET6) for high, low in halves[first].tolist()]
    rank = np.empty(len(texts), np.intp)
    rank[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))
    return np.lexsort((rows.cookie, rank[inverse], rows.table["idiag_sport"]))


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
