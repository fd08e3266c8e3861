"""TraceEvents: one row per trace event, the same type for all tracepoints.

Sources: include/trace/events/{sock,tcp,skb}.h. The trace has full sockets of all network namespaces. It has no
events of request sockets (SYN_RECV before the last ACK) and of TIME_WAIT sockets.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray


class TraceEventKind(enum.IntEnum):
    """The tracepoint of an event; fits a uint8 column."""

    STATE = 1
    """sock:inet_sock_set_state"""
    DESTROYED = 2
    """tcp:tcp_destroy_sock, which has the cookie: the last event of a socket's kernel address."""
    RETRANSMIT = 3
    """tcp:tcp_retransmit_skb"""
    SYNACK_RETRANSMIT = 4
    """tcp:tcp_retransmit_synack; `socket` is the listener's."""
    RESET_SENT = 5
    """tcp:tcp_send_reset; `src` is the sending endpoint. `socket` is 0 if the endpoints have no socket; it may be that
    of a listener, for which the kernel does not give the remote endpoint."""
    RESET_RECEIVED = 6
    """tcp:tcp_receive_reset; `src` is the receiving endpoint."""
    DROP = 7
    """skb:kfree_skb with a reason that concerns TCP; without endpoints. `socket` is 0 or, since Linux 6.11, the
    receiving socket. Reasons that do not begin with TCP_ (NO_SOCKET, SOCKET_RCVBUFF, SOCKET_BACKLOG, PROTO_MEM) also
    occur for UDP packets."""
    ERROR = 8
    """sock:inet_sk_error_report: an error that the application will get; with endpoints and without `socket`."""


TRACE_EVENT = np.dtype(
    [
        ("time", "=f8"),  # seconds of CLOCK_MONOTONIC
        ("socket", "=u8"),  # kernel address: identifies the socket until DESTROYED, and is reused afterwards
        ("cookie", "=u8"),  # 0 if the tracepoint does not have it
        ("src", "u1", 16),  # as idiag_src: IPv4 in the first four bytes
        ("dst", "u1", 16),
        ("sport", "=u2"),  # host order; 0 if there is none (before connect() has chosen one)
        ("dport", "=u2"),
        ("pid", "=i4"),  # the running thread: for CLOSE → SYN_SENT the caller of connect(), for → FIN_WAIT1 and
        # LAST_ACK that of close() or shutdown(), otherwise unrelated; 0 where unknown
        ("reason", "=u2"),  # of a reset or a drop a key of reset_reasons or drop_reasons; of an error its errno
        ("kind", "u1"),
        ("old", "u1"),  # the kernel's state numbers; both the current one if there is no transition; 0 unknown
        ("new", "u1"),
        ("family", "u1"),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class TraceEvents:
    """Trace events since the previous call."""

    events: NDArray[np.void]
    """TRACE_EVENT, in order of time, read-only."""
    lost: int = 0
    """Events that the kernel overwrote before they were read, did not fit into the backlog, or have unknown states."""
    reset_reasons: Mapping[int, str] = field(default_factory=dict)
    """Number → the kernel's name, such as `TCP_ABORT_ON_CLOSE`; empty before Linux 6.10."""
    drop_reasons: Mapping[int, str] = field(default_factory=dict)
    """Number → the kernel's name, such as `TCP_LISTEN_OVERFLOW`."""
    missing: tuple[str, ...] = ()
    """Tracepoints that this kernel does not have, such as `tcp/tcp_send_reset`."""
    foreign_sockets: int = 0
    """Sockets of other network namespaces whose events were left out, as there were too many."""

    def without_rows(self) -> TraceEvents:
        """Return the same without the events themselves."""
        return replace(self, events=self.events[:0].copy())
