"""SYNs and FINs in the final byte counters of closed connections."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tcpwatch.kernel.netlink import uapi
from tcpwatch.model.lifecycle.control_bytes import control_bytes
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.states import Role, State
from tests.model.lifecycle.test_classify import evidence

S, E = State, Ending
DATA = {"bytes_received": 9, "data_segs_in": 1}
FREED, HELD = {"closed": 5.0, "destroyed": 5.000_003}, {"closed": 5.0, "destroyed": 5.000_05}
# Last state, ending, facts, bytes unread; FINs of the peer that were counted.
RECEIVED: dict[str, tuple[State | None, Ending, dict[str, Any], int, int]] = {
    "the peer closed": (S.LAST_ACK, E.BY_PEER, {"info": DATA}, 0, 1),
    "closed, seen in ESTABLISHED": (S.ESTABLISHED, E.ORDERLY, {"info": DATA}, 0, 1),
    "FINs crossed": (S.CLOSING, E.AT_ONCE, {"info": DATA}, 0, 1),
    "reset after the peer's FIN": (S.CLOSE_WAIT, E.RESET_SENT, {"info": DATA}, 3, 1),
    "closed here, and the FIN found a small socket": (S.FIN_WAIT_2, E.BY_US, {"info": DATA, **FREED}, 0, 0),
    "closed here, and the FIN is unread": (S.FIN_WAIT_2, E.BY_US, {"info": DATA, **FREED}, 1, 1),
    "closed here, and the FIN was read": (S.FIN_WAIT_2, E.BY_US, {"info": DATA, **HELD}, 0, 1),
    "closed here, without a trace": (S.ESTABLISHED, E.BY_US, {"info": DATA}, 0, 0),
    "reset, with unread data": (S.ESTABLISHED, E.RESET, {"info": DATA}, 9, 0),
    "reset, held by the application": (S.ESTABLISHED, E.RESET_RECEIVED, {"info": DATA, **HELD}, 0, 0),
    "a FIN and no data": (S.ESTABLISHED, E.RESET, {"info": {"bytes_received": 1}}, 0, 1),
    "nothing": (S.LAST_ACK, E.BY_PEER, {"info": {}}, 0, 0),
    "no tcp_info": (S.LAST_ACK, E.BY_PEER, {}, 0, 0),
}


@pytest.mark.parametrize("name", RECEIVED)
def test_fins_received(name: str) -> None:
    state, ending, facts, unread, expected = RECEIVED[name]
    endings = np.array([ending], np.uint8)
    received, _ = control_bytes(evidence(state, **facts), endings, np.array([unread]), uapi.TCP_INFO.itemsize)
    assert received.tolist() == [expected]


SENT = {"bytes_sent": 156, "bytes_retrans": 56}


@pytest.mark.parametrize(
    ("role", "acked", "expected"),
    [
        (Role.SERVER, 101, 1),  # the FIN
        (Role.SERVER, 100, 0),
        (Role.SERVER, 99, 0),
        (Role.CLIENT, 102, 2),
        (Role.CLIENT, 101, 1),
        (Role.CLIENT, 100, 1),  # 99 of data
        (Role.CLIENT, 0, 0),  # not even the SYN
        (Role.UNKNOWN, 102, 2),
        (Role.SERVER, 500, 0),  # set by TCP_REPAIR
    ],
)
def test_syns_and_fins_acknowledged(role: Role, acked: int, expected: int) -> None:
    one = evidence(State.ESTABLISHED, role=role, info={**SENT, "bytes_acked": acked})
    endings = np.array([Ending.RESET], np.uint8)
    assert control_bytes(one, endings, np.zeros(1, np.int64), uapi.TCP_INFO.itemsize)[1].tolist() == [expected]


@pytest.mark.parametrize(("role", "ending", "expected"), [
    (Role.CLIENT, Ending.BY_US, 2), (Role.SERVER, Ending.BY_PEER, 1), (Role.CLIENT, Ending.RESET, 1),
    (Role.SERVER, Ending.RESET, 0),
])  # fmt: skip
def test_kernels_before_4_19_do_not_count_what_was_sent(role: Role, ending: Ending, expected: int) -> None:
    one = evidence(State.ESTABLISHED, role=role, info={"bytes_acked": 102})
    found = control_bytes(one, np.array([ending], np.uint8), np.zeros(1, np.int64), 200)
    assert found[1].tolist() == [expected]
