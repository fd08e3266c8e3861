"""Sample: the raw facts of one poll, frozen; the contract between sources and the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.opaque_rows import make_read_only, opaque
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.kernel.netlink.tcp_info import TcpInfoDump
from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.kernel.trace.trace_events import TraceEvents


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """The source of a sample, and what it cannot read."""

    kind: Literal["sock_diag", "psutil"]
    privilege: Literal["root", "user"]
    why_no_trace: str = "not asked for"
    """The reason why there is no trace: "needs root", "switched off", ...; empty if there is one."""
    capabilities: tuple[str, ...] | None = None
    """The capabilities(7) that were kept after the start; None: all that there were."""

    @property
    def privilege_text(self) -> str:
        """Return `user`, `root`, or `root, 3 caps` if the others were given up."""
        return f"{self.privilege}, {len(self.capabilities)} caps" if self.capabilities else self.privilege


CapabilityName = Literal["queues", "timers", "inodes", "cookies", "attributes", "tcp_info", "bound"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The facts about a socket that the source can read. A fact that it cannot read is 0 in the table."""

    queues: bool = True
    """Receive queue and send queue; of a listener, the accept queue and its limit."""
    timers: bool = True
    """The running timer, the time left, and retransmits in a row."""
    inodes: bool = True
    """Inode and user id, and so whether a process holds the socket."""
    cookies: bool = True
    """The kernel's cookie; without it, a hash of the endpoints takes its place."""
    attributes: bool = True
    """Bound interface, control group, shut down directions."""
    tcp_info: bool = True
    bound: bool = True
    """Sockets that are bound to a port and neither listen nor are connected."""

    def supports(self, needed: CapabilityName | None) -> bool:
        """Return whether the source can read this; None stands for what every source can read."""
        return needed is None or bool(getattr(self, needed))


@dataclass(frozen=True, slots=True)
class Completeness:
    """How complete a sample is."""

    interrupted: bool = False
    """The kernel reported that its table changed during the dump, twice in succession."""
    answers_lost: bool = False
    """The kernel dropped answers (ENOBUFS), twice in succession."""
    retried: bool = False
    """The first dump was interrupted or incomplete; this is the second."""
    reasons: tuple[str, ...] = ()
    """Other facts that could not be read, in words: "no queues, timers, ...", "the trace has ended (...)", ..."""

    @property
    def complete(self) -> bool:
        """Return whether nothing is known to be missing."""
        return not (self.interrupted or self.answers_lost or self.reasons)

    @property
    def missing(self) -> tuple[str, ...]:
        """Return what is missing, in words; empty if complete."""
        return (*["interrupted dump"] * self.interrupted, *["answers lost"] * self.answers_lost, *self.reasons)

    @property
    def words(self) -> str:
        """Return what is missing as one text; empty if complete."""
        return ", ".join(self.missing)


