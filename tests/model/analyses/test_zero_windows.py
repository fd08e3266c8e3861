"""Peers whose receive window is zero, and how their connections are grouped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tcpwatch.config.thresholds import DEFAULT
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_PERMISSION
from tcpwatch.model.analyses.stalls import StallAnalysis
from tcpwatch.model.analyses.zero_windows import EXAMPLES, PERSIST, TOP, ZeroWindowAnalysis, ZeroWindows
from tcpwatch.model.poll import Poll
from tcpwatch.sample import Sample
from tests.support.polls import polls
from tests.support.views import NOW, Sock, make_rows, make_sample, sock


def sample(second: float, *socks: Sock) -> Sample:
    numbered = [one if one.cookie else replace(one, cookie=100 + at) for at, one in enumerate(socks)]
    return make_sample(make_rows(numbered, time=NOW + second), monotonic=second)


def step(analysis: ZeroWindowAnalysis, poll: Poll, unread: Sequence[int] = ()) -> ZeroWindows:
    waiting = np.flatnonzero(poll.sample.table["idiag_timer"] == PERSIST)
    return analysis.step(poll, waiting, np.array(unread, np.intp))


def follow(*samples: Sample, age_s: float = 5) -> list[ZeroWindows]:
    analysis = ZeroWindowAnalysis(age_s)
    return [step(analysis, poll) for poll in polls(*samples)]


def probing(remote: str, unsent: int = 1, local: str = "10.0.0.1:40000", **facts: object) -> Sock:
    held = {} if "owner_code" in facts else {"process": "app", "pid": 7}
    return sock("ESTAB", local, remote, timer="persist", timer_s=1, send_queue=unsent, **held | facts)  # type: ignore[arg-type]


LISTENER = sock("LISTEN", "0.0.0.0:80", process="app", pid=7, cookie=1)


def test_peers_whose_window_is_closed() -> None:
    client = [probing("192.0.2.1:443", 10, cookie=2), probing("192.0.2.1:443", 20, cookie=3)]
    server = [probing(f"192.0.2.2:{port}", 5, "10.0.0.1:80", cookie=port) for port in (50_000, 50_001)]
    first, second, third = follow(
        sample(0, LISTENER, *client[:1]),
        sample(4, LISTENER, *client, *server),
        sample(9, LISTENER, *client[1:], *server),
    )
    assert [(str(it.remote), it.count, it.longest_s, it.unsent) for it in second.peers] == [
        ("192.0.2.1:443", 2, 4.0, 30), ("192.0.2.2", 2, 0.0, 10),
    ]  # fmt: skip
    assert [(str(it.remote), it.count, it.longest_s) for it in third.peers] == [
        ("192.0.2.1:443", 1, 5.0), ("192.0.2.2", 2, 5.0),
    ]  # fmt: skip
    assert first.peers[0].longest_s == 0.0


def test_how_long_it_was_closed_when_we_came() -> None:
    analysis, closed = ZeroWindowAnalysis(5), probing("192.0.2.1:443", 1, cookie=2)
    info = {2: {"last_data_sent": 30_000}}
    first, second = polls(sample(0, closed), replace(sample(1, closed), watched_tcp_info=info))
    assert step(analysis, first).peers[0].longest_s == 0.0
    assert analysis.wanted_tcp_info == frozenset({2})
    assert step(analysis, second).peers[0].longest_s == 30.0
    assert analysis.wanted_tcp_info == frozenset()


def test_a_window_that_opened_meanwhile_begins_anew() -> None:
    closed, opened = probing("192.0.2.1:443", 1, cookie=2), sock("ESTAB", "10.0.0.1:40000", "192.0.2.1:443", cookie=2)
    results = follow(sample(0, closed), sample(3, opened), sample(6, closed), sample(8, closed))
    assert [it.peers[0].longest_s if it.peers else None for it in results] == [0.0, None, 0.0, 2.0]


@pytest.mark.parametrize("state", ["FIN_WAIT_1", "CLOSING", "LAST_ACK"])
def test_a_socket_that_its_process_has_closed_may_have_data_left(state: str) -> None:
    orphan = sock(state, "10.0.0.1:80", "192.0.2.2:50000", timer="persist", timer_s=1, send_queue=9, cookie=2)
    assert orphan.owner is None
    found = StallAnalysis(DEFAULT).step(polls(sample(0, orphan))[0]).zero_window
    assert [(str(it.remote), it.count, it.unsent) for it in found.peers] == [("192.0.2.2:50000", 1, 9)]


def test_unanswered_probes_prove_no_zero_window() -> None:
    socks = [probing("192.0.2.1:443", retransmits=retransmits) for retransmits in (0, 1, 2, 3)]
    (one,) = follow(sample(0, *socks))
    assert one.peers[0].count == 2


def grouped(*socks: Sock) -> list[tuple[str, int, int, tuple[str, ...]]]:
    numbered = [replace(one, cookie=at) for at, one in enumerate(socks, 1)]
    return [
        (str(group.subject), group.count, group.peers, group.examples)
        for group in follow(sample(0, *numbered), sample(5, *numbered))[-1].groups
    ]


def test_clients_of_one_listener_are_one_group() -> None:
    clients = [probing(f"127.0.1.{at}:5000", local="10.0.0.1:80") for at in range(1, 31)]
    again = probing("127.0.1.30:5001", local="10.0.0.1:80")
    ((subject, count, peers, names),) = grouped(LISTENER, *clients, again)
    assert ("port=80" in subject, count, peers) == (True, 31, 30)
    assert names == ("127.0.1.30", "127.0.1.1", "127.0.1.2"), "most connections first, then by address"


def test_destinations_of_one_process() -> None:
    def of(hosts: int) -> list[Sock]:
        return [probing(f"192.0.2.{host}:443") for host in range(1, hosts + 1)]

    assert [it[0] for it in grouped(*of(EXAMPLES))] == ["192.0.2.1:443", "192.0.2.2:443", "192.0.2.3:443"]
    ((subject, count, peers, names),) = grouped(*of(30))
    assert (subject, count, peers) == ("app[7]", 30, 30)
    assert names == ("192.0.2.1:443", "192.0.2.2:443", "192.0.2.3:443")


@pytest.mark.parametrize("mapped", [False, True])
def test_a_process_of_this_host_that_does_not_read_is_the_reason(mapped: bool) -> None:
    """It is a finding of its own: the other end of its connections is not a second one."""
    waiting = probing("127.0.0.1:5000", local="127.0.0.1:80", cookie=2)
    reader = sock("ESTAB", "127.0.0.1:5000", "127.0.0.1:80", recv_queue=99_999, process="reader", pid=9, mapped=mapped)
    socks = [LISTENER, waiting, probing("192.0.2.1:443", cookie=3), replace(reader, cookie=4)]
    analysis = ZeroWindowAnalysis(0)
    for poll in polls(sample(0, *socks), sample(1, *socks)):
        assert [it.count for it in step(analysis, poll).groups] == [1, 1]
        groups = step(analysis, poll, [3]).groups
        assert [str(it.subject) for it in groups] == ["192.0.2.1:443"]


def test_hidden_owners() -> None:
    hidden = [probing(f"192.0.2.{host}:443", owner_code=UNKNOWN_PERMISSION, inode=host) for host in range(1, 9)]
    assert [(it[0], it[2]) for it in grouped(*hidden)] == [("None", 8)]


@pytest.mark.parametrize(("age_s", "count"), [(5.0, 1), (5.1, None)])
def test_a_group_has_the_old_connections_alone(age_s: float, count: int | None) -> None:
    old, young = probing("192.0.2.1:443", cookie=1), probing("192.0.2.1:443", cookie=2)
    last = follow(sample(0, old), sample(4, old, young), sample(5, old, young), age_s=age_s)[-1]
    assert [group.count for group in last.groups] == ([count] if count else [])
    assert last.peers[0].count == 2


def test_the_list_of_peers_is_cut() -> None:
    (one,) = follow(sample(0, *(probing(f"192.0.2.{host}:443") for host in range(1, 41))))
    assert (len(one.peers), one.all_peers) == (TOP, 40)
