"""Sample: the facts of one poll, frozen; what a source delivers and a recording keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.opaque_rows import opaque
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.kernel.netlink.tcp_info import TcpInfoDump
from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.kernel.trace.trace_events import TraceEvents


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Where samples come from, and what is missing in them."""

    kind: Literal["sock_diag", "psutil"]
    privilege: Literal["root", "user"]
    missing: tuple[str, ...] = ()
    """What this source cannot tell, in words, for the header: "no queues", "no timers", ..."""
    why_no_trace: str = "not asked for"
    """Why there is no trace, in words: "needs root", "switched off", ...; empty where there is one."""


CapabilityName = Literal["queues", "timers", "inodes", "cookies", "attributes", "tcp_info"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Which facts about a socket the source can read. A fact that it cannot read is 0 in the table."""

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

    def supports(self, needed: CapabilityName | None) -> bool:
        """Return whether the source can read this; None stands for what every source can read."""
        return needed is None or bool(getattr(self, needed))


@dataclass(frozen=True, slots=True)
class Completeness:
    """Whether the table is all that the kernel had."""

    interrupted: bool = False
    """The table changed under the dump in a way that the kernel noticed, twice running."""
    answers_lost: bool = False
    """The kernel dropped answers (ENOBUFS), twice running."""
    retried: bool = False
    """The first try was interrupted or lost; this is the second."""
    reasons: tuple[str, ...] = ()
    """Other facts that could not be read, in words."""

    @property
    def complete(self) -> bool:
        """Nothing is known to be missing."""
        return not (self.interrupted or self.answers_lost or self.reasons)

    @property
    def words(self) -> str:
        """What is missing, for people; empty when complete."""
        said = ["interrupted dump"] * self.interrupted + ["answers lost"] * self.answers_lost
        return ", ".join([*said, *self.reasons])


@dataclass(frozen=True, slots=True, eq=False)
class TcpInfoTable:
    """tcp_info of every flow of one sample: aligned, read-only columns, by cookie."""

    cookie: NDArray[np.uint64]
    """Ascending, each once."""
    table: NDArray[np.void]
    """uapi.FLOW_INFO; a field that was not told is 0 in all of them (see tcp_info.tells)."""
    received_monotonic_s: NDArray[np.float64]
    """Monotonic seconds at which the kernel told it, which is not the same for all in a long dump."""
    info_bytes: int
    """Bytes of struct tcp_info that this kernel sends."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One poll. The arrays have one row a socket, sorted by cookie, each cookie once, and are read-only."""

    time: float
    """Unix seconds when the dump had ended."""
    monotonic: float
    """The same moment on the monotonic clock, for rates."""
    host: str
    source: SourceInfo
    completeness: Completeness
    table: NDArray[np.void]
    """uapi.SOCKET"""
    cookie: NDArray[np.uint64]
    """Contiguous copy of the hot column."""
    state: NDArray[np.uint8]
    """Kernel numbers as in states.State; every row has one of the eleven."""
    inode: NDArray[np.uint32]
    local_port: NDArray[np.uint16]
    family: NDArray[np.uint8]
    """Further hot columns, contiguous."""
    owner: NDArray[np.int32]
    """Index into `owners`, or a negative UNKNOWN_* code of kernel.processes."""
    owners: Sequence[Owner]
    drops: Mapping[int, int]
    """Listener's cookie → segments it has dropped (SK_MEMINFO_DROPS); absent where not told."""
    accept_queue_peaks: Mapping[int, int]
    """Listener's cookie → the deepest that its accept queue was since the sample before; absent where not watched."""
    counters: Mapping[str, int]
    """The kernel's name → value; a counter that this kernel lacks is absent."""
    sysctls: Mapping[str, int]
    """Last part of the knob's name → value; absent where unknown in this namespace."""
    reserved_ports: tuple[tuple[int, int], ...] = ()
    """ip_local_reserved_ports: first and last port of each range."""
    descriptor_limits: Mapping[int, int] = field(default_factory=dict)
    """pid → RLIMIT_NOFILE, of processes that hold sockets in CLOSE_WAIT; absent where it cannot be read."""
    users: Mapping[int, str] = field(default_factory=dict)
    """uid → name, for the uid of every socket that a process holds."""
    interfaces: Mapping[int, str] = field(default_factory=dict)
    """Interface index → name, for every bound socket in the table."""
    watched_tcp_info: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    """Cookie → tcp_info of the sockets that were asked for (fields without `tcpi_`)."""
    tcp_info_table: TcpInfoTable | None = None
    """The same of all flows, as far as their throughput needs it; None where this sample did not ask for it."""
    destroyed: DestroyedSockets | None = None
    """Sockets that were freed before this sample's dump began, and after the one before it; None where nobody asked."""
    trace_events: TraceEvents | None = None
    """What was traced until this sample's dump had ended, since the sample before; None where there is no trace."""
    callers: Mapping[int, Owner] = field(default_factory=dict)
    """Thread's number, as the trace tells it with connect() → its process; absent where that is not known."""
    capabilities: Capabilities = Capabilities()
    begin_monotonic_s: float = 0.0
    """Monotonic seconds when the dump began: `destroyed` tells of what happened before."""


_LISTEN, _NEW_SYN_RECV, _BOUND_INACTIVE = 10, 12, 13
_CANONICAL = np.arange(256, dtype=np.uint8)
_CANONICAL[_NEW_SYN_RECV] = 3  # the same half-open connection
_CANONICAL[_BOUND_INACTIVE] = 7  # CLOSED: bound to a port, nothing else


class SortedSockets(NamedTuple):
    """A dump's rows as `Sample` wants them, with contiguous copies of the columns that every poll reads."""

    table: NDArray[np.void]
    """uapi.SOCKET, sorted by cookie, each cookie once, read-only."""
    cookie: NDArray[np.uint64]
    state: NDArray[np.uint8]
    """One of the eleven."""
    inode: NDArray[np.uint32]
    local_port: NDArray[np.uint16]
    family: NDArray[np.uint8]
    interface: NDArray[np.uint32]


_BLOCK = 16_384
"""Rows that are moved, and have their columns copied, while they are in the processor's cache."""


def sort_by_cookie(table: NDArray[np.void], memory: Callable[[int], NDArray[np.void]] | None = None) -> SortedSockets:
    """Put a dump's rows in order; `table` is given up to the answer.

    A socket that moved while the kernel walked its table can come twice: the later row is the truer. `memory` gives a
    table of at least so many rows to sort into; without it, new memory is taken.
    """
    cookie = np.ascontiguousarray(table["idiag_cookie"])
    if bool((cookie[1:] > cookie[:-1]).all()):
        # The kernel gives cookies out as it walks, so that a table of old sockets comes in their order.
        order, rows = None, table
    else:
        order = _ascending(cookie)
        cookie = cookie[order]
        last = np.append(cookie[1:] != cookie[:-1], True)
        order, cookie = order[last], cookie[last]
        rows = (memory(len(order)) if memory else np.empty(len(order), table.dtype))[: len(order)]
    size = len(cookie)
    ordered = SortedSockets(
        rows,
        cookie,
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
    for array in ordered:
        array.flags.writeable = False
    return ordered


def sort_tcp_info(told: TcpInfoDump, memory: Callable[[int], NDArray[np.void]] | None = None) -> TcpInfoTable:
    """Put the infos of a dump in order, each flow once, without the listeners: these are no flows. As `by_cookie`."""
    flows = np.flatnonzero(told.table["tcpi_state"] != _LISTEN)
    cookie = told.table["idiag_cookie"][flows]
    if not bool((cookie[1:] > cookie[:-1]).all()):
        order = _ascending(cookie)
        order = order[np.append(np.diff(cookie[order]) != 0, True)]
        cookie, flows = cookie[order], flows[order]
    figures = (memory(len(flows)) if memory else np.empty(len(flows), told.table.dtype))[: len(flows)]
    np.take(opaque(told.table), flows, out=opaque(figures), mode="clip")
    infos = TcpInfoTable(cookie, figures, told.received_monotonic_s[flows], told.info_bytes)
    for array in (infos.cookie, infos.table, infos.received_monotonic_s):
        array.flags.writeable = False
    return infos


def _ascending(cookie: NDArray[np.uint64]) -> NDArray[np.intp]:
    """argsort, stable, 16 bits a pass: numpy sorts such numbers by radix, twice as fast for a million cookies.

    Cookies are counted up, so that the span of those alive mostly needs two passes.
    """
    above = cookie - cookie.min()
    order = np.argsort(above.astype(np.uint16), kind="stable")
    for shift in range(16, int(above.max()).bit_length(), 16):
        digit = (above >> np.uint64(shift)).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    return order


def empty_table() -> NDArray[np.void]:
    """A table without a row."""
    return np.empty(0, uapi.SOCKET)