@dataclass(frozen=True, slots=True, eq=False)
class TcpInfoTable(TcpInfoDump):
    """tcp_info of every connection of one sample: aligned, read-only columns, sorted by cookie."""

    cookie: NDArray[np.uint64]
    """Ascending, without duplicates."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SortedSockets:
    """Rows of a dump, sorted by cookie without duplicates, and contiguous copies of some columns; all read-only."""

    table: NDArray[np.void]
    """uapi.SOCKET"""
    cookie: NDArray[np.uint64]
    state: NDArray[np.uint8]
    """The kernel's numbers, as in states.State; always one of the eleven states in a Sample, 0 for any other before."""
    inode: NDArray[np.uint32]
    local_port: NDArray[np.uint16]
    family: NDArray[np.uint8]
    interface: NDArray[np.uint32]

    def columns(self) -> dict[str, Any]:
        """Return name → array of these columns."""
        return {column.name: getattr(self, column.name) for column in fields(SortedSockets)}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Sample(SortedSockets):
    """One poll: the sockets, and facts about the host."""

    time: float
    """Unix seconds at the end of the dump."""
    monotonic: float
    """The same moment in monotonic seconds, for rates."""
    host: str
    source: SourceInfo
    completeness: Completeness
    owner: NDArray[np.int32]
    """Index into `owners`, or a negative UNKNOWN_* code of kernel.proc.owner_finder."""
    owners: Sequence[Owner]
    drops: Mapping[int, int]
    """Cookie of a listener → segments it has dropped (SK_MEMINFO_DROPS); absent if unknown."""
    accept_queue_peaks: Mapping[int, int]
    """Cookie of a listener → largest depth of its accept queue since the previous sample; absent if not watched."""
    counters: Mapping[str, int]
    """The kernel's name → value; counters that this kernel lacks are absent."""
    sysctls: Mapping[str, int]
    """Last part of the sysctl's name → value; absent if it does not exist in this namespace."""
    holders_known: bool = True
    """Whether each owner has all processes that hold the socket; else some processes were not read yet."""
    reserved_ports: tuple[tuple[int, int], ...] = ()
    """ip_local_reserved_ports: first and last port of each range."""
    descriptor_limits: Mapping[int, int] = field(default_factory=dict)
    """pid → RLIMIT_NOFILE of processes that hold sockets in CLOSE_WAIT; absent if it cannot be read."""
    users: Mapping[int, str] = field(default_factory=dict)
    """uid → name, for the uids of all sockets that a process holds."""
    interfaces: Mapping[int, str] = field(default_factory=dict)
    """Interface index → name, for all sockets that are bound to an interface."""
    watched_tcp_info: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    """Cookie → tcp_info of the watched sockets (field names without `tcpi_`)."""
    tcp_info_table: TcpInfoTable | None = None
    """The fields for throughput, of all connections; None if this sample did not request them."""
    destroyed: DestroyedSockets | None = None
    """Sockets freed between the beginning of the previous dump and that of this one; None if not requested."""
    trace_events: TraceEvents | None = None
    """Trace events from the end of the previous dump to the end of this one; None if there is no trace."""
    callers: Mapping[int, Owner] = field(default_factory=dict)
    """Thread id of a traced connect() call → its process; absent if unknown."""
    capabilities: Capabilities = Capabilities()
    other_namespaces: int | None = None
    """Other network namespaces with TCP sockets, as far as this process may see; None if not looked for yet."""
    unanswered: tuple[str, ...] = ()
    """Names that are left out because reading them blocks, in words."""
    begin_monotonic_s: float = 0.0
    """Monotonic seconds at the beginning of the dump; `destroyed` has events from before."""
    _counts: list[tuple[list[int], list[int]]] = field(init=False, repr=False, default_factory=list)
    """Sockets by state, first those without an inode, then those with one; empty until they are counted."""

    def count(self, *states: int, has_inode: bool | None = None) -> int:
        """Return the number of sockets in these states, or of those with an inode, or of those without."""
        if not self._counts:  # counted once, as most analyses look at a few states, and mostly there are no sockets
            combined = self.state | (self.inode != 0).view(np.uint8) << _STATE_BITS
            counts = np.bincount(combined, minlength=2 << _STATE_BITS).tolist()
            self._counts.append((counts[: 1 << _STATE_BITS], counts[1 << _STATE_BITS :]))
        parts = self._counts[0] if has_inode is None else self._counts[0][has_inode:][:1]
        return sum(part[state] for part in parts for state in states)

    def rows_in(self, *states: int, has_inode: bool | None = None) -> NDArray[np.intp]:
        """Return the rows of these sockets, ascending."""
        if not self.count(*states, has_inode=has_inode):
            return np.empty(0, np.intp)
        wanted = self.state == states[0]
        for state in states[1:]:
            wanted |= self.state == state
        if has_inode is not None:
            wanted &= (self.inode != 0) if has_inode else (self.inode == 0)
        return np.flatnonzero(wanted)

    @property
    def event_count(self) -> int:
        """Number of destroy events and trace events."""
        destroyed, traced = self.destroyed, self.trace_events
        return (len(destroyed.table) if destroyed else 0) + (len(traced.events) if traced else 0)

    def without_events(self) -> Sample:
        """Return the sample without the rows of its events, which may be many, and which only its own step needs."""
        destroyed, traced = self.destroyed, self.trace_events
        if not self.event_count:
            return self
        return replace(
            self,
            destroyed=destroyed.without_rows() if destroyed else None,
            trace_events=traced.without_rows() if traced else None,
        )


