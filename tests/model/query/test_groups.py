"""Sockets taken together by what they share."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.kernel.netlink import uapi
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.query.groups import TOP, GroupField, SocketGroup, group_sockets
from tcpwatch.model.sockets.throughput import Throughput
from tcpwatch.sample import TcpInfoTable
from tests.support.views import Sock, make_rows, sock

SOCKS = [
    sock("LISTEN", "0.0.0.0:80", process="nginx", pid=7, recv_queue=100, send_queue=511),
    sock("ESTAB", "10.0.0.1:80", "192.0.2.1:4000", process="nginx", pid=7, recv_queue=5, cgroup_id=9),
    sock("ESTAB", "10.0.0.1:80", "192.0.2.1:4001", process="nginx", pid=7, send_queue=7, cgroup_id=9),
    sock("CLOSE_WAIT", "10.0.0.1:4000", "192.0.2.2:443", process="app", pid=8, recv_queue=1),
    sock("ESTAB", "10.0.0.1:4001", "192.0.2.1:443", mapped=True, process="app", pid=8),
    sock("TIME_WAIT", "10.0.0.1:4002", "192.0.2.2:443"),
    sock("ESTAB", "[2001:db8::1]:80", "[2001:db8::2]:4000", process="nginx", pid=7),
]


def names(by: GroupField) -> dict[str, int]:
    return {one.name: one.sockets for one in group_sockets(make_rows(SOCKS), by).groups}


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (GroupField.PROCESS, {"nginx[7]": 4, "app[8]": 2, "(kernel, no process)": 1}),
        (GroupField.PEER, {"192.0.2.1": 3, "192.0.2.2": 2, "2001:db8::2": 1, "(no peer)": 1}),
        (GroupField.SERVICE, {
            "192.0.2.2:443": 2, "192.0.2.1:443": 1, "192.0.2.1:4000": 1, "192.0.2.1:4001": 1,
            "[2001:db8::2]:4000": 1, "(no peer)": 1,
        }),
        (GroupField.LOCAL_PORT, {"80": 4, "4000": 1, "4001": 1, "4002": 1}),
        (GroupField.STATE, {"ESTABLISHED": 4, "LISTEN": 1, "CLOSE_WAIT": 1, "TIME_WAIT": 1}),
        (GroupField.CGROUP, {"unknown (half-open, TIME_WAIT)": 5, "9": 2}),
    ],
)  # fmt: skip
def test_names_and_sizes(by: GroupField, expected: dict[str, int]) -> None:
    assert names(by) == expected


def test_an_address_like_an_ipv4_mapped_one_is_another_peer() -> None:
    peers = [
        "2001:db8::ffff:c000:201", "::ffff:0:c000:201", "1::ffff:c000:201", "0:0:0:1:0:ffff:c000:201", "::c000:201",
    ]  # fmt: skip
    socks = [sock("ESTAB", "[2001:db8::1]:80", f"[{peer}]:1") for peer in peers]
    socks += [sock("ESTAB", "10.0.0.1:80", "192.0.2.1:1"), sock("ESTAB", "10.0.0.1:80", "192.0.2.1:2", mapped=True)]
    found = group_sockets(make_rows(socks), GroupField.PEER)
    assert (found.count, found.groups[0].name, found.groups[0].sockets) == (6, "192.0.2.1", 2)


@pytest.mark.parametrize("by", GroupField)
def test_the_filter_selects_the_group(by: GroupField) -> None:
    rows = make_rows(SOCKS)
    for one in group_sockets(rows, by).groups:
        if one.filter:
            assert Filter.parse(one.filter).mask(rows).sum() == one.sockets, one


def test_totals() -> None:
    (nginx, *_) = group_sockets(make_rows(SOCKS), GroupField.PROCESS).groups
    assert (nginx.established, nginx.recv_queue, nginx.send_queue) == (3, 5, 7), "a listener's queues count no bytes"
    assert (nginx.rx_per_s, nginx.tx_per_s, nginx.retransmits_per_s) == (None, None, None)


def test_throughput_of_those_of_which_it_is_known() -> None:
    rows = make_rows(SOCKS)
    cookies = np.array([2, 3, 4], np.uint64)

    def infos(when: float, received: list[int]) -> TcpInfoTable:
        figures = np.zeros(3, uapi.FLOW_INFO)
        figures["tcpi_bytes_received"] = received
        return TcpInfoTable(figures, np.full(3, when), uapi.TCP_INFO.itemsize, cookies)

    throughput = Throughput(infos(2.0, [300, 50, 7]), infos(0.0, [100, 50, 5]))
    found = {
        one.name: one.rx_per_s for one in group_sockets(replace(rows, throughput=throughput), GroupField.PROCESS).groups
    }
    assert found == {"nginx[7]": 100.0, "app[8]": 1.0, "(kernel, no process)": None}


def test_retransmitted_syns_are_not_a_loss_of_data() -> None:
    """A destination that does not answer; the column would blame it for lost segments."""
    rows = make_rows([
        sock("SYN_SENT", "10.0.0.1:1", "192.0.2.1:443"), sock("ESTAB", "10.0.0.1:2", "192.0.2.2:443"),
    ])  # fmt: skip
    figures = np.zeros(2, uapi.FLOW_INFO)
    dumps = [TcpInfoTable(figures.copy(), np.full(2, when), uapi.TCP_INFO.itemsize, rows.cookie) for when in (0.0, 1.0)]
    dumps[1].table["tcpi_total_retrans"] = [9, 2]
    found = group_sockets(replace(rows, throughput=Throughput(dumps[1], dumps[0])), GroupField.PEER)
    assert {one.name: one.retransmits_per_s for one in found.groups} == {"192.0.2.1": None, "192.0.2.2": 2.0}


def test_nothing() -> None:
    for by in GroupField:
        found = group_sockets(make_rows([]), by)
        assert (found.groups, found.count, found.sockets) == ((), 0, 0)


def test_of_many_groups_the_largest_are_kept() -> None:
    many = [sock("ESTAB", f"10.0.0.1:{1000 + at}", "192.0.2.1:80") for at in range(TOP + 5)]
    more = [sock("ESTAB", "10.0.0.1:9", f"192.0.2.1:{at + 1}") for at in range(2)]
    found = group_sockets(make_rows([*many, *more]), GroupField.LOCAL_PORT)
    assert (len(found.groups), found.count, found.sockets) == (1_000, TOP + 6, TOP + 7)
    assert found.groups[0].name == "9"


PEERS = st.sampled_from(["192.0.2.1", "192.0.2.2", "[2001:db8::1]", "[2001:db8::2]"])


@given(st.lists(st.tuples(PEERS, st.integers(1, 3), st.integers(1, 3), st.sampled_from([None, 7, 8])), max_size=40))
def test_it_counts_as_a_dictionary_does(ends: list[tuple[str, int, int, int | None]]) -> None:
    def of(peer: str, local: int, remote: int, pid: int | None) -> Sock:
        here = "[2001:db8::9]" if "[" in peer else "10.0.0.1"
        return sock(
            "ESTAB", f"{here}:{local}", f"{peer}:{remote}", process=None if pid is None else "app", pid=pid or 0
        )

    rows = make_rows([of(*end) for end in ends])

    def counted(by: GroupField) -> dict[str, int]:
        groups: tuple[SocketGroup, ...] = group_sockets(rows, by).groups
        return {one.name: one.sockets for one in groups}

    assert counted(GroupField.SERVICE) == Counter(f"{peer}:{remote}" for peer, _, remote, _ in ends)
    assert counted(GroupField.PEER) == Counter(peer.strip("[]") for peer, *_ in ends)
    assert counted(GroupField.LOCAL_PORT) == Counter(str(local) for _, local, *_ in ends)
