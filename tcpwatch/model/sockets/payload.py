"""Bytes of data in the counters of tcp_info, which also count SYN and FIN as one byte each (RFC 4898).

tcpi_bytes_acked counts our FIN, and the SYN of connect(), once they are acknowledged; the SYN+ACK of an accepted
connection is not counted. tcpi_bytes_received counts the peer's FIN (tcp_snd_una_update and tcp_rcv_nxt_update in
net/ipv4/tcp_input.c). The state in the same tcp_info shows which of them are counted.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.netlink.tcp_info import has_field
from tcpwatch.model.states import State

PEER_CLOSED = (State.CLOSE_WAIT, State.LAST_ACK, State.CLOSING)
"""States of full sockets that have received the peer's FIN."""
MOST_CONTROL = 2
"""The SYN and the FIN: counters that differ more were set by TCP_REPAIR."""
_CONNECTING = (State.SYN_SENT, State.SYN_RCVD)

_FIN_RECEIVED = np.zeros(256, np.int64)
_FIN_RECEIVED[list(PEER_CLOSED)] = 1
_FIN_ACKED = np.zeros(256, np.int64)
_FIN_ACKED[State.FIN_WAIT_2] = 1
_SYN_ACKED = np.ones(256, np.int64)
_SYN_ACKED[list(_CONNECTING)] = 0


def received_bytes(counted: NDArray[np.uint64], state: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the bytes of data received in order, from tcpi_bytes_received and tcpi_state."""
    data: NDArray[np.int64] = np.maximum(counted.astype(np.int64) - _FIN_RECEIVED[state], 0)
    return data


def acked_bytes(counted: NDArray[np.uint64], state: NDArray[np.uint8], client: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the bytes of data acknowledged, from tcpi_bytes_acked and tcpi_state; `client` called connect()."""
    control = _FIN_ACKED[state] + client * _SYN_ACKED[state]
    data: NDArray[np.int64] = np.maximum(counted.astype(np.int64) - control, 0)
    return data


def payload(
    infos: NDArray[np.void], client: NDArray[np.bool_], info_bytes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the bytes of data that each socket (uapi.FLOW_INFO) received, and that were acknowledged.

    More bytes acknowledged than data was sent: all data was acknowledged, whoever called connect().
    """
    state = infos["tcpi_state"]
    acked = acked_bytes(infos["tcpi_bytes_acked"], state, client)
    if has_field("tcpi_bytes_retrans", info_bytes):
        sent = (infos["tcpi_bytes_sent"] - infos["tcpi_bytes_retrans"]).astype(np.int64)
        more = infos["tcpi_bytes_acked"].astype(np.int64) - sent
        acked = np.where((more > 0) & (more <= MOST_CONTROL), sent, acked)
    return received_bytes(infos["tcpi_bytes_received"], state), acked


def without_control_bytes(info: Mapping[str, int], client: bool) -> dict[str, int]:
    """Return the tcp_info of one socket, with bytes_received and bytes_acked of data alone."""
    state = info.get("state", 0)
    control = int(_FIN_ACKED[state] + client * _SYN_ACKED[state])
    if "bytes_retrans" in info:
        more = info["bytes_acked"] - info["bytes_sent"] + info["bytes_retrans"]
        control = more if 0 < more <= MOST_CONTROL else control
    return {**info, **less(info, int(_FIN_RECEIVED[state]), control)}


def less(info: Mapping[str, int], received: int, acked: int) -> dict[str, int]:
    """Return bytes_received and bytes_acked, as far as the kernel sent them, less these control bytes."""
    control = {"bytes_received": received, "bytes_acked": acked}
    return {name: max(0, info[name] - counted) for name, counted in control.items() if name in info}