_STATE_BITS = 4
_LISTEN, _NEW_SYN_RECV, _BOUND_INACTIVE = 10, 12, 13
_CANONICAL = np.zeros(256, np.uint8)
_CANONICAL[1:12] = np.arange(1, 12)
_CANONICAL[_NEW_SYN_RECV] = 3  # the same half-open connection
_CANONICAL[_BOUND_INACTIVE] = 7  # CLOSED: bound to a port, nothing else


_BLOCK = 16_384
"""Rows that are moved, and their columns copied, while they are in the processor's cache."""


def sort_by_cookie(table: NDArray[np.void], memory: Callable[[int], NDArray[np.void]] | None = None) -> SortedSockets:
    """Sort the rows of a dump by cookie. The result may share memory with `table`, which must not be used afterwards.

    A socket that moved while the kernel walked its table can occur twice: the later row is kept. `memory` returns a
    table of at least the requested number of rows to sort into; without it, new memory is allocated.
    """
    cookie, order = _sorted(np.ascontiguousarray(table["idiag_cookie"]))
    size = len(cookie)
    rows = table if order is None else (memory(size) if memory else np.empty(size, table.dtype))[:size]
    ordered = SortedSockets(
        table=rows,
        cookie=cookie,
        state=np.empty(size, np.uint8),
        inode=np.empty(size, np.uint32),
        local_port=np.empty(size, np.uint16),
        family=np.empty(size, np.uint8),
        interface=np.empty(size, np.uint32),
    )
    for first in range(0, size, _BLOCK):
        part = slice(first, first + _BLOCK)
        block = rows[part]
        if order is not None:
            np.take(opaque(table), order[part], out=opaque(block), mode="clip")
        ordered.state[part] = _CANONICAL[block["idiag_state"]]
        ordered.inode[part] = block["idiag_inode"]
        ordered.local_port[part] = block["idiag_sport"]
        ordered.family[part] = block["idiag_family"]
        ordered.interface[part] = block["idiag_if"]
    make_read_only(*ordered.columns().values())
    return ordered


def without_unknown_states(sockets: SortedSockets) -> tuple[SortedSockets, int]:
    """Return the sockets in one of the eleven states, and the number of the others, which a future kernel may have."""
    if sockets.state.all():
        return sockets, 0
    known = np.flatnonzero(sockets.state)
    columns: dict[str, Any] = {
        name: opaque(column)[known] if name == "table" else column[known] for name, column in sockets.columns().items()
    }
    columns["table"] = columns["table"].view(sockets.table.dtype)
    make_read_only(*columns.values())
    return SortedSockets(**columns), len(sockets.state) - len(known)


def sort_tcp_info(dump: TcpInfoDump, memory: Callable[[int], NDArray[np.void]] | None = None) -> TcpInfoTable:
    """Sort the tcp_info of a dump by cookie, without listeners and duplicates; `memory` as for sort_by_cookie()."""
    flows = np.flatnonzero(dump.table["tcpi_state"] != _LISTEN)
    cookie, order = _sorted(dump.table["idiag_cookie"][flows])
    flows = flows if order is None else flows[order]
    figures = (memory(len(flows)) if memory else np.empty(len(flows), dump.table.dtype))[: len(flows)]
    np.take(opaque(dump.table), flows, out=opaque(figures), mode="clip")
    infos = TcpInfoTable(figures, dump.received_monotonic_s[flows], dump.info_bytes, cookie)
    make_read_only(infos.cookie, infos.table, infos.received_monotonic_s)
    return infos


def _sorted(cookie: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.intp] | None]:
    """Return the distinct cookies in ascending order and where each was last; None if the cookies are sorted already.

    The kernel assigns cookies while it walks its table, so that a table of old sockets is sorted.
    """
    if bool((cookie[1:] > cookie[:-1]).all()):
        return cookie, None
    order = _ascending(cookie)
    cookie = cookie[order]
    last = np.append(cookie[1:] != cookie[:-1], True)
    return cookie[last], order[last]


def _ascending(cookie: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return a stable argsort, in passes of 16 bits, which numpy sorts by radix: twice as fast for a million cookies.

    The kernel counts cookies up, so that the range of existing ones mostly needs two passes.
    """
    above = cookie - cookie.min()
    order = np.argsort(above.astype(np.uint16), kind="stable")
    for shift in range(16, int(above.max()).bit_length(), 16):
        digit = (above >> np.uint64(shift)).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    return order
