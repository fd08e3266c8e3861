"""Teardown: TIME_WAIT and when it ends, CLOSE_WAIT by program, half-closed connections, orphans."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.group_by import run_starts
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NO_PROCESS, UNKNOWN_NOT_LOOKED
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.programs import Program, by_program
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.sockets.since import Since
from tcpwatch.model.states import TIME_WAIT_S, Role, State
from tcpwatch.sample import Sample

TOP = 20
"""Ports in TimeWaitSummary.by_port."""
_MINUTE_S, _MINUTES = 60.0, 5


@dataclass(frozen=True, slots=True, eq=False)
class TimeWaitSummary:
    """The connections in TIME_WAIT."""

    count: int
    server: int
    """Connections of a listener: they only cost memory. The others belong to clients, and occupy their ports."""
    entered_per_s: float | None
    """From the kernel's counter TW; None where it is unknown."""
    left_per_s: float | None
    """Entered minus the growth of `count`, averaged over 10 s because the kernel ends them in batches."""
    ending_by_second: tuple[int, ...]
    """Connections that end in the first second from now, in the second, ...; TIME_WAIT_S entries."""
    by_port: tuple[tuple[int, int], ...]
    """(local port, count) of the connections of listeners, most first; TOP at most."""

    @property
    def client(self) -> int:
        """Return the number of connections that occupy a port of a client on this host."""
        return self.count - self.server


class User(NamedTuple):
    """A user of this host, by name or else user id."""

    uid: int
    name: str

    @property
    def filter(self) -> str:
        """Filter terms for the sockets of this user."""
        return f"user:{self.uid}"

    def __str__(self) -> str:
        return self.name


SocketHolder = Program | ListenerKey | User


@dataclass(frozen=True, slots=True, eq=False)
class HeldSockets:
    """The connections of one holder in one state."""

    state_filter: ClassVar[str]
    holder: SocketHolder
    """The program; or the listener or the user of sockets whose programs are unknown or have few each."""
    count: int
    old: int
    """Older than the threshold."""
    oldest_s: float
    why_hidden: int
    """The most frequent reason for an unknown owner, as an UNKNOWN_... code of the owner finder."""

    @property
    def name(self) -> str:
        """Return `app[12]`, `app (3 processes)`, the listener's endpoint, or the user's name."""
        return self.holder.endpoint if isinstance(self.holder, ListenerKey) else str(self.holder)

    @property
    def key(self) -> Hashable:
        """The holder's identity, which stays the same when processes come and go."""
        return self.holder.key if isinstance(self.holder, Program) else self.holder

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the pids of the program's processes that hold them."""
        return self.holder.pids if isinstance(self.holder, Program) else ()

    @property
    def filter(self) -> str:
        """Filter terms for these sockets."""
        where = self.holder.local_filter if isinstance(self.holder, ListenerKey) else self.holder.filter
        return f"{self.state_filter} {where}" + " -inode:0" * (not isinstance(self.holder, Program))


@dataclass(frozen=True, slots=True, eq=False)
class CloseWaits(HeldSockets):
    """The connections of one holder in CLOSE_WAIT: the peer has closed, the holder has not.

    `count` is the sum of the three kinds; more than that where the source cannot read queues.
    """

    state_filter: ClassVar[str] = "state:close-wait"
    eof_seen: int
    """The application has read to the end (the receive queue is empty) but has not closed."""
    eof_pending: int
    """The application has read the data but not the end (an unread FIN counts as one byte)."""
    data_pending: int
    """The application has not read all data."""
    limit: int | None
    """RLIMIT_NOFILE of the process nearest to it, as each connection holds a descriptor; None where unknown."""
    share: float
    """Share of that limit; 0 where it is unknown."""
    growing: bool
    """The count grew in each of the last five minutes."""
    hidden: int
    """How many of these have an unknown owner."""


@dataclass(frozen=True, slots=True, eq=False)
class HalfClosed(HeldSockets):
    """The connections of one holder in FIN_WAIT_2: it has shut down sending, the peer has not closed."""

    state_filter: ClassVar[str] = "state:fin-wait-2"


@dataclass(frozen=True, slots=True, eq=False)
class Teardown:
    """How the connections of this host end."""

    time_wait: TimeWaitSummary
    close_wait: tuple[CloseWaits, ...]
    """By program, most first."""
    close_wait_spread: tuple[CloseWaits, ...]
    """Enough old ones of one listener, or else of one user, whose programs are unknown or have too few each."""
    close_wait_unaccepted: int
    """CLOSE_WAIT connections in an accept queue: no process holds them yet."""
    half_closed: tuple[HalfClosed, ...]
    """By program, most first."""
    half_closed_hidden: tuple[HalfClosed, ...]
    """By user: those with an unknown owner."""
    orphaned: Mapping[State, int]
    """Sockets in each of CLOSING_STATES that no process holds."""
    owned: Mapping[State, int]
    """Sockets in each of CLOSING_STATES that a process holds."""


CLOSING_STATES = (State.FIN_WAIT_1, State.FIN_WAIT_2, State.LAST_ACK, State.CLOSING)


