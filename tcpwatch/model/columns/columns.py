"""The columns of a socket, for the table, JSON, CSV and help.

Values are computed for the requested rows only. The keys, values and order of the exported columns are a public
contract (README, "Headless").
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

from tcpwatch import units
from tcpwatch.model.columns import socket_values as values
from tcpwatch.model.columns import throughput_values
from tcpwatch.model.columns.socket_values import Keys, Values
from tcpwatch.model.sockets.rows import Mark, Rows
from tcpwatch.model.sockets.throughput import SendLimit, Throughput
from tcpwatch.model.states import Closer, Role
from tcpwatch.sample import Capabilities, CapabilityName
from tcpwatch.units.printable import printable


@dataclass(frozen=True, slots=True)
class SocketColumn:
    """A column. `values` returns the values in JSON (None: unknown), `show` converts one of them to text."""

    key: str
    title: str
    help: str
    values: Callable[[Rows], Values]
    sort: Callable[[Rows], Keys]
    show: Callable[[Any, bool], str]
    """(value, exact) → text; exact (key `n`): no rounding, no names."""
    width: int
    """Terminal cells."""
    grow: int = 0
    """Additional cells that it may take where there is room."""
    priority: int = 9
    """On a narrow screen, columns with high numbers are dropped first; 0 is never dropped."""
    right: bool = False
    exported: bool = True
    """Whether it is in JSON and CSV."""
    in_table: bool = True
    needs: CapabilityName | None = None
    """Capability that the source needs; None: every source has the values."""


_UID = values.uids, values.field("idiag_uid")[1]
_SRC, _DST = values.addresses("idiag_src"), values.addresses("idiag_dst")
_LOCAL = values.address_keys("idiag_src", "idiag_sport")
_REMOTE = values.address_keys("idiag_dst", "idiag_dport")
_BY_OWNER = values.owner_keys(lambda owner: (owner.processes[0].name, owner.processes[0].pid))
_PID = values.first_process("pid")
_TIMER_NAME = values.timer_names, values.field("idiag_timer")[1]
_RX, _TX = throughput_values.figures(Throughput.rx_bytes_per_s), throughput_values.figures(Throughput.tx_bytes_per_s)
_RTT = throughput_values.figures(Throughput.rtt_us, per=1000, digits=3)
_SEND_LIMIT = throughput_values.words(Throughput.send_limits, [limit.word for limit in SendLimit].__getitem__)
_CONGESTION = throughput_values.words(
    Throughput.congestion, lambda name: printable(name.decode("ascii", "replace")) or None
)

_THROUGHPUT: tuple[SocketColumn, ...] = (
    SocketColumn("rx_bytes_per_s", "Rx/s", "Bytes received per second, between the last two polls of tcp_info",
      *_RX, units.size, width=6, grow=5, priority=6, right=True, needs="tcp_info"),
    SocketColumn("tx_bytes_per_s", "Tx/s", "Bytes acknowledged by the peer per second, between the same polls",
      *_TX, units.size, width=6, grow=5, priority=6, right=True, needs="tcp_info"),
    SocketColumn("rtt_ms", "RTT", "Round-trip time, smoothed by the kernel",
      *_RTT, throughput_values.show_ms, width=8, grow=5, priority=6, right=True, needs="tcp_info"),
    SocketColumn("limited_by", "Limit",
      "What limits sending: application, receiver (zero window), send buffer or network",
      *_SEND_LIMIT, values.plain, width=11, priority=6, needs="tcp_info"),
    SocketColumn("retransmits_total", "Retrans", "Segments retransmitted since the connection began",
      *throughput_values.counts(Throughput.retransmits), units.count, width=7, priority=8,
      right=True, needs="tcp_info"),
    SocketColumn("congestion", "Congestion", "Congestion control algorithm: cubic, bbr, ...",
      *_CONGESTION, values.plain, width=10, priority=19, needs="tcp_info"),
)  # fmt: skip
"""Columns from tcp_info; the last ones in JSON and CSV, as they were added later."""

COLUMNS: tuple[SocketColumn, ...] = (
    SocketColumn("state", "State", "TCP state, RFC 9293's name",
      values.states, values.state_keys, values.plain, width=11, priority=0),
    SocketColumn("local", "Local", "Local address and port; * is any; %: the interface that the socket is bound to",
      values.local_endpoints, _LOCAL, values.show_endpoint, width=21, grow=26, priority=1,
      exported=False),
    SocketColumn("remote", "Remote", "Remote address and port",
      values.endpoints("idiag_dst", "idiag_dport"), _REMOTE, values.show_endpoint, width=21, grow=26, priority=0,
      exported=False),
    SocketColumn("local_address", "Local address", "Local address; IPv4-mapped IPv6 is shown as IPv4",
      _SRC, _LOCAL, values.plain, width=15, in_table=False),
    SocketColumn("local_port", "Local port", "Local port",
      *values.field("idiag_sport"), values.plain, width=5, in_table=False),
    SocketColumn("remote_address", "Remote address", "Remote address",
      _DST, _REMOTE, values.plain, width=15, in_table=False),
    SocketColumn("remote_port", "Remote port", "Remote port; 0 without a peer",
      *values.field("idiag_dport"), values.plain, width=5, in_table=False),
    SocketColumn("recv_queue", "Recv-Q",
      "Bytes not yet read by the application (a pending FIN counts 1); LISTEN: connections waiting for accept()",
      *values.field("idiag_rqueue"), units.size, width=6, grow=4, priority=2, right=True, needs="queues"),
    SocketColumn("send_queue", "Send-Q", "Bytes not yet acknowledged by the peer; LISTEN: limit of the accept queue",
      *values.field("idiag_wqueue"), units.size, width=6, grow=4, priority=4, right=True, needs="queues"),
    *_THROUGHPUT,
    SocketColumn("owner", "Process",
      "Process that holds the socket (LISTEN: that accepts), with pid; +n: and n more; ?: not visible (Enter: why)",
      values.owner_cells, _BY_OWNER, values.plain, width=10, grow=14, priority=3, exported=False),
    SocketColumn("timers", "Timer", "Running timer, and the time left",
      values.timers, values.timer_keys, values.show_timer, width=18, priority=6, exported=False, needs="timers"),
    SocketColumn("timer", "Timer", "Running timer: on (retransmission), keepalive, timewait, persist (zero window)",
      *_TIMER_NAME, values.plain, width=9, in_table=False, needs="timers"),
    SocketColumn("timer_s", "Timer left", "Seconds until the timer expires",
      values.timer_seconds, values.timer_keys, values.show_seconds, width=8, in_table=False, needs="timers"),
    SocketColumn("retransmits", "Retr", "Retransmits in a row without an answer; SYN_RCVD: SYN+ACK retransmits",
      *values.field("idiag_retrans"), values.plain, width=4, priority=7, right=True, needs="timers"),
    SocketColumn("role", "Role", "client or server: which end opened the connection; empty where it cannot be known",
      values.from_enum("role", [r.word if r else None for r in Role]), values.hot("role"), values.plain, width=8,
      priority=8),
    SocketColumn("state_age", "In state", "Time in this state since tcpwatch first saw it; >: at least",
      values.age_cells("since"), values.age_keys("since"), values.show_age, width=10, priority=5, right=True,
      exported=False),
    SocketColumn("age", "Age",
      "Time since tcpwatch first saw the flow; >: at least, as the flow is older than tcpwatch",
      values.age_cells("first_seen"), values.age_keys("first_seen"), values.show_age, width=10, priority=10, right=True,
      exported=False),
    SocketColumn("uid", "Uid", "User id of the socket's owner",
      *_UID, values.plain, width=6, in_table=False, needs="inodes"),
    SocketColumn("user", "User", "User name of the socket's owner",
      values.users, _UID[1], values.plain, width=8, in_table=False, needs="inodes"),
    SocketColumn("user_or_uid", "User", "User of the socket (n: user id)",
      values.user_cells, _UID[1], values.show_user, width=8, grow=4, exported=False, needs="inodes"),
    SocketColumn("closer", "Closed by", "Who sent the first FIN: local, peer or both",
      values.from_enum("closer", [c.word if c else None for c in Closer]), values.hot("closer"), values.plain, width=9,
      priority=11),
    SocketColumn("phase", "Phase", "Phase of the connection: handshake, open or teardown",
      values.phases, values.state_keys, values.plain, width=9, priority=16),
    SocketColumn("pid", "Pid", "Process id; of several that hold the socket one that accepts, else the lowest",
      *_PID, values.plain, width=7, in_table=False),
    SocketColumn("process", "Process", "Name of that process",
      values.process_names, values.first_process("name")[1], values.plain, width=15, in_table=False),
    SocketColumn("pids", "Pids", "All processes that hold the socket",
      values.owner_values(lambda owner: sorted(process.pid for process in owner.processes)), _PID[1], values.plain,
      width=7, in_table=False),
    SocketColumn("accepted_by", "Accepted by", "LISTEN: the processes of these that are known to accept connections",
      values.acceptors, _PID[1], values.plain, width=7, in_table=False),
    SocketColumn("command", "Command", "Command line of the process",
      *values.first_process("command"), values.plain, width=20, grow=40, priority=17),
    SocketColumn("owner_unknown", "Owner unknown", "Why no process is shown",
      values.unknown_reasons, values.hot("owner"), values.plain, width=20, in_table=False),
    SocketColumn("inode", "Inode", "Inode of the socket; 0: no process holds it",
      *values.field("idiag_inode"), values.plain, width=10, priority=13, right=True, needs="inodes"),
    SocketColumn("cookie", "Cookie", "The kernel's id of the socket, which never changes",
      lambda rows: rows.cookie.tolist(), values.hot("cookie"), values.plain, width=10, priority=14, right=True,
      needs="cookies"),
    SocketColumn("interface", "If", "Interface that the socket is bound to",
      values.interfaces, values.field("idiag_if")[1], values.plain, width=8, priority=15, needs="attributes"),
    SocketColumn("cgroup_id", "Cgroup", "Id (inode) of the control group",
      values.cgroups, values.field("cgroup_id")[1], values.plain, width=8, priority=12, right=True, needs="attributes"),
    SocketColumn("shutdown", "Shutdown", "Direction shut down: receive, send or both",
      values.shutdowns, values.field("shutdown")[1], values.plain, width=8, priority=18, needs="attributes"),
    SocketColumn("age_s", "Age", "Seconds since tcpwatch first saw the flow",
      values.ages("first_seen"), values.age_keys("first_seen"), values.show_seconds, width=9, in_table=False),
    SocketColumn("state_age_s", "In state", "Seconds in this state since tcpwatch first saw it",
      values.ages("since"), values.age_keys("since"), values.show_seconds, width=9, in_table=False),
)  # fmt: skip

BY_KEY: dict[str, SocketColumn] = {column.key: column for column in COLUMNS}
EXPORTED: tuple[SocketColumn, ...] = (*(c for c in COLUMNS if c.exported and c not in _THROUGHPUT), *_THROUGHPUT)
IN_TABLE: tuple[SocketColumn, ...] = tuple(c for c in COLUMNS if c.in_table)

MARK_SIGNS = {Mark.NONE: " ", Mark.NEW: "+", Mark.CHANGED: "~", Mark.CLOSED: "×"}
"""The sign of each mark in the table."""


@cache
def unsupported_columns(capabilities: Capabilities) -> frozenset[str]:
    """Return the keys of the columns that a source with these capabilities cannot fill."""
    return frozenset(column.key for column in COLUMNS if not capabilities.supports(column.needs))


def exported_values(rows: Rows, unsupported: Collection[str]) -> list[list[Any]]:
    """Return the values of each exported column; None for `unsupported` ones."""
    return [[None] * len(rows) if column.key in unsupported else column.values(rows) for column in EXPORTED]
