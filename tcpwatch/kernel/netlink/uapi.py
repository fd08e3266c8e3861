"""Kernel structs as numpy dtypes, and constants, by their header names.

Sources: include/uapi/linux/{netlink,sock_diag,inet_diag,tcp}.h of Linux 6.18. Integers are in the host's order
unless marked `>`. Only what tcpwatch uses is here.
"""

from __future__ import annotations

import sys

import numpy as np

NETLINK_SOCK_DIAG = 4
NLMSG_NOOP, NLMSG_ERROR, NLMSG_DONE, NLMSG_OVERRUN = 1, 2, 3, 4
NLM_F_REQUEST, NLM_F_DUMP, NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
NLMSG_HDRLEN, NLA_HDRLEN = 16, 4

TCPDIAG_GETSOCK = 18
"""The old request: answers for IPv4 and IPv6 in one walk of the hash table."""
SOCK_DIAG_BY_FAMILY = 20

SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY = 1, 3
"""Multicast groups of NETLINK_SOCK_DIAG: freed TCP sockets of a network namespace."""
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 270, 1
SO_RCVBUFFORCE, SO_MEMINFO = 33, 55
"""From include/uapi/asm-generic/socket.h; alpha, parisc and sparc have other numbers."""

AF_INET, AF_INET6 = 2, 10
IPPROTO_TCP = 6

TCP_NEW_SYN_RECV = 12
"""The state of a half-open connection inside the kernel, after the eleven states that RFC 9293 has."""
TCPF_LISTEN = 1 << 10
TCPF_ALL = 0xFFF
TCPF_BOUND_INACTIVE = 1 << 13
"""Sockets that are bound to a port and neither listen nor are connected; ignored before Linux 6.8."""

INET_DIAG_INFO = 2
INET_DIAG_CONG = 4
INET_DIAG_SKMEMINFO = 7
INET_DIAG_SHUTDOWN = 8
INET_DIAG_SKV6ONLY = 11
INET_DIAG_CGROUP_ID = 21
INET_DIAG_SOCKOPT = 22
SK_MEMINFO_DROPS = 8
TCP_CA_NAME_MAX = 16

TIMER_NAMES = ("", "on", "keepalive", "timewait", "persist", "unknown")
"""`idiag_timer` as ss(8) spells it; 0 is no timer."""


def _fields(kind: str, names: str, prefix: str = "") -> list[tuple[str, str]]:
    return [(prefix + name, kind) for name in names.split()]


NLMSGHDR = np.dtype(
    [("nlmsg_len", "=u4"), ("nlmsg_type", "=u2"), ("nlmsg_flags", "=u2"), ("nlmsg_seq", "=u4"), ("nlmsg_pid", "=u4")]
)

SOCKID = [
    ("idiag_sport", ">u2"),
    ("idiag_dport", ">u2"),
    ("idiag_src", "u1", 16),
    ("idiag_dst", "u1", 16),
    ("idiag_if", "=u4"),
    # __u32[2] in the header; one number here. On big-endian machines its halves are in a different
    # order than in ss -e, which is harmless: it is an identity, and is sent back unchanged.
    ("idiag_cookie", "=u8"),
]

INET_DIAG_MSG = np.dtype(
    [
        *_fields("u1", "idiag_family idiag_state idiag_timer idiag_retrans"),
        *SOCKID,
        *_fields("=u4", "idiag_expires idiag_rqueue idiag_wqueue idiag_uid idiag_inode"),
    ]
)

INET_DIAG_REQ = np.dtype(  # struct inet_diag_req, for TCPDIAG_GETSOCK
    [
        *_fields("u1", "idiag_family idiag_src_len idiag_dst_len idiag_ext"),
        *SOCKID,
        *_fields("=u4", "idiag_states idiag_dbs"),
    ]
)

