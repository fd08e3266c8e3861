"""Teardown: TIME_WAIT and when it ends, CLOSE_WAIT by process, half-closed connections, orphans."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.group_by import run_starts
from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.model.poll import Poll
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


@dataclass(frozen=True, slots=True, eq=False)
class ProcessCloseWaits:
    """The connections of one process in CLOSE_WAIT: the peer has closed, the process has not."""

    owner: Owner
    eof_seen: int
    """The application has read to the end (the receive queue is empty) but has not closed."""
    eof_pending: int
    """The application has read the data but not the end (an unread FIN counts as one byte)."""
    data_pending: int
    """The application has not read all data."""
    old: int
    """Older than the threshold."""
    oldest_s: float
    limit: int | None
    """RLIMIT_NOFILE of the process, as each connection holds a descriptor; None where it cannot be read."""
    growing: bool
    """The count grew in each of the last five minutes."""
    count: int
    """The sum of the three kinds; more than that where the source cannot read queues."""

    @property
    def share(self) -> float:
        """Return the share of the process's descriptors; 0 where the limit is unknown."""
        return self.count / self.limit if self.limit else 0.0

    @property
    def process(self) -> str:
        """Return `app[12]`."""
        return str(self.owner)


@dataclass(frozen=True, slots=True, eq=False)
class ProcessHalfClosed:
    """The connections of one process in FIN_WAIT_2: the process has shut down sending, the peer has not closed."""

    owner: Owner
    count: int
    old: int
    """Older than the threshold."""
    oldest_s: float

    @property
    def process(self) -> str:
        """Return `app[12]`."""
        return str(self.owner)


@dataclass(frozen=True, slots=True, eq=False)
class Teardown:
    """How the connections of this host end."""

    time_wait: TimeWaitSummary
    close_wait: tuple[ProcessCloseWaits, ...]
    """By process, most first."""
    close_wait_unaccepted: int
    """CLOSE_WAIT connections in an accept queue: no process holds them yet."""
    half_closed: tuple[ProcessHalfClosed, ...]
    """By process, most first."""
    orphaned: Mapping[State, int]
    """Sockets in each of CLOSING_STATES that no process holds."""
    owned: Mapping[State, int]
    """Sockets in each of CLOSING_STATES that a process holds."""


CLOSING_STATES = (State.FIN_WAIT_1, State.FIN_WAIT_2, State.LAST_ACK, State.CLOSING)


