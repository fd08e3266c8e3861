"""How many SYNs and FINs the final tcp_info of closed connections counts as bytes (see sockets.payload)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.netlink.tcp_info import has_field
from tcpwatch.model.lifecycle.classify import EndingEvidence
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.sockets.payload import MOST_CONTROL, PEER_CLOSED
from tcpwatch.model.states import Role

_HELD_S = 10e-6
"""The kernel frees an orphan 2 to 3 µs after it closed (Linux 6.18); an application needs more for close()."""
_BY_FINS = (Ending.BY_US, Ending.BY_PEER, Ending.AT_ONCE, Ending.ORDERLY)


def control_bytes(
    evidence: EndingEvidence, ending: NDArray[np.uint8], unread: NDArray[np.int64], info_bytes: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return what tcpi_bytes_received and tcpi_bytes_acked of each connection count beside data.

    `unread` are the bytes in the receive queue of the destroy event, where a FIN counts as one; `info_bytes` is the
    size of the kernel's tcp_info.
    """
    return _received(evidence, ending, unread), _acked(evidence, ending, info_bytes)


def _received(evidence: EndingEvidence, ending: NDArray[np.uint8], unread: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return 1 where the peer's FIN is proved to be counted.

    After an active close it is not: the FIN of the peer mostly finds an orphan in FIN_WAIT_2, which is a small socket.
    If it found the full socket, it is unread there, or the application read it and closed the socket later.
    """
    info, traced = evidence.info, evidence.traced
    held = traced["destroyed"] - traced["closed"] > _HELD_S
    counted = np.isin(evidence.state, PEER_CLOSED)
    counted |= np.isin(ending, (Ending.BY_PEER, Ending.AT_ONCE, Ending.ORDERLY))
    counted |= (ending == Ending.BY_US) & ((unread > 0) | held)
    counted |= info["tcpi_data_segs_in"] == 0
    counted &= evidence.info_known & (info["tcpi_bytes_received"] > 0)
    return counted.astype(np.uint8)


def _acked(evidence: EndingEvidence, ending: NDArray[np.uint8], info_bytes: int) -> NDArray[np.uint8]:
    acked = evidence.info["tcpi_bytes_acked"].astype(np.int64)
    client = (evidence.role == Role.CLIENT).astype(np.int64)
    if has_field("tcpi_bytes_sent", info_bytes):
        # More acknowledged than data was sent: all data was acknowledged, and a SYN or a FIN beside it.
        more = acked - (evidence.info["tcpi_bytes_sent"] - evidence.info["tcpi_bytes_retrans"]).astype(np.int64)
        control = np.where((more > 0) & (more <= MOST_CONTROL), more, client)
    else:
        control = client + np.isin(ending, _BY_FINS)
    return np.where(evidence.info_known, np.minimum(control, acked), 0).astype(np.uint8)