class TeardownAnalysis:
    """Remembers the ages of CLOSE_WAIT and FIN_WAIT_2, and the counts of the last minutes."""

    def __init__(self, close_wait_s: float, half_closed_s: float, close_wait_count: float = 20) -> None:
        """A connection counts as old from these ages on; `close_wait_count` old ones of a holder are a leak."""
        self._close_wait_s, self._half_closed_s, self._close_wait_count = close_wait_s, half_closed_s, close_wait_count
        # Both states begin with a segment from the peer: its FIN, or its acknowledgement of ours.
        self._close_wait, self._fin_wait = Since("last_ack_recv"), Since("last_ack_recv")
        self._minutes: deque[tuple[float, dict[Hashable, int]]] = deque(maxlen=_MINUTES + 1)
        self._recent: deque[tuple[float, int, int]] = deque()

    @property
    def wanted_tcp_info(self) -> frozenset[int]:
        """Cookies whose tcp_info the next sample should contain."""
        return self._close_wait.wanted_tcp_info | self._fin_wait.wanted_tcp_info

    def step(self, poll: Poll) -> Teardown:
        """Return how the connections of this poll end."""
        rows, sample = poll.rows, poll.sample
        close_wait = sample.rows_in(State.CLOSE_WAIT)
        fin_wait = sample.rows_in(State.FIN_WAIT_2, has_inode=True)
        close_wait_s = rows.time - self._close_wait.step(sample, close_wait, rows.since[close_wait])
        fin_wait_s = rows.time - self._fin_wait.step(sample, fin_wait, rows.since[fin_wait])
        programs, spread = self._close_waits(poll, close_wait, close_wait_s)
        return Teardown(
            time_wait=_time_waits(rows, sample, poll.rates.get("TW"), self._left_per_s(sample)),
            close_wait=programs,
            close_wait_spread=spread,
            close_wait_unaccepted=sample.count(State.CLOSE_WAIT, has_inode=False),
            half_closed=self._half_closed(rows, fin_wait, fin_wait_s),
            half_closed_hidden=self._half_closed_hidden(rows, fin_wait, fin_wait_s),
            orphaned={state: sample.count(state, has_inode=False) for state in CLOSING_STATES},
            owned={state: sample.count(state, has_inode=True) for state in CLOSING_STATES},
        )

    def _close_waits(
        self, poll: Poll, row: NDArray[np.intp], age_s: NDArray[np.float64]
    ) -> tuple[tuple[CloseWaits, ...], tuple[CloseWaits, ...]]:
        """Return those by program; and by listener and user those that no program has many of."""
        rows, sample = poll.rows, poll.sample
        enough, old = self._close_wait_count, age_s >= self._close_wait_s
        counts = self._this_minute(sample.monotonic)
        programs, spread = [], []
        left = (sample.inode[row] != 0) & (rows.owner[row] != UNKNOWN_NOT_LOOKED)
        for part in by_program(rows, row):
            limit = _nearest_limit(part.count_by_pid, sample.descriptor_limits)
            key = part.program.key
            counts[key] = len(part.at)
            growing = self._growing(key)
            programs.append(self._close_waits_of(poll, part.program, row[part.at], age_s[part.at], growing, limit))
            left[part.at] &= programs[-1].old < enough
        for group in (partial(_by_listener, poll), partial(_by_user, rows)):
            at = np.flatnonzero(left)
            if np.count_nonzero(old[at]) < enough:
                break
            for holder, members in group(row[at]):
                part_at = at[members]
                counts[holder] = len(part_at)
                if np.count_nonzero(old[part_at]) >= enough:
                    growing = self._growing(holder)
                    spread.append(self._close_waits_of(poll, holder, row[part_at], age_s[part_at], growing))
                    left[part_at] = False
        return _most_first(programs), _most_first(spread)

    def _close_waits_of(
        self,
        poll: Poll,
        holder: SocketHolder,
        row: NDArray[np.intp],
        age_s: NDArray[np.float64],
        growing: bool,
        limit: tuple[int | None, float] = (None, 0.0),
    ) -> CloseWaits:
        queues_known = poll.sample.capabilities.queues
        unread = poll.sample.table["idiag_rqueue"][row].astype(np.int64) if queues_known else np.full(len(row), -1)
        hidden = poll.rows.owner[row]
        hidden = hidden[hidden < 0]
        return CloseWaits(
            holder=holder,
            eof_seen=int(np.count_nonzero(unread == 0)),
            eof_pending=int(np.count_nonzero(unread == 1)),
            data_pending=int(np.count_nonzero(unread > 1)),
            old=int(np.count_nonzero(age_s >= self._close_wait_s)),
            oldest_s=float(age_s.max()),
            limit=limit[0],
            share=limit[1],
            growing=growing,
            count=len(row),
            hidden=len(hidden),
            why_hidden=_most_frequent(hidden),
        )

    def _half_closed(self, rows: Rows, row: NDArray[np.intp], age_s: NDArray[np.float64]) -> tuple[HalfClosed, ...]:
        parts = by_program(rows, row)
        return _most_first([self._half_closed_of(part.program, age_s[part.at]) for part in parts])

    def _half_closed_hidden(
        self, rows: Rows, row: NDArray[np.intp], age_s: NDArray[np.float64]
    ) -> tuple[HalfClosed, ...]:
        at = np.flatnonzero((rows.owner[row] < 0) & (rows.owner[row] != UNKNOWN_NOT_LOOKED))
        owner, age_s = rows.owner[row[at]], age_s[at]
        groups = _by_user(rows, row[at])
        return _most_first([self._half_closed_of(user, age_s[it], _most_frequent(owner[it])) for user, it in groups])

    def _half_closed_of(
        self, holder: Program | User, age_s: NDArray[np.float64], why_hidden: int = UNKNOWN_NO_PROCESS
    ) -> HalfClosed:
        old = int(np.count_nonzero(age_s >= self._half_closed_s))
        return HalfClosed(holder, len(age_s), old, float(age_s.max()), why_hidden)

    def _left_per_s(self, sample: Sample) -> float | None:
        entered, count = sample.counters.get("TW"), sample.count(State.TIME_WAIT)
        if entered is None:
            return None
        self._recent.append((sample.monotonic, entered, count))
        while len(self._recent) > 2 and sample.monotonic - self._recent[1][0] >= _BATCHES_S:
            self._recent.popleft()
        then, entered_then, count_then = self._recent[0]
        elapsed_s = sample.monotonic - then
        return max(0.0, (entered - entered_then - count + count_then) / elapsed_s) if elapsed_s > 0 else None

    def _this_minute(self, monotonic: float) -> dict[Hashable, int]:
        """Return the counts by holder of this poll, to be filled; those of one poll per minute are kept."""
        counts: dict[Hashable, int] = {}
        if not self._minutes or monotonic - self._minutes[-1][0] >= _MINUTE_S:
            self._minutes.append((monotonic, counts))
        return counts

    def _growing(self, holder: Hashable) -> bool:
        history = [counts.get(holder, 0) for _, counts in self._minutes]
        return len(history) > _MINUTES and all(earlier < later for earlier, later in pairwise(history))