INET_DIAG_REQ_V2 = np.dtype(  # struct inet_diag_req_v2, for SOCK_DIAG_BY_FAMILY
    [*_fields("u1", "sdiag_family sdiag_protocol idiag_ext pad"), ("idiag_states", "=u4"), *SOCKID]
)

SOCKET = np.dtype(
    [
        *[(name, INET_DIAG_MSG.fields[name][0]) for name in INET_DIAG_MSG.names],  # type: ignore[index,union-attr]
        ("cgroup_id", "=u8"),
        ("shutdown", "u1"),
        ("has", "u1"),
    ]
)
"""One row of a socket table: `inet_diag_msg`, then the attributes that are sent without a request.

`shutdown` is RCV_SHUTDOWN (1) | SEND_SHUTDOWN (2); `has` says which attributes were sent (HAS_*), so that an absent
cgroup is not taken for cgroup 0, whether SKV6ONLY was 1, which is sent of IPv6 sockets in LISTEN and CLOSED, and
whether IP_TRANSPARENT is set, which is sent of full sockets (since Linux 5.9).
"""
HAS_CGROUP_ID, HAS_SHUTDOWN, IS_V6ONLY, IS_TRANSPARENT = 1, 2, 4, 8
SOCKOPT_TRANSPARENT = 0x20 if sys.byteorder == "little" else 0x04
"""The sixth bit field in the first byte of struct inet_diag_sockopt."""

_BYTES = "state ca_state retransmits probes backoff options wscale flags"
_U4 = """rto ato snd_mss rcv_mss unacked sacked lost retrans fackets last_data_sent last_ack_sent last_data_recv
last_ack_recv pmtu rcv_ssthresh rtt rttvar snd_ssthresh snd_cwnd advmss reordering rcv_rtt rcv_space total_retrans"""

TCP_INFO = np.dtype(
    [
        *_fields("u1", _BYTES, "tcpi_"),
        *_fields("=u4", _U4, "tcpi_"),
        *_fields("=u8", "pacing_rate max_pacing_rate bytes_acked bytes_received", "tcpi_"),
        *_fields("=u4", "segs_out segs_in notsent_bytes min_rtt data_segs_in data_segs_out", "tcpi_"),
        *_fields("=u8", "delivery_rate busy_time rwnd_limited sndbuf_limited", "tcpi_"),
        *_fields("=u4", "delivered delivered_ce", "tcpi_"),
        *_fields("=u8", "bytes_sent bytes_retrans", "tcpi_"),
        *_fields("=u4", "dsack_dups reord_seen rcv_ooopack snd_wnd rcv_wnd rehash", "tcpi_"),
        *_fields("=u2", "total_rto total_rto_recoveries", "tcpi_"),
        ("tcpi_total_rto_time", "=u4"),
    ]
)
"""struct tcp_info. Older kernels send fewer bytes: the fields beyond are unknown, and not 0.

Units: rto, ato, rtt, rttvar, rcv_rtt, min_rtt, busy_time, rwnd_limited, sndbuf_limited in µs; last_* and total_rto_time
in ms; rates in bytes/s; cwnd and the counts in segments. wscale is snd_wscale in the low nibble and rcv_wscale in the
high one; flags is delivery_rate_app_limited in bit 0 and fastopen_client_fail in bits 1 and 2.
"""

_FLOW = f"""bytes_acked bytes_received busy_time rwnd_limited sndbuf_limited bytes_sent bytes_retrans {_BYTES}
rtt total_retrans notsent_bytes"""

FLOW_INFO = np.dtype(
    [
        ("idiag_cookie", "=u8"),
        *[(f"tcpi_{n}", TCP_INFO.fields[f"tcpi_{n}"][0]) for n in _FLOW.split()],  # type: ignore[index]
        ("congestion", f"S{TCP_CA_NAME_MAX}"),
    ]
)
"""tcp_info of every connection, in part, and INET_DIAG_CONG: 100 bytes, so that 200,000 fit into 20 MB."""
