"""Connections in accept queues, since when they wait, and how many were accepted, over several samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.model.listeners.half_open import half_open_sockets
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_analysis import ListenerQueues, QueueAnalysis
from tcpwatch.model.listeners.queue_detail import MAX_MEMBERS, queue_detail
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.sample import Sample, SourceInfo
from tests.support.polls import first_poll, polls
from tests.support.views import NOW, Sock, make_rows, make_sample, make_table, sock

LISTEN = sock("LISTEN", "0.0.0.0:80", cookie=1, inode=7, recv_queue=2, send_queue=8)
WAITS = sock("ESTAB", "10.0.0.1:80", "192.0.2.1:1", cookie=2)
GAVE_UP = sock("CLOSE_WAIT", "10.0.0.1:80", "192.0.2.1:2", cookie=3)
OURS = sock("ESTAB", "10.0.0.1:80", "192.0.2.1:3", cookie=4, inode=9)
CLIENT = sock("ESTAB", "10.0.0.1:4000", "192.0.2.1:443", cookie=5)
HALF = sock("SYN_RCVD", "10.0.0.1:80", "192.0.2.1:4", cookie=6)
TIME_WAIT = sock("TIME_WAIT", "10.0.0.1:80", "192.0.2.1:5", cookie=8)


def sample(second: float, *socks: Sock, **facts: object) -> Sample:
    return make_sample(make_rows(socks, time=NOW + second), monotonic=second, **facts)


def follow(*samples: Sample) -> list[tuple[Rows, ListenerQueues]]:
    """Return the rows and queues of each sample."""
    analysis = QueueAnalysis(0.8)
    return [(poll.rows, analysis.step(poll)) for poll in polls(*samples)]


def listener(*samples: Sample) -> list[Listener]:
    return [now.listeners[0] for _, now in follow(*samples)]


def test_waiting_connections_have_no_inode() -> None:
    (one,) = listener(sample(0, LISTEN, WAITS, GAVE_UP, OURS, CLIENT, HALF))
    assert (one.waiting, one.client_closed, one.waiting_s, one.waiting_is_minimum) == (2, 1, 0.0, True)
    assert one.accepted_per_s is None, "one sample gives no rate"


def test_nothing_waits() -> None:
    (one,) = listener(sample(0, LISTEN, OURS))
    assert (one.waiting, one.client_closed, one.waiting_s, one.waiting_is_minimum) == (0, 0, None, False)


def test_how_long_it_has_waited() -> None:
    gave_up = replace(GAVE_UP, cookie=2)
    found = listener(
        sample(0, LISTEN), sample(1, LISTEN, HALF, WAITS), sample(3, LISTEN, WAITS), sample(4, LISTEN, gave_up)
    )
    assert [one.waiting_s for one in found] == [None, 0.0, 2.0, 3.0], "giving up ends no waiting"
    assert not any(one.waiting_is_minimum for one in found)


def test_waiting_time_of_the_first_sample_is_a_minimum() -> None:
    other = replace(WAITS, cookie=9)
    found = listener(sample(0, LISTEN, WAITS), sample(2, LISTEN, WAITS, other), sample(3, LISTEN, other))
    assert [(one.waiting_s, one.waiting_is_minimum) for one in found] == [(0.0, True), (2.0, True), (1.0, False)]


def test_least_waiting_time_from_tcp_info() -> None:
    info = {2: {"last_data_sent": 30_000, "last_ack_recv": 20_000}, 4: {"last_ack_recv": 99_000}}
    first, second, third = follow(
        sample(0, LISTEN, WAITS, OURS),
        sample(1, LISTEN, WAITS, OURS, replace(WAITS, cookie=9), watched_tcp_info=info),
        sample(2, LISTEN, WAITS, OURS),
    )
    assert [now.listeners[0].waiting_s for _, now in (first, second, third)] == [0.0, 30.0, 31.0]


def test_tcp_info_is_wanted_once() -> None:
    queues = QueueAnalysis(0.8)
    first, second = polls(*(sample(second, LISTEN, WAITS, GAVE_UP, OURS) for second in (0, 1)))
    assert queues.wanted_tcp_info == frozenset()
    queues.step(first)
    assert queues.wanted_tcp_info == frozenset({2, 3})
    queues.step(second)
    assert queues.wanted_tcp_info == frozenset()


def test_accepted_per_second() -> None:
    accepted = replace(WAITS, inode=11)
    fresh = replace(OURS, cookie=12)
    from_half_open = replace(OURS, cookie=HALF.cookie)
    found = listener(
        sample(0, LISTEN, WAITS, OURS, HALF),
        sample(2, LISTEN, accepted, OURS, HALF),  # one that waited
        sample(4, LISTEN, accepted, OURS, fresh, from_half_open, TIME_WAIT),  # three that came and were taken between
        sample(5, LISTEN, accepted, OURS, replace(WAITS, cookie=13), replace(HALF, cookie=14)),  # came, but not taken
        sample(6, LISTEN, replace(accepted, state=TIME_WAIT.state, inode=0)),  # an end is no acceptance
    )
    assert [one.accepted_per_s for one in found] == [None, 0.5, 1.5, 0.0, 0.0]


def destroyed(*socks: Sock) -> DestroyedSockets:
    table = make_table(socks)
    return DestroyedSockets(table, np.zeros(len(table), uapi.TCP_INFO), np.zeros(len(table)), 0)


def test_a_connection_that_waited_and_is_freed_was_accepted() -> None:
    gone = destroyed(WAITS, OURS)
    _, one = listener(sample(0, LISTEN, WAITS, GAVE_UP), sample(2, LISTEN, GAVE_UP, destroyed=gone))
    assert one.accepted_per_s == 0.5
    _, one = listener(sample(0, LISTEN, WAITS, GAVE_UP), sample(2, LISTEN, GAVE_UP))
    assert one.accepted_per_s == 0.0, "perhaps it was reset"
    successor = replace(LISTEN, cookie=77)
    _, one = listener(sample(0, LISTEN, WAITS), sample(2, successor, destroyed=gone))
    assert one.accepted_per_s == 0.0, "the old listener was closed, and its connections with it"


FAST_OPEN = sock("SYN_RCVD", "10.0.0.1:80", "192.0.2.1:7", cookie=7, shutdown=0, recv_queue=5)
"""TCP Fast Open: a full socket, unlike HALF."""


def test_tcp_fast_open_waits_in_the_accept_queue() -> None:
    deep = replace(LISTEN, recv_queue=1)
    found = follow(
        sample(0, deep, HALF, FAST_OPEN),
        sample(2, LISTEN, HALF, replace(FAST_OPEN, inode=9)),
        sample(4, LISTEN, HALF, replace(OURS, cookie=FAST_OPEN.cookie)),
    )
    assert [(now.listeners[0].syn_queue.depth, now.half_open.count) for _, now in found] == [(1, 1)] * 3
    assert [now.listeners[0].waiting for _, now in found] == [1, 0, 0]
    assert [now.listeners[0].accepted_per_s for _, now in found] == [None, 0.5, 0.0], "accepted in SYN_RCVD"


def test_tcp_fast_open_that_completes_while_it_waits() -> None:
    deep, waits = replace(LISTEN, recv_queue=1), replace(WAITS, cookie=FAST_OPEN.cookie)
    first, second, third = listener(
        sample(0, deep, FAST_OPEN), sample(2, deep, waits), sample(4, LISTEN, replace(waits, inode=9))
    )
    assert (first.waiting, second.waiting, third.waiting) == (1, 1, 0)
    assert (second.waiting_s, second.stalled_s, second.accepted_per_s) == (2.0, 2.0, 0.0)
    assert (third.stalled_s, third.accepted_per_s) == (None, 0.5)


def test_arrivals_with_tcp_fast_open() -> None:
    """PassiveOpens counts them with the SYN."""
    samples = (
        sample(0, LISTEN, counters={"PassiveOpens": 0}),
        sample(1, LISTEN, FAST_OPEN, HALF, counters={"PassiveOpens": 1}),
        sample(2, LISTEN, replace(WAITS, cookie=FAST_OPEN.cookie), HALF, counters={"PassiveOpens": 1}),
    )
    assert [now.syn_arrivals_per_s for _, now in follow(*samples)] == [None, 2.0, 0.0]


def test_other_listeners_accept_nothing() -> None:
    other = sock("LISTEN", "127.0.0.1:80", cookie=20, send_queue=8)
    ((_, now),) = follow(sample(0, LISTEN, other, WAITS, HALF, replace(WAITS, cookie=30, local=("127.0.0.1", 80))))
    assert {one.endpoint: (one.waiting, one.syn_queue.depth) for one in now.listeners} == {
        "*:80": (1, 1),
        "127.0.0.1:80": (1, 0),
    }


def test_unknown_with_psutil() -> None:
    ((_, now),) = follow(sample(0, LISTEN, WAITS, HALF, source=SourceInfo("psutil", "root")))
    (one,) = now.listeners
    assert (one.waiting, one.waiting_s, one.accept_peak, one.syn_queue.depth) == (0, None, None, 1)


def test_half_open_connections_of_a_closed_listener() -> None:
    crossing = replace(HALF, cookie=40, inode=5, local=("10.0.0.1", 4001))
    ((_, now),) = follow(sample(0, LISTEN, HALF, replace(HALF, cookie=41, local=("10.0.0.1", 81)), crossing))
    assert (now.half_open.count, now.facts.without_listener) == (2, 1), (
        "a connect() that crossed the peer's SYN is no request"
    )


def test_peaks_and_limit_sources() -> None:
    sysctls = {"somaxconn": 8, "tcp_syncookies": 0, "tcp_max_syn_backlog": 8}
    (one,) = listener(sample(0, LISTEN, accept_queue_peaks={1: 9}, sysctls=sysctls))
    assert (one.accept_peak, one.accept_full, one.accept_limit_source.name) == (9, True, "SOMAXCONN")
    assert (one.syn_queue.limit, one.syn_limit_source.name) == (6, "SYN_BACKLOG"), "a quarter is kept for proven peers"
    (one,) = listener(sample(0, LISTEN, accept_queue_peaks={1: 1}, sysctls={"somaxconn": 4096, "tcp_syncookies": 1}))
    assert (one.accept_peak, one.accept_full, one.accept_limit_source.name, one.syn_limit_source.name) == (
        2,
        False,
        "LISTEN",
        "LISTEN",
    )
    (one,) = listener(sample(0, LISTEN))
    assert (one.accept_limit_source.name, one.syn_limit_source.name) == ("UNKNOWN", "UNKNOWN")


def test_the_history_of_both_queues() -> None:
    deep = replace(LISTEN, recv_queue=5)
    samples = [
        sample(0, LISTEN, HALF),
        sample(1, deep),
        sample(1.5, LISTEN, accept_queue_peaks={1: 3}),
        sample(4, LISTEN),
    ]
    _, now = follow(*samples)[-1]
    accept, syn = now.trend.accept_queue(1), now.trend.syn_queue(1)
    assert np.nan_to_num(accept[-5:], nan=-1).tolist() == [2, 5, -1, -1, 2], "the deepest of each second"
    assert np.nan_to_num(syn[-5:], nan=-1).tolist() == [1, 0, -1, -1, 0]
    assert now.trend.accept_queue(99) == ()
    assert now.listeners[0].syn_peak == 1
    _, later = follow(*samples, sample(10, LISTEN))[-1]
    assert later.listeners[0].syn_peak == 0, "what is ten seconds old does not count"


def test_a_closed_and_a_new_listener_do_not_share_a_history() -> None:
    other = replace(LISTEN, cookie=50, recv_queue=7, local=("0.0.0.0", 81))
    _, now = follow(sample(0, LISTEN), sample(1, LISTEN, other), sample(2, other))[-1]
    assert np.nan_to_num(now.trend.accept_queue(50)[-3:], nan=-1).tolist() == [-1, 7, 7]
    assert now.trend.accept_queue(1) == ()


def test_arrivals() -> None:
    """Per second: new half-open connections, handshakes completed between the polls, cookies and drops."""
    counters = {"PassiveOpens": 0, "SyncookiesSent": 0, "SyncookiesRecv": 0, "ListenDrops": 0, "ListenOverflows": 0}
    later = {"PassiveOpens": 9, "SyncookiesSent": 20, "SyncookiesRecv": 4, "ListenDrops": 8, "ListenOverflows": 2}
    first, second = follow(
        sample(0, LISTEN, HALF, counters=counters),
        sample(2, LISTEN, replace(OURS, cookie=HALF.cookie), replace(HALF, cookie=60), counters=later),
    )
    assert first[1].syn_arrivals_per_s is None
    assert second[1].syn_arrivals_per_s == (1 + (9 - 4 - 1) + 20 + (8 - 2)) / 2


def test_overflows_of_the_accept_queue_are_no_arrivals() -> None:
    """ListenOverflows counts last ACKs too, so that there may be more of them than drops."""
    first, second = follow(
        sample(0, LISTEN, counters={"ListenDrops": 0, "ListenOverflows": 0, "PassiveOpens": 0, "SyncookiesRecv": 0}),
        sample(2, LISTEN, counters={"ListenDrops": 3, "ListenOverflows": 5, "PassiveOpens": 2, "SyncookiesRecv": 6}),
    )
    assert (first[1].syn_arrivals_per_s, second[1].syn_arrivals_per_s) == (None, 0.0)


def test_queue_detail() -> None:
    old = replace(HALF, cookie=70, retransmits=2, timer_s=3.0)
    younger = replace(HALF, cookie=71, retransmits=0, timer_s=0.4)
    samples = [sample(0, LISTEN, WAITS, old, younger), sample(1, LISTEN, WAITS, GAVE_UP, old, younger, OURS)]
    rows, now = follow(*samples)[-1]
    key = now.listeners[0].key
    found = queue_detail(key, rows, now.facts)
    assert found is not None
    assert (found.accept_queue.rows.cookie.tolist(), found.accept_queue.age_s.tolist()) == ([2, 3], [1.0, 0.0])
    assert found.accept_queue.arrival_seen.tolist() == [False, True]
    assert found.syn_queue.rows.cookie.tolist() == [70, 71]
    assert np.allclose(found.syn_queue.age_s, [4.0, 1.0]), "an estimate, but not less than we have seen ourselves"
    assert (found.accept_queue.total, found.syn_queue.total, found.half_open.count) == (2, 2, 2)
    assert queue_detail(replace(key, port=81), rows, now.facts) is None


def test_only_the_oldest_members_are_listed() -> None:
    many = [
        replace(HALF, cookie=100 + at, retransmits=at % 3, remote=("192.0.2.1", at + 1))
        for at in range(MAX_MEMBERS + 50)
    ]
    ((rows, now),) = follow(sample(0, LISTEN, *many))
    found = queue_detail(now.listeners[0].key, rows, now.facts)
    assert found is not None
    ages = found.syn_queue.age_s
    assert (len(found.syn_queue.rows), found.syn_queue.total) == (MAX_MEMBERS, MAX_MEMBERS + 50)
    assert (np.diff(ages) <= 0).all()
    everyone = half_open_sockets(first_poll(sample(0, LISTEN, *many), rows)).age_s
    assert np.array_equal(ages, np.sort(everyone)[::-1][:MAX_MEMBERS])