def _by_listener(poll: Poll, row: NDArray[np.intp]) -> list[tuple[SocketHolder, NDArray[np.intp]]]:
    """Return the listeners that accepted these rows, with indices into `row`; rows of no listener are left out."""
    keys = poll.join.listener_keys
    return [(keys.keys[number], at) for number, at in _equal(keys.lookup(poll.sample, row)) if number >= 0]


def _by_user(rows: Rows, row: NDArray[np.intp]) -> list[tuple[User, NDArray[np.intp]]]:
    """Return the users of these rows, with indices into `row`."""
    groups = _equal(rows.table["idiag_uid"][row])
    return [(User(uid, rows.users.get(uid) or str(uid)), at) for uid, at in groups]


def _equal(numbers: NDArray[Any]) -> list[tuple[int, NDArray[np.intp]]]:
    """Return each distinct number with its indices."""
    order = np.argsort(numbers, kind="stable")
    starts = run_starts(numbers[order])
    parts = np.split(order, starts[1:]) if len(order) else []
    return list(zip(numbers[order[starts]].tolist(), parts, strict=True))


def _nearest_limit(count_by_pid: Mapping[int, int], limits: Mapping[int, int]) -> tuple[int | None, float]:
    """Return the descriptor limit of the process that has used the largest share of its own, and that share."""
    shares = [(count / limits[pid], limits[pid]) for pid, count in count_by_pid.items() if limits.get(pid)]
    share, limit = max(shares, default=(0.0, None))
    return limit, share


def _most_frequent(codes: NDArray[np.int32]) -> int:
    """Return the most frequent reason for an unknown owner."""
    return -int(np.bincount(-codes).argmax()) if len(codes) else UNKNOWN_NO_PROCESS


_Held = TypeVar("_Held", CloseWaits, HalfClosed)


def _most_first(held: Sequence[_Held]) -> tuple[_Held, ...]:
    return tuple(sorted(held, key=lambda one: (-one.count, one.name)))


_BATCHES_S = 10.0


def _time_waits(rows: Rows, sample: Sample, entered: float | None, left: float | None) -> TimeWaitSummary:
    waits = sample.rows_in(State.TIME_WAIT)
    if not len(waits):
        return TimeWaitSummary(0, 0, entered, left, (0,) * TIME_WAIT_S, ())
    left_s = np.minimum(sample.table["idiag_expires"][waits] // 1000, TIME_WAIT_S - 1)
    server = waits[rows.role[waits] == Role.SERVER]
    per_port = np.bincount(sample.local_port[server], minlength=1)
    most = [int(port) for port in np.argsort(-per_port, kind="stable")[:TOP] if per_port[port]]
    return TimeWaitSummary(
        count=len(waits),
        server=len(server),
        entered_per_s=entered,
        left_per_s=left,
        ending_by_second=tuple(np.bincount(left_s, minlength=TIME_WAIT_S).tolist()),
        by_port=tuple((port, int(per_port[port])) for port in most),
    )
