"""What does not get through: unanswered SYNs, closed windows of peers, and programs that do not read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tcpwatch.model.analyses.stalls import HIGH_QUEUE, StallAnalysis, Stalls, UnreadProcess
from tcpwatch.sample import Sample
from tests.support.polls import polls
from tests.support.views import NOW, Sock, make_rows, make_sample, sock


def sample(second: float, *socks: Sock) -> Sample:
    numbered = [one if one.cookie else replace(one, cookie=100 + at) for at, one in enumerate(socks)]
    return make_sample(make_rows(numbered, time=NOW + second), monotonic=second)


def follow(*samples: Sample, closed_windows: tuple[int, ...] = ()) -> list[Stalls]:
    """`closed_windows` are the samples before which the kernel advertised a window of 0."""
    analysis, found = StallAnalysis(2), []
    for at, poll in enumerate(polls(*samples)):
        rates = {"TCPToZeroWindowAdv": 3.0 if at in closed_windows else 0.0}
        found.append(analysis.step(replace(poll, rates=rates)))
    return found


def syn(remote: str, retransmits: int) -> Sock:
    local = "[2001:db8::9]:40000" if "[" in remote else "10.0.0.1:40000"
    return sock("SYN_SENT", local, remote, retransmits=retransmits, process="app", pid=7)


def test_syns_that_nobody_answers() -> None:
    dead = [syn("192.0.2.1:443", retransmits) for retransmits in (0, 1, 2, 3, 5)]
    others = [syn("192.0.2.1:80", 2), syn("[2001:db8::1]:443", 2), syn("[2001:db8::1]:443", 4)]
    (one,) = follow(sample(0, *dead, *others))
    assert [(str(it.remote), it.count, it.retransmits) for it in one.unanswered] == [
        ("192.0.2.1:443", 3, 5), ("[2001:db8::1]:443", 2, 4), ("192.0.2.1:80", 1, 2),
    ]  # fmt: skip


def probing(remote: str, unsent: int, local: str = "10.0.0.1:40000", **facts: object) -> Sock:
    return sock("ESTAB", local, remote, timer="persist", timer_s=1, send_queue=unsent, process="app", pid=7, **facts)  # type: ignore[arg-type]


def test_peers_whose_window_is_closed() -> None:
    listen = sock("LISTEN", "0.0.0.0:80", process="app", pid=7, cookie=1)
    client = [probing("192.0.2.1:443", 10, cookie=2), probing("192.0.2.1:443", 20, cookie=3)]
    server = [probing(f"192.0.2.2:{port}", 5, "10.0.0.1:80", cookie=port) for port in (50_000, 50_001)]
    first, second, third = follow(
        sample(0, listen, *client[:1]), sample(4, listen, *client, *server), sample(9, listen, *client[1:], *server)
    )
    assert [(str(it.remote), it.count, it.longest_s, it.unsent) for it in second.zero_window] == [
        ("192.0.2.1:443", 2, 4.0, 30), ("192.0.2.2", 2, 0.0, 10),
    ]  # fmt: skip
    assert [(str(it.remote), it.count, it.longest_s) for it in third.zero_window] == [
        ("192.0.2.1:443", 1, 5.0), ("192.0.2.2", 2, 5.0),
    ]  # fmt: skip
    assert first.zero_window[0].longest_s == 0.0


@pytest.mark.parametrize("state", ["FIN_WAIT_1", "CLOSING", "LAST_ACK"])
def test_a_socket_that_its_process_has_closed_may_have_data_left(state: str) -> None:
    orphan = sock(state, "10.0.0.1:80", "192.0.2.2:50000", timer="persist", timer_s=1, send_queue=9, cookie=2)
    assert orphan.owner is None
    (found,) = follow(sample(0, orphan))
    assert [(str(it.remote), it.count, it.unsent) for it in found.zero_window] == [("192.0.2.2:50000", 1, 9)]


def test_how_long_it_was_closed_when_we_came() -> None:
    analysis, closed = StallAnalysis(2), probing("192.0.2.1:443", 1, cookie=2)
    info = {2: {"last_data_sent": 30_000}}
    first, second = polls(sample(0, closed), replace(sample(1, closed), watched_tcp_info=info))
    assert analysis.step(first).zero_window[0].longest_s == 0.0
    assert analysis.wanted_tcp_info == frozenset({2})
    assert analysis.step(second).zero_window[0].longest_s == 30.0
    assert analysis.wanted_tcp_info == frozenset()


def test_a_window_that_opened_meanwhile_begins_anew() -> None:
    closed, opened = probing("192.0.2.1:443", 1, cookie=2), sock("ESTAB", "10.0.0.1:40000", "192.0.2.1:443", cookie=2)
    results = follow(sample(0, closed), sample(3, opened), sample(6, closed), sample(8, closed))
    assert [it.zero_window[0].longest_s if it.zero_window else None for it in results] == [0.0, None, 0.0, 2.0]


def reading(queue: int, cookie: int, process: str = "app", pid: int = 7) -> Sock:
    return sock("ESTAB", "10.0.0.1:80", "192.0.2.1:1", recv_queue=queue, cookie=cookie, process=process, pid=pid)


def unread(path: Stalls) -> list[tuple[str, int, int]]:
    return [(it.process, it.count, it.unread_bytes) for it in path.unread]


def test_who_does_not_read() -> None:
    high = HIGH_QUEUE
    socks = [reading(high, 1), reading(high + 1, 2), reading(high - 1, 3), reading(2 * high, 4, "other", 8)]
    quiet, result, after = follow(sample(0, *socks), sample(1, *socks), sample(2, *socks), closed_windows=(1,))
    assert unread(quiet) == [], "much that waits to be read is no closed window yet"
    assert unread(result) == unread(after) == [("app[7]", 2, 2 * high + 1), ("other[8]", 1, 2 * high)]


def test_it_is_over_when_it_was_read() -> None:
    high, low = reading(HIGH_QUEUE, 1), reading(5, 1)
    results = follow(sample(0, high), sample(1, low), sample(2, high), closed_windows=(0,))
    assert [len(it.unread) for it in results] == [1, 0, 0]
    assert isinstance(results[0].unread[0], UnreadProcess)
