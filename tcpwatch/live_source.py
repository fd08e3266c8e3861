"""The live kernel as a source of samples; and which source this host allows."""

from __future__ import annotations

import pwd
import socket
import time
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel import processes, sysctl, uapi
from tcpwatch.kernel.messages import MessageError
from tcpwatch.kernel.pool import Pool
from tcpwatch.kernel.printable import printable
from tcpwatch.kernel.processes import OwnerFinder
from tcpwatch.kernel.sock_diag import SockDiag, SockDiagError
from tcpwatch.model.sample import Completeness, Sample, SourceInfo, by_cookie, empty_table
from tcpwatch.queue_watch import QueueWatch
from tcpwatch.source import Source, SourceError, privilege, read_counters

OWNERS_SHARE = 0.5
"""Share of the time that the dump took that the search for owners may take in the same step ..."""
OWNERS_LEAST_S = 0.05
"""... but so much at least, so that small hosts see every owner at once."""


def open_source(
    kind: Literal["auto", "sock_diag", "psutil"] = "auto",
    owners_least_s: float = OWNERS_LEAST_S,
    watch_queues: bool = False,
) -> Source:
    """The best source of this host, or the one that is asked for. Raises SourceError.

    `owners_least_s` is the time that each sample may spend on finding owners, if need be: a front end that draws once
    gives more than one that polls. With `watch_queues` a thread looks at the accept queues between two samples.
    """
    if kind == "psutil":
        return _psutil()
    try:
        return LiveSource(owners_least_s, watch_queues)
    except (SockDiagError, MessageError) as error:
        if kind == "sock_diag":
            raise SourceError(f"{_reason(error)}; --source psutil shows less, but works without it") from error
        return _psutil()


def _psutil() -> Source:
    from tcpwatch.psutil_source import PsutilSource

    return PsutilSource()


def _reason(error: SockDiagError | MessageError) -> str:
    if isinstance(error, MessageError):
        return f"sock_diag answers nonsense: {error}"
    return error.strerror or str(error)


class LiveSource:
    """sock_diag, /proc/net, /proc/sys/net and the processes of this network namespace."""

    def __init__(self, owners_least_s: float = OWNERS_LEAST_S, watch_queues: bool = False) -> None:
        """As `open_source`.

        Raises SockDiagError where sock_diag cannot be used, MessageError where it answers something else.
        """
        self.info = SourceInfo("sock_diag", privilege())
        self._tables = Pool(uapi.SOCKET)
        self._diag = SockDiag(self._tables)
        self._owners = OwnerFinder()
        self._owners_least_s = owners_least_s
        self._names = Names()
        self._bound = _BoundSockets(self._diag)
        self._host = printable(socket.gethostname())
        try:
            self._diag.listeners()  # a kernel without tcp_diag says so here, and not in the middle of a screen
            self._queues = QueueWatch() if watch_queues else None
        except BaseException:
            self._diag.close()
            raise

    def sample(self, watched: Iterable[int] = ()) -> Sample:
        """As Source.sample."""
        try:
            return self._sample(watched)
        except (SockDiagError, MessageError) as error:
            raise SourceError(_reason(error)) from error

    def _sample(self, watched: Iterable[int]) -> Sample:
        begin = time.monotonic()
        bound = self._bound.table()
        dump = self._diag.dump(first=bound)
        listeners, peaks = self._diag.listeners(), self._queues.take() if self._queues else {}
        drops = dict(zip(listeners.table["idiag_cookie"].tolist(), listeners.drops.tolist(), strict=True))
        now, monotonic = time.time(), time.monotonic()
        ordered = by_cookie(dump.table, self._tables.take)
        table, cookie, inode = ordered.table, ordered.cookie, ordered.inode
        budget_s = max(self._owners_least_s, OWNERS_SHARE * (monotonic - begin))
        held = np.flatnonzero(inode)  # of a flood's million half-open rows, not one
        owner = np.full(len(inode), processes.UNKNOWN_NO_PROCESS, np.int32)
        owner[held] = self._owners.find(inode[held], budget_s)
        owner.flags.writeable = False
        figures, reasons = read_counters()
        return Sample(
            time=now,
            monotonic=monotonic,
            host=self._host,
            source=self.info,
            completeness=Completeness(
                dump.interrupted or listeners.interrupted,
                dump.lost or listeners.lost,
                dump.retried or listeners.retried,
                reasons,
            ),
            table=table,
            cookie=cookie,
            state=ordered.state,
            inode=inode,
            local_port=ordered.local_port,
            family=ordered.family,
            owner=owner,
            owners=self._owners.owners,
            drops=drops,
            peaks=peaks,
            counters=figures,
            sysctls=sysctl.read(),
            users=self._names.users(table["idiag_uid"][held]),
            interfaces=self._names.interfaces(ordered.interface),
            tcp_info=self._tcp_info(table, cookie, watched),
        )

    def _tcp_info(
        self, table: NDArray[np.void], cookie: NDArray[np.uint64], watched: Iterable[int]
    ) -> dict[int, dict[str, int]]:
        found = {}
        for wanted in watched:
            at = int(np.searchsorted(cookie, np.uint64(wanted)))
            if at < len(cookie) and int(cookie[at]) == wanted and (info := self._diag.tcp_info(table[at])):
                found[wanted] = info
        return found

    def close(self) -> None:
        """As Source.close."""
        if self._queues:
            self._queues.close()
        self._diag.close()
        self._owners = OwnerFinder()  # a search that was not finished holds a directory of /proc open


class _BoundSockets:
    """Sockets that are bound to a port and do nothing else, shown as CLOSED.

    They cost a third of a whole dump: they are asked for anew when a hundred times the last walk has passed.
    """

    def __init__(self, diag: SockDiag) -> None:
        self._diag = diag
        self._table = empty_table()
        self._due = 0.0

    def table(self) -> NDArray[np.void]:
        """uapi.SOCKET; up to a hundred times a walk's duration old."""
        begin = time.monotonic()
        if begin >= self._due:
            self._table = self._diag.bound().table.copy()
            end = time.monotonic()
            self._due = end + 100 * (end - begin)
        return self._table


class Names:
    """Names of users and interfaces, each looked up once."""

    def __init__(self) -> None:
        self._users: dict[int, str] = {}
        self._interfaces: dict[int, str] = {}

    def users(self, uids: NDArray[np.uint32]) -> dict[int, str]:
        """Uid → name for each uid of the column; a uid without a name is absent."""
        return _named(uids, self._users, _user_name)

    def interfaces(self, indices: NDArray[np.uint32]) -> dict[int, str]:
        """Interface index → name for each index of the column; 0 and vanished ones are absent."""
        return _named(indices, self._interfaces, _interface_name)


def _named(numbers: NDArray[np.uint32], known: dict[int, str], look_up: Callable[[int], str | None]) -> dict[int, str]:
    for number in _distinct(numbers):
        if number not in known and (name := look_up(number)):
            known[number] = name
    return known


def _distinct(numbers: NDArray[np.uint32]) -> list[int]:
    """The distinct values; a table of counts costs a tenth of sorting, and such numbers are mostly small."""
    numbers = np.ascontiguousarray(numbers)
    if len(numbers) and int(numbers.max()) < 1 << 17:
        return [int(number) for number in np.flatnonzero(np.bincount(numbers))]
    return [int(number) for number in np.unique(numbers)]


def _user_name(uid: int) -> str | None:
    try:
        return printable(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return None


def _interface_name(index: int) -> str | None:
    try:
        return printable(socket.if_indextoname(index)) if index else None
    except OSError:
        return None  # it has gone meanwhile
