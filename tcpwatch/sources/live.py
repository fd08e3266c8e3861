"""LiveSource: samples of the running kernel; open_source() chooses the best source of this host."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.arrays.array_pool import ArrayPool
from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.kernel import privileges
from tcpwatch.kernel.name_cache import NameCache
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.decode_sockets import MessageError
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.kernel.netlink.sock_diag import Dump, SockDiag, SockDiagError
from tcpwatch.kernel.proc import owner_finder
from tcpwatch.kernel.proc.connect_callers import ConnectCallers
from tcpwatch.kernel.proc.limits import DescriptorLimits
from tcpwatch.kernel.proc.namespaces import NamespaceCensus
from tcpwatch.kernel.proc.owner_finder import Owner, OwnerFinder
from tcpwatch.kernel.release import is_since
from tcpwatch.kernel.trace.trace_events import TraceEventKind, TraceEvents
from tcpwatch.sample import (
    Capabilities,
    Completeness,
    Sample,
    SortedSockets,
    SourceInfo,
    sort_by_cookie,
    sort_tcp_info,
    without_unknown_states,
)
from tcpwatch.sources.accept_queue_watch import AcceptQueueWatch
from tcpwatch.sources.base import (
    NAMESPACE_SEARCH_S,
    Source,
    SourceError,
    privilege,
    reason_of,
    try_read_counters,
    try_read_sysctls,
    unanswered_names,
)
from tcpwatch.sources.event_watch import EventWatch
from tcpwatch.units.printable import printable

OWNER_SEARCH_SHARE = 0.5
"""Time for finding owners in one sample, as a share of the duration of the dump ..."""
OWNER_SEARCH_MIN_S = 0.05
"""... but at least this, so that small hosts show every owner at once."""

NAMESPACE_SLICE_S = 0.001
"""Time for finding other network namespaces in one sample, for front ends that poll."""

TCP_INFO_SHARE = 0.1
"""Time that tcp_info of all connections may add to the dumps on average, as a share of their duration ..."""
TCP_INFO_MIN_S = 0.01
"""... but at least this in each, so that hosts with up to about 20,000 connections have tcp_info in every sample."""


def open_source(
    kind: Literal["auto", "sock_diag", "psutil"] = "auto",
    owners_least_s: float = OWNER_SEARCH_MIN_S,
    watch_queues: bool = False,
    ask_infos: bool = False,
    events: bool = False,
    trace: bool = False,
    keep_privileges: bool = True,
) -> Source:
    """Open the best source of this host, or the requested one. Raises SourceError.

    `owners_least_s` is the time that the samples together may spend on finding owners, beyond a share of each: a front
    end that draws once sets a larger value than one that polls. With `watch_queues` a thread reads the accept queues
    between two samples. With `ask_infos` samples have the tcp_info of all connections: every sample, or every few if
    there are very many. The first sample has it in any case, as it shows which end opened a connection. With `events`
    they have all destroyed sockets, and with `trace` also the trace events, if tracing is permitted. Without
    `keep_privileges` the calling thread and those that it starts give up all capabilities for which the samples have no
    use.
    """
    if kind == "psutil":
        return _psutil("", keep_privileges)
    try:
        return LiveSource(owners_least_s, watch_queues, ask_infos, events, trace, keep_privileges)
    except (SockDiagError, MessageError) as error:
        if kind == "sock_diag":
            raise SourceError(f"{reason_of(error)}; --source psutil shows less, but works without it") from error
        return _psutil(reason_of(error), keep_privileges)


def _psutil(why_no_sock_diag: str, keep_privileges: bool) -> Source:
    from tcpwatch.sources.psutil import PsutilSource

    source = PsutilSource(why_no_sock_diag)
    if not keep_privileges:
        source.info = replace(source.info, capabilities=privileges.keep_only(_TO_READ_PROCESSES))
    return source


_TO_READ_PROCESSES = (privileges.SYS_PTRACE, privileges.DAC_READ_SEARCH)
"""Links and directories in /proc/PID of other users, see ptrace(2)."""


_BOUND_SOCKETS_SINCE = (6, 8)
"""Linux 6.8: TCPF_BOUND_INACTIVE in net/ipv4/inet_diag.c."""


class LiveSource:
    """sock_diag, /proc/net, /proc/sys/net and the processes of this network namespace."""

    def __init__(
        self,
        owners_least_s: float = OWNER_SEARCH_MIN_S,
        watch_queues: bool = False,
        ask_infos: bool = False,
        events: bool = False,
        trace: bool = False,
        keep_privileges: bool = True,
    ) -> None:
        """Open sock_diag and start the threads; parameters as for open_source().

        Raises SockDiagError if sock_diag cannot be used, MessageError if its answers cannot be decoded.
        """
        self.info = SourceInfo("sock_diag", privilege())
        self._tables = ArrayPool(uapi.SOCKET)
        self._info_tables = ArrayPool(uapi.FLOW_INFO)
        self._diag = SockDiag(self._tables, self._info_tables)
        self._owners = OwnerFinder()
        self._owners_left_s = owners_least_s
        self._names = NameCache()
        self._limits = DescriptorLimits()
        self._bound = _BoundSockets(self._diag)
        self._info_turns = _InfoTurns() if ask_infos else None
        self._is_first = True
        self._host = printable(socket.gethostname())
        self._queues: AcceptQueueWatch | None = None
        self._events: EventWatch | None = None
        try:
            self._diag.listeners()  # a kernel without tcp_diag fails here, before a screen is drawn
            limit_privileges = partial(self._limit_privileges, keep_privileges, events)
            if events:
                self._events = EventWatch(trace, limit_privileges)
            else:
                limit_privileges()
            self._queues = AcceptQueueWatch() if watch_queues else None
        except BaseException:
            self.close()
            raise
        self._callers = ConnectCallers()
        self._capabilities = Capabilities(bound=is_since(_BOUND_SOCKETS_SINCE))
        self._namespaces = NamespaceCensus()
        self._namespaces_s = NAMESPACE_SEARCH_S if owners_least_s > OWNER_SEARCH_MIN_S else NAMESPACE_SLICE_S
        self._unused: DestroyedSockets | None = None
        self._update_trace_info()

    def _limit_privileges(self, keep_all: bool, events: bool) -> None:
        """Keep the capabilities that are used from now on: the trace needs none, as it is open."""
        if not keep_all:
            to_reopen = (privileges.NET_ADMIN,) if events else ()  # for the size of the buffer, socket(7)
            kept = privileges.keep_only((*_TO_READ_PROCESSES, *to_reopen))
            self.info = replace(self.info, capabilities=kept)

    def sample(self, watched: Iterable[int] = ()) -> Sample:
        """Take a sample. Raises SourceError."""
        try:
            return self._sample(watched)
        except (SockDiagError, MessageError) as error:
            raise SourceError(reason_of(error)) from error

    def _sample(self, watched: Iterable[int]) -> Sample:
        destroyed = self._take_destroyed()
        begin = time.monotonic()
        bound = self._bound.table()
        dump = self._dump(bound)
        traced = self._events.take_trace_events() if self._events else None
        if traced and not self._callers.readable:
            traced = replace(traced, events=_without_threads(traced.events))
        self._update_trace_info()
        listeners, peaks = self._diag.listeners(), self._queues.take() if self._queues else {}
        drops = dict(zip(listeners.table["idiag_cookie"].tolist(), listeners.drops.tolist(), strict=True))
        now, monotonic = time.time(), time.monotonic()
        ordered, unknown = without_unknown_states(sort_by_cookie(dump.table, self._tables.take))
        strange = [f"{units.plural(unknown, 'socket')} in an unknown state"] * bool(unknown)
        inode = ordered.inode
        budget_s = max(self._owners_left_s, OWNER_SEARCH_MIN_S, OWNER_SEARCH_SHARE * (monotonic - begin))
        held = np.flatnonzero(inode)  # a flood's half-open sockets have no inode
        owner = np.full(len(inode), owner_finder.UNKNOWN_NO_PROCESS, np.int32)
        owner[held] = self._owners.find(inode[held], budget_s)
        self._owners_left_s -= time.monotonic() - monotonic
        owner.flags.writeable = False
        (figures, no_counters), (sysctls, reserved, no_sysctls) = try_read_counters(), try_read_sysctls()
        self._unused = None
        return Sample(
            time=now,
            monotonic=monotonic,
            host=self._host,
            source=self.info,
            completeness=Completeness(
                dump.interrupted or listeners.interrupted,
                dump.answers_lost or listeners.answers_lost,
                dump.retried or listeners.retried,
                (*strange, *no_counters, *no_sysctls, *self._failed_watches(destroyed)),
            ),
            **ordered.columns(),
            owner=owner,
            owners=self._owners.owners,
            holders_known=not self._owners.has_unread,
            drops=drops,
            accept_queue_peaks=peaks,
            counters=figures,
            sysctls=sysctls,
            reserved_ports=reserved,
            descriptor_limits=self._limits.lookup(_holders(ordered.state, owner, self._owners.owners)),
            users=self._names.users(ordered.table["idiag_uid"][held]),
            interfaces=self._names.interfaces(ordered.interface),
            watched_tcp_info=self._tcp_info(ordered, watched),
            tcp_info_table=sort_tcp_info(dump.infos, self._info_tables.take) if dump.infos else None,
            destroyed=destroyed,
            trace_events=traced,
            callers=self._callers.lookup(_threads(traced)) if traced else {},
            capabilities=self._capabilities,
            other_namespaces=self._namespaces.look(self._namespaces_s),
            begin_monotonic_s=begin,
            unanswered=unanswered_names(),
        )

    def _failed_watches(self, destroyed: DestroyedSockets | None) -> list[str]:
        """Return what is no longer watched, or was not for some time, in words."""
        peaks = self._queues.failure if self._queues else ""
        reasons = [f"accept queues are not watched between polls ({peaks})"] if peaks else []
        reasons += ["events of closed sockets were interrupted"] * bool(destroyed and destroyed.interrupted)
        return reasons + (self._events.failures if self._events else [])

    def _take_destroyed(self) -> DestroyedSockets | None:
        """Take the destroyed sockets, including those taken for an earlier sample that failed."""
        taken = self._events.take_destroyed() if self._events else None
        self._unused = taken.after(self._unused) if taken else None
        return self._unused

    def _update_trace_info(self) -> None:
        """Update `info`: tracing may fail at any time."""
        if self._events and self._events.why_no_trace != self.info.why_no_trace:
            self.info = replace(self.info, why_no_trace=self._events.why_no_trace)

    def _dump(self, bound: NDArray[np.void]) -> Dump:
        if self._info_turns is None:
            dump, self._is_first = self._diag.dump(first=bound, infos=self._is_first), False
            return dump
        begin = time.monotonic()
        dump = self._diag.dump(first=bound, infos=self._info_turns.due())
        if dump.infos:
            self._info_turns.took(time.monotonic() - begin, len(dump.infos.table), len(dump.table))
        return dump

    def _tcp_info(self, sockets: SortedSockets, watched: Iterable[int]) -> dict[int, dict[str, int]]:
        cookies = np.array(list(watched), np.uint64)
        places = zip(cookies.tolist(), find_sorted(sockets.cookie, cookies).tolist(), strict=True)
        infos = {cookie: self._diag.tcp_info(sockets.table[at]) for cookie, at in places if at != NOT_FOUND}
        return {cookie: info for cookie, info in infos.items() if info}

    def close(self) -> None:
        """End the threads and close the sockets."""
        if self._queues:
            self._queues.close()
        if self._events:
            self._events.close()
        self._diag.close()
        self._owners = OwnerFinder()  # an unfinished search has a directory of /proc open


def _without_threads(events: NDArray[np.void]) -> NDArray[np.void]:
    """Return the events without the ids of threads, which mean nothing in this pid namespace."""
    events = events.copy()
    events["pid"] = 0
    events.flags.writeable = False
    return events


def _threads(traced: TraceEvents) -> list[int]:
    """Return the ids of the threads that called connect()."""
    events = traced.events
    calls = (events["kind"] == TraceEventKind.STATE) & (events["old"] == _CLOSE) & (events["new"] == _SYN_SENT)
    return [int(pid) for pid in np.unique(events["pid"][calls]) if pid > 0]


_LIMITS_READ = 64
"""Largest number of processes whose limit is read."""


def _holders(state: NDArray[np.uint8], owner: NDArray[np.int32], owners: Sequence[Owner]) -> list[int]:
    """Return the pids of the processes that hold most sockets in CLOSE_WAIT."""
    codes = owner[(state == _CLOSE_WAIT) & (owner >= 0)]
    counts = np.bincount(codes, minlength=1)
    most = np.argsort(-counts, kind="stable")[:_LIMITS_READ].tolist()
    return [owners[code].processes[0].pid for code in most if counts[code]]


_SYN_SENT, _CLOSE, _CLOSE_WAIT = 2, 7, 8


class _BoundSockets:
    """Sockets that are bound to a port and neither listen nor are connected; they are shown as CLOSED.

    Dumping them costs a third of a whole dump. A dump of them is reused for a hundred times its duration.
    """

    def __init__(self, diag: SockDiag) -> None:
        self._diag = diag
        self._table = np.empty(0, uapi.SOCKET)
        self._due = 0.0

    def table(self) -> NDArray[np.void]:
        """Return uapi.SOCKET rows, up to a hundred times the duration of a dump old."""
        begin = time.monotonic()
        if begin >= self._due:
            self._table = self._diag.bound_only().table.copy()
            end = time.monotonic()
            self._due = end + 100 * (end - begin)
        return self._table


class _InfoTurns:
    """Choose the samples whose dump includes tcp_info: all while that is cheap, otherwise every few.

    One dump with the tcp_info of all sockets costs a tenth of one request for each (SockDiag.dump). Therefore some
    samples request it for all connections, and none for a part of them: with 200,000 connections every fifth sample.
    """

    _ADDED = 0.45
    """Time that tcp_info adds to a dump of full sockets, as a share of the dump without it (measured: 0.33-0.5)."""

    def __init__(self) -> None:
        self._skip = 0

    def due(self) -> bool:
        """Return whether to request tcp_info this time."""
        self._skip -= 1
        return self._skip < 0

    def took(self, dump_s: float, flows: int, sockets: int) -> None:
        """After a dump with tcp_info, set how many dumps without it have to follow to keep the average cost."""
        added = self._ADDED * flows / max(sockets, 1)
        plain_s = dump_s / (1 + added)
        self._skip = int(added * plain_s / max(TCP_INFO_MIN_S, TCP_INFO_SHARE * plain_s))
