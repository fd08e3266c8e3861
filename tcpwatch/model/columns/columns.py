"""THE list of columns of a socket: the table, JSON, CSV and help all read it here.

Values come in bulk, for the rows that are asked for: a table of a million sockets makes text of fifty. The keys, their
order among the exported ones, and their values are a public contract (README, "Headless").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from tcpwatch.model.columns import socket_values as cells
from tcpwatch.model.columns import throughput_values
from tcpwatch.model.columns.socket_values import Keys, Values
from tcpwatch.model.sockets.rows import Mark, Rows
from tcpwatch.model.sockets.throughput import SendLimit, Throughput
from tcpwatch.model.states import Closer, Role
from tcpwatch.sample import Capabilities, CapabilityName
from tcpwatch.units.printable import printable


@dataclass(frozen=True, slots=True)
class SocketColumn:
    """One column. `values` gives what JSON shows (None: not known); `show` turns one such value into text."""

    key: str
    title: str
    help: str
    values: Callable[[Rows], Values]
    sort: Callable[[Rows], Keys]
    show: Callable[[Any, bool], str]
    """(value, exact) → text; exact is what `n` asks for: numbers as they are, no names."""
    width: int
    """Cells in a table."""
    grow: int = 0
    """Cells that it may take beyond `width` where there is room."""
    priority: int = 9
    """Columns of a high number leave first when the screen is narrow; 0 stays."""
    right: bool = False
    exported: bool = True
    """In JSON and CSV; the others are for the table alone."""
    in_table: bool = True
    needs: CapabilityName | None = None
    """What the source must be able to read; None where every source can."""


_RQUEUE, _WQUEUE = cells.field("idiag_rqueue"), cells.field("idiag_wqueue")
_SPORT, _DPORT = cells.field("idiag_sport"), cells.field("idiag_dport")
_RETRANS, _INODE = cells.field("idiag_retrans"), cells.field("idiag_inode")
_UID = cells.uids, cells.field("idiag_uid")[1]
_SRC, _DST = cells.addresses("idiag_src"), cells.addresses("idiag_dst")
_LOCAL = cells.address_keys("idiag_src", "idiag_sport")
_REMOTE = cells.address_keys("idiag_dst", "idiag_dport")
_CGROUP = cells.field("cgroup_id")
_IF = cells.field("idiag_if")
_BY_OWNER = cells.owner_keys(lambda owner: (cells.owner_name(owner), cells.owner_pid(owner)))
_TIMER_NAME = cells.timer_names, cells.field("idiag_timer")[1]
_RX, _TX = throughput_values.figures(Throughput.rx_bytes_per_s), throughput_values.figures(Throughput.tx_bytes_per_s)
_RTT = throughput_values.figures(Throughput.rtt_us, per=1000, digits=3)
_SEND_LIMIT = throughput_values.words(Throughput.send_limits, [limit.word for limit in SendLimit].__getitem__)

_THROUGHPUT: tuple[SocketColumn, ...] = (
    SocketColumn("rx_bytes_per_s", "Rx/s",
        "Bytes received per second, between the last two times that the kernel was asked",
      *_RX, cells.show_size, 6, 5, 6, True, needs="tcp_info"),
    SocketColumn("tx_bytes_per_s", "Tx/s", "Bytes per second that the peer has acknowledged, likewise",
      *_TX, cells.show_size, 6, 5, 6, True, needs="tcp_info"),
    SocketColumn("rtt_ms", "RTT", "Round trip time, smoothed by the kernel", *_RTT, throughput_values.show_ms, 8, 5,
        6, True, needs="tcp_info"),
    SocketColumn("limited_by", "Limit",
        "What holds back what this end sends: application, receiver (its window is full), "
      "send buffer or network", *_SEND_LIMIT, cells.plain, 11, 0, 6,
      needs="tcp_info"),
    SocketColumn("retransmits_total", "Retrans", "Segments repeated since the connection began",
      *throughput_values.counts(Throughput.retransmits), throughput_values.show_count, 7, 0, 8, True, needs="tcp_info"),
    SocketColumn("congestion", "Congestion", "Congestion control algorithm: cubic, bbr, ...",
      *throughput_values.words(Throughput.congestion, lambda name: printable(name.decode("ascii", "replace")) or None),
      cells.plain, 10, 0, 19, needs="tcp_info"),
)  # fmt: skip
"""What tcp_info tells. They came later: in JSON and CSV they stand last, so that the others keep their place."""

COLUMNS: tuple[SocketColumn, ...] = (
    SocketColumn("state", "State", "TCP state, RFC 9293's name", cells.states, cells.state_keys, cells.plain, 11,
        priority=0),
    SocketColumn("local", "Local", "This host's address and port; * is any",
      cells.endpoints("idiag_src", "idiag_sport"), _LOCAL, cells.show_endpoint, 21, 26, 1, exported=False),
    SocketColumn("remote", "Remote", "The other end's address and port",
      cells.endpoints("idiag_dst", "idiag_dport"), _REMOTE, cells.show_endpoint, 21, 26, 0, exported=False),
    SocketColumn("local_address", "Local address", "This host's address; IPv4-mapped IPv6 is told as IPv4",
      _SRC, _LOCAL, cells.plain, 15, in_table=False),
    SocketColumn("local_port", "Local port", "This host's port", *_SPORT, cells.plain, 5, in_table=False),
    SocketColumn("remote_address", "Remote address", "The other end's address",
      _DST, _REMOTE, cells.plain, 15, in_table=False),
    SocketColumn("remote_port", "Remote port", "The other end's port; 0 where there is none",
      *_DPORT, cells.plain, 5, in_table=False),
    SocketColumn("recv_queue", "Recv-Q", "Bytes not yet read by the application (an unread FIN counts 1); "
      "LISTEN: connections that wait to be accepted", *_RQUEUE, cells.show_size, 6, 4, 2, True, needs="queues"),
    SocketColumn("send_queue", "Send-Q", "Bytes not yet acknowledged by the peer; "
      "LISTEN: limit of the accept queue", *_WQUEUE, cells.show_size, 6, 4, 4, True, needs="queues"),
    *_THROUGHPUT,
    SocketColumn("owner", "Process", "Process that holds the socket, with pid; +n: n more hold it too; "
      "?: not visible (Enter says why)", cells.owner_cells, _BY_OWNER, cells.plain, 10, 14, 3, exported=False),
    SocketColumn("timers", "Timer", "The timer that runs, and what is left of it",
      cells.timers, cells.timer_keys, cells.show_timer, 18, 0, 6, exported=False, needs="timers"),
    SocketColumn("timer", "Timer", "Timer that runs: on (retransmission), keepalive, timewait, persist "
      "(zero window)", *_TIMER_NAME,
      cells.plain, 9, in_table=False, needs="timers"),
    SocketColumn("timer_s", "Timer left", "Seconds until that timer expires",
      cells.timer_seconds, cells.timer_keys, cells.show_seconds, 8, in_table=False, needs="timers"),
    SocketColumn("retransmits", "Retr", "Retransmissions in a row without an answer; SYN_RCVD: SYN+ACKs "
      "repeated", *_RETRANS, cells.plain, 4, 0, 7, True, needs="timers"),
    SocketColumn("role", "Role", "client or server: server if the local port is a listener's",
      cells.from_enum("role", [r.word if r else None for r in Role]), cells.hot("role"), cells.plain, 8, 0, 8),
    SocketColumn("state_age", "In state", "Time in this state since tcpwatch saw it; >: at least",
      cells.age_cells("since"), cells.age_keys("since"), cells.show_age, 10, 0, 5, True, exported=False),
    SocketColumn("age", "Age", "Time since tcpwatch saw the flow first; >: at least, it was there before",
      cells.age_cells("first_seen"), cells.age_keys("first_seen"), cells.show_age, 10, 0, 10, True, False),
    SocketColumn("uid", "Uid", "User id of the socket's owner", *_UID, cells.plain, 6, in_table=False, needs="inodes"),
    SocketColumn("user", "User", "Name of that user", cells.users, _UID[1], cells.plain, 8, in_table=False,
      needs="inodes"),
    SocketColumn("user_or_uid", "User", "User of the socket (n: number)",
      cells.user_cells, _UID[1], cells.show_user, 8, 4, 9, exported=False, needs="inodes"),
    SocketColumn("closer", "Closed by", "Who sent the first FIN: local, peer or both",
      cells.from_enum("closer", [c.word if c else None for c in Closer]), cells.hot("closer"), cells.plain, 9, 0, 11),
    SocketColumn("phase", "Phase", "Part of the connection's life: handshake, open or teardown",
      cells.phases, cells.state_keys, cells.plain, 9, 0, 16),
    SocketColumn("pid", "Pid", "Process id; the lowest where several hold the socket",
      cells.owner_values(cells.owner_pid), cells.owner_keys(cells.owner_pid), cells.plain, 7, in_table=False),
    SocketColumn("process", "Process", "That process's name",
      cells.owner_values(cells.owner_name), cells.owner_keys(cells.owner_name), cells.plain, 15, in_table=False),
    SocketColumn("pids", "Pids", "All processes that hold the socket",
      cells.owner_values(lambda o: [p.pid for p in o.processes]), cells.owner_keys(cells.owner_pid), cells.plain, 7,
      in_table=False),
    SocketColumn("command", "Command", "Command line of the process",
      cells.owner_values(cells.owner_command), cells.owner_keys(cells.owner_command), cells.plain, 20, 40, 17),
    SocketColumn("owner_unknown", "Owner unknown", "Why no process is shown, where none is",
      cells.unknown_reasons, cells.hot("owner"), cells.plain, 20, in_table=False),
    SocketColumn("inode", "Inode", "Socket's inode; 0: no process holds it", *_INODE, cells.plain, 10, 0, 13, True,
      needs="inodes"),
    SocketColumn("cookie", "Cookie", "The kernel's identity of the socket, for its whole life",
      lambda rows: rows.cookie.tolist(), cells.hot("cookie"), cells.plain, 10, 0, 14, True, needs="cookies"),
    SocketColumn("interface", "If", "Interface that the socket is bound to",
      cells.interfaces, _IF[1], cells.plain, 8, 0, 15, needs="attributes"),
    SocketColumn("cgroup_id", "Cgroup", "Id (inode) of the control group", cells.cgroups, _CGROUP[1], cells.plain, 8,
        0, 12,
      True, needs="attributes"),
    SocketColumn("shutdown", "Shutdown", "Direction that was shut down: receive, send or both",
      cells.shutdowns, cells.field("shutdown")[1], cells.plain, 8, 0, 18, needs="attributes"),
    SocketColumn("age_s", "Age", "Seconds since tcpwatch saw the flow first",
      cells.ages("first_seen"), cells.age_keys("first_seen"), cells.show_seconds, 9, in_table=False),
    SocketColumn("state_age_s", "In state", "Seconds in this state since tcpwatch saw it",
      cells.ages("since"), cells.age_keys("since"), cells.show_seconds, 9, in_table=False),
)  # fmt: skip

BY_KEY: dict[str, SocketColumn] = {column.key: column for column in COLUMNS}
EXPORTED: tuple[SocketColumn, ...] = (*(c for c in COLUMNS if c.exported and c not in _THROUGHPUT), *_THROUGHPUT)
IN_TABLE: tuple[SocketColumn, ...] = tuple(c for c in COLUMNS if c.in_table)

MARK_SIGNS = {Mark.NONE: " ", Mark.NEW: "+", Mark.CHANGED: "~", Mark.CLOSED: "×"}
"""How a row's mark is shown, without colour."""


@cache
def unsupported_columns(capabilities: Capabilities) -> frozenset[str]:
    """Return the keys of the columns that a source with these capabilities cannot fill."""
    return frozenset(column.key for column in COLUMNS if not capabilities.supports(column.needs))
