"""Bytes of data, from counters that include SYN and FIN."""

from __future__ import annotations

import numpy as np
import pytest

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.tcp_info import has_field
from tcpwatch.model.sockets.payload import payload, without_control_bytes
from tcpwatch.model.states import State
from tests.support.kernel.infos import INFO_BYTES, make_infos

S = State
OLD_BYTES = 200
"""struct tcp_info of Linux 4.18, without bytes_sent and bytes_retrans."""
# State, client, bytes_received, bytes_acked, data sent (without retransmits); data received and acknowledged.
CASES: dict[str, tuple[State, bool, int, int, int, tuple[int, int]]] = {
    "connecting": (S.SYN_SENT, True, 0, 0, 0, (0, 0)),
    "both call": (S.SYN_RCVD, True, 0, 0, 0, (0, 0)),
    "a client": (S.ESTABLISHED, True, 3, 7, 6, (3, 6)),
    "a client, some in flight": (S.ESTABLISHED, True, 3, 5, 6, (3, 4)),
    "a server": (S.ESTABLISHED, False, 3, 6, 6, (3, 6)),
    "a server, some in flight": (S.ESTABLISHED, False, 3, 5, 6, (3, 5)),
    "a client that waits for the ACK of its FIN": (S.FIN_WAIT_1, True, 3, 7, 6, (3, 6)),
    "a client whose FIN is acknowledged": (S.FIN_WAIT_2, True, 3, 8, 6, (3, 6)),
    "a server whose FIN is acknowledged": (S.FIN_WAIT_2, False, 3, 7, 6, (3, 6)),
    "the peer closed": (S.CLOSE_WAIT, False, 4, 6, 6, (3, 6)),
    "the peer closed without data": (S.CLOSE_WAIT, True, 1, 1, 0, (0, 0)),
    "then this end": (S.LAST_ACK, False, 4, 6, 6, (3, 6)),
    "both closed": (S.CLOSING, True, 4, 7, 6, (3, 6)),
    "the counters were set by TCP_REPAIR": (S.CLOSE_WAIT, True, 0, 0, 0, (0, 0)),
}


@pytest.mark.parametrize("info_bytes", [INFO_BYTES, OLD_BYTES])
@pytest.mark.parametrize("name", CASES)
def test_bytes_of_data(name: str, info_bytes: int) -> None:
    state, client, received, acked, sent, expected = CASES[name]
    info = {"state": state, "bytes_received": received, "bytes_acked": acked}
    if has_field("tcpi_bytes_retrans", info_bytes):
        info |= {"bytes_sent": sent + 50, "bytes_retrans": 50}
    table = make_infos({1: info}).table
    both = payload(table, np.array([client]), info_bytes)
    assert [one.tolist() for one in both] == [[one] for one in expected]
    shown = without_control_bytes(info, client)
    assert (shown["bytes_received"], shown["bytes_acked"]) == expected
    assert shown.keys() == info.keys()


def test_a_client_that_is_taken_for_a_server() -> None:
    """All data is acknowledged: the byte that is left over is the SYN."""
    info = {"state": State.ESTABLISHED, "bytes_received": 0, "bytes_acked": 7, "bytes_sent": 6, "bytes_retrans": 0}
    _, acked = payload(make_infos({1: info}).table, np.array([False]), uapi.TCP_INFO.itemsize)
    assert acked.tolist() == [6]
    assert without_control_bytes(info, client=False)["bytes_acked"] == 6


def test_a_kernel_without_the_counters() -> None:
    assert without_control_bytes({"state": 1, "rtt": 5}, client=True) == {"state": 1, "rtt": 5}