class TeardownAnalysis:
    """Remembers the ages of CLOSE_WAIT and FIN_WAIT_2, and the counts of the last minutes."""

    def __init__(self, close_wait_s: float, half_closed_s: float) -> None:
        """A connection counts as old from these ages on."""
        self._close_wait_s, self._half_closed_s = close_wait_s, half_closed_s
        # Both states begin with a segment from the peer: its FIN, or its acknowledgement of ours.
        self._close_wait, self._fin_wait = Since("last_ack_recv"), Since("last_ack_recv")
        self._minutes: deque[tuple[float, dict[int, int]]] = deque(maxlen=_MINUTES + 1)
        self._recent: deque[tuple[float, int, int]] = deque()

    @property
    def wanted_tcp_info(self) -> frozenset[int]:
        """Cookies whose tcp_info the next sample should contain."""
        return self._close_wait.wanted_tcp_info | self._fin_wait.wanted_tcp_info

    def step(self, poll: Poll) -> Teardown:
        """Return how the connections of this poll end."""
        rows, sample = poll.rows, poll.sample
        close_wait = np.flatnonzero(sample.state == State.CLOSE_WAIT)
        fin_wait = np.flatnonzero((sample.state == State.FIN_WAIT_2) & (sample.inode != 0))
        close_wait_s = rows.time - self._close_wait.step(sample, close_wait, rows.since[close_wait])
        fin_wait_s = rows.time - self._fin_wait.step(sample, fin_wait, rows.since[fin_wait])
        held = rows.owner[close_wait] >= 0
        return Teardown(
            time_wait=_time_waits(rows, sample, poll.rates.get("TW"), self._left_per_s(sample)),
            close_wait=self._close_waits(rows, sample, close_wait[held], close_wait_s[held]),
            close_wait_unaccepted=int(np.count_nonzero(sample.inode[close_wait] == 0)),
            half_closed=_half_closed(rows, fin_wait, fin_wait_s, self._half_closed_s),
            orphaned={state: _count(sample, state, orphaned=True) for state in CLOSING_STATES},
            owned={state: _count(sample, state, orphaned=False) for state in CLOSING_STATES},
        )

    def _close_waits(
        self, rows: Rows, sample: Sample, row: NDArray[np.intp], age_s: NDArray[np.float64]
    ) -> tuple[ProcessCloseWaits, ...]:
        queues_known = sample.capabilities.queues
        unread = sample.table["idiag_rqueue"][row].astype(np.int64) if queues_known else np.full(len(row), -1)
        by_owner = _by_owner(rows, row)
        self._remember(sample.monotonic, {_pid(rows, code): len(members) for code, members in by_owner.items()})
        processes = []
        for code, members in by_owner.items():
            queues, ages, pid = unread[members], age_s[members], _pid(rows, code)
            processes.append(
                ProcessCloseWaits(
                    owner=rows.owners[code],
                    eof_seen=int(np.count_nonzero(queues == 0)),
                    eof_pending=int(np.count_nonzero(queues == 1)),
                    data_pending=int(np.count_nonzero(queues > 1)),
                    old=int(np.count_nonzero(ages >= self._close_wait_s)),
                    oldest_s=float(ages.max()),
                    limit=sample.descriptor_limits.get(pid),
                    growing=self._growing(pid),
                    count=len(members),
                )
            )
        return tuple(sorted(processes, key=lambda process: (-process.count, process.process)))

    def _left_per_s(self, sample: Sample) -> float | None:
        entered, count = sample.counters.get("TW"), int(np.count_nonzero(sample.state == State.TIME_WAIT))
        if entered is None:
            return None
        self._recent.append((sample.monotonic, entered, count))
        while len(self._recent) > 2 and sample.monotonic - self._recent[1][0] >= _BATCHES_S:
            self._recent.popleft()
        then, entered_then, count_then = self._recent[0]
        elapsed_s = sample.monotonic - then
        return max(0.0, (entered - entered_then - count + count_then) / elapsed_s) if elapsed_s > 0 else None

    def _remember(self, monotonic: float, counts: dict[int, int]) -> None:
        """Keep the counts of one poll per minute."""
        if not self._minutes or monotonic - self._minutes[-1][0] >= _MINUTE_S:
            self._minutes.append((monotonic, counts))

    def _growing(self, pid: int) -> bool:
        history = [counts.get(pid, 0) for _, counts in self._minutes]
        return len(history) > _MINUTES and all(earlier < later for earlier, later in pairwise(history))


def _pid(rows: Rows, code: int) -> int:
    return rows.owners[code].processes[0].pid


def _by_owner(rows: Rows, row: NDArray[np.intp]) -> dict[int, NDArray[np.intp]]:
    """Return owner code → indices into `row`."""
    codes = rows.owner[row]
    order = np.argsort(codes, kind="stable")
    starts = run_starts(codes[order])
    groups = np.split(order, starts[1:]) if len(order) else []
    return dict(zip(codes[order[starts]].tolist(), groups, strict=True))


def _half_closed(
    rows: Rows, row: NDArray[np.intp], age_s: NDArray[np.float64], old_s: float
) -> tuple[ProcessHalfClosed, ...]:
    held = rows.owner[row] >= 0
    processes = []
    for code, members in _by_owner(rows, row[held]).items():
        ages = age_s[held][members]
        old = int(np.count_nonzero(ages >= old_s))
        processes.append(ProcessHalfClosed(rows.owners[code], len(members), old, float(ages.max())))
    return tuple(sorted(processes, key=lambda process: (-process.count, process.process)))


def _count(sample: Sample, state: State, *, orphaned: bool) -> int:
    return int(np.count_nonzero((sample.state == state) & ((sample.inode == 0) == orphaned)))


_BATCHES_S = 10.0


def _time_waits(rows: Rows, sample: Sample, entered: float | None, left: float | None) -> TimeWaitSummary:
    waits = np.flatnonzero(sample.state == State.TIME_WAIT)
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
