"""The sockets of a poll with certain ports."""

from __future__ import annotations

import numpy as np
import pytest

from tcpwatch.model.lifecycle.trace.polled_sockets import sockets_with_ports
from tests.support.kernel.infos import make_infos
from tests.support.polls import polls
from tests.support.views import NOW, make_rows, make_sample, sock

BEFORE = [
    sock("ESTAB", "10.0.0.1:80", "10.0.0.9:4000", cookie=1, inode=5),
    sock("ESTAB", "10.0.0.1:80", "10.0.0.9:4001", cookie=2, inode=5),
    sock("ESTAB", "10.0.0.1:80", "10.0.0.9:4002", cookie=3, inode=5),
    sock("LISTEN", "0.0.0.0:80", cookie=4, inode=5),
]
AFTER = [
    BEFORE[0],
    sock("FIN_WAIT_2", "10.0.0.1:80", "10.0.0.9:4001", cookie=2),
    sock("ESTAB", "10.0.0.1:80", "10.0.0.9:4003", cookie=5, inode=5),
    sock("SYN_RCVD", "10.0.0.1:80", "10.0.0.9:4004", cookie=6),
    sock("SYN_RCVD", "10.0.0.1:80", "10.0.0.9:4005", cookie=7, inode=5),
    sock("TIME_WAIT", "10.0.0.1:81", "10.0.0.9:4006", cookie=8),
    BEFORE[3],
]
PORTS = [0, *range(4000, 4007)]


@pytest.mark.parametrize(
    ("local", "remote", "old", "found"),
    [
        ([80], PORTS, True, {1: True, 2: False, 3: False, 5: True, 7: True}),
        ([80], PORTS, False, {2: False, 3: False, 5: True, 7: True}),
        ([81], PORTS, False, {8: False}),
        ([80, 81], [4000, 4002], True, {1: True, 3: False}),
        ([80], [4000], False, {}),
        ([82], PORTS, True, {}),
    ],
)
def test_which_sockets(local: list[int], remote: list[int], old: bool, found: dict[int, bool]) -> None:
    infos = make_infos({1: {"total_retrans": 3}, 2: {"total_retrans": 0}})
    samples = (
        make_sample(make_rows(BEFORE)),
        make_sample(make_rows(AFTER, time=NOW + 1), tcp_info_table=infos),
    )
    poll = polls(*samples)[-1]
    seen = sockets_with_ports(poll.join, poll.sample, np.array(local, np.uint16), np.array(remote, np.uint16), old)
    assert dict(zip(seen.cookie.tolist(), seen.is_full.tolist(), strict=True)) == found
    assert seen.table["idiag_cookie"].tolist() == seen.cookie.tolist()
    assert seen.cookie[~seen.may_retransmit].tolist() == [2] * (2 in found)
