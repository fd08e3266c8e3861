"""What the trace tells, one row an event, whatever the tracepoint: types shared by those who read it and those above.

Sources: include/trace/events/{sock,tcp,skb}.h. Full sockets of all network namespaces together; it never tells of
request sockets (SYN_RECV before the last ACK) nor of TIME_WAIT.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


class TraceEventKind(enum.IntEnum):
    """Which tracepoint an event comes from; fits a uint8 column."""

    STATE = 1
    """sock:inet_sock_set_state"""
    DESTROYED = 2
    """tcp:tcp_destroy_sock, which tells the cookie: the last event of its socket's kernel address."""
    RETRANSMIT = 3
    """tcp:tcp_retransmit_skb"""
    SYNACK_RETRANSMIT = 4
    """tcp:tcp_retransmit_synack; `socket` is the listener's."""
    RESET_SENT = 5
    """tcp:tcp_send_reset; `src` is the end that sends it, `socket` 0 where there is none for the ends; it may be that
    of a listener, of which the kernel does not tell the other end."""
    RESET_RECEIVED = 6
    """tcp:tcp_receive_reset; `src` is the end that receives it."""
    DROP = 7
    """skb:kfree_skb with a reason of TCP's; has no ends, `socket` is 0 or, since Linux 6.11, the receiving one. Reasons
    that do not begin with TCP_ (NO_SOCKET, SOCKET_RCVBUFF, SOCKET_BACKLOG, PROTO_MEM) may be a UDP packet's."""
    ERROR = 8
    """sock:inet_sk_error_report: the error that the application will be told; has ends and no `socket`."""


TRACE_EVENT = np.dtype(
    [
        ("time", "=f8"),  # seconds of CLOCK_MONOTONIC
        ("socket", "=u8"),  # kernel address: an identity until its DESTROYED, and given out again after that
        ("cookie", "=u8"),  # 0 where the tracepoint does not tell it
        ("src", "u1", 16),  # as idiag_src: IPv4 in the first four bytes
        ("dst", "u1", 16),
        ("sport", "=u2"),  # host order; 0 where it has none (before connect() has chosen one)
        ("dport", "=u2"),
        ("pid", "=i4"),  # whoever ran: the caller of connect() for CLOSE → SYN_SENT, by chance for the rest
        ("reason", "=u2"),  # of a reset or a drop, a key of Traced.reset_reasons or drop_reasons; of an error its errno
        ("kind", "u1"),
        ("old", "u1"),  # states as the kernel numbers them; both the present one where nothing changed; 0 not told
        ("new", "u1"),
        ("family", "u1"),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class TraceEvents:
    """What was traced since the last time."""

    events: NDArray[np.void]
    """TRACE_EVENT, in the order of time, read-only."""
    lost: int = 0
    """Events that the kernel overwrote before they were read, or that we could not keep."""
    reset_reasons: Mapping[int, str] = field(default_factory=dict)
    """Number → the kernel's name, as `TCP_ABORT_ON_CLOSE`; empty before Linux 6.10."""
    drop_reasons: Mapping[int, str] = field(default_factory=dict)
    """Number → the kernel's name, as `TCP_LISTEN_OVERFLOW`."""
