"""Listeners: their order, owner, group, drops, and whether an accept queue was full, over a few samples."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_analysis import QueueAnalysis
from tcpwatch.model.listeners.queue_limits import Queue
from tcpwatch.sample import Sample
from tests.support.polls import polls
from tests.support.views import NOW, Sock, make_rows, make_sample, sock

WEB = sock("LISTEN", "0.0.0.0:80", cookie=1, send_queue=10, process="nginx", pid=7)
HALF_OPEN = sock("SYN_RCVD", "10.0.0.1:80", "192.0.2.1:1", cookie=9)


def sample(second: float, *socks: Sock, **facts: object) -> Sample:
    return make_sample(make_rows(socks, time=NOW + second), monotonic=second, **facts)


def listeners(*samples: Sample) -> list[Listener]:
    """Return the listeners of the last sample."""
    analysis = QueueAnalysis(0.8)
    return list([analysis.step(poll) for poll in polls(*samples)][-1].listeners)


def test_the_fullest_accept_queue_first_then_by_port_and_address() -> None:
    socks = [
        sock("LISTEN", "10.0.0.2:81", cookie=1, send_queue=10),
        sock("LISTEN", "10.0.0.1:81", cookie=2, send_queue=10),
        sock("LISTEN", "0.0.0.0:80", cookie=4, send_queue=10),
        sock("LISTEN", "0.0.0.0:80", cookie=3, send_queue=10),
        sock("LISTEN", "0.0.0.0:9000", cookie=5, recv_queue=1, send_queue=10),
        sock("LISTEN", "0.0.0.0:9001", cookie=6, recv_queue=9, send_queue=100),
    ]
    assert [one.cookie for one in listeners(sample(0, *socks))] == [5, 6, 3, 4, 2, 1]


def test_what_a_listener_is() -> None:
    socks = [
        replace(WEB, interface="eth0", inode=70), sock("LISTEN", "127.0.0.1:81", cookie=2),
        sock("LISTEN", "[2001:db8::1]:82", cookie=3, process="app", pid=8),
    ]  # fmt: skip
    first, second, third = listeners(sample(0, *socks))
    assert (first.cookie, first.process, first.inode, first.interface) == (1, "nginx[7]", 70, "eth0")
    assert (first.family, first.local_address, first.local_port) == (2, "0.0.0.0", 80)
    assert (first.accept_queue.depth, first.accept_peak) == (0, None), "the queue is not watched between the polls"
    assert (second.owner, second.process, second.interface, second.local_address) == (None, "", "", "127.0.0.1")
    assert (third.family, third.local_address, third.process) == (10, "2001:db8::1", "app[8]")


@pytest.mark.parametrize(
    ("before", "now", "elapsed_s", "per_s"),
    [
        (100, 103, 2.0, 1.5),
        (100, 100, 1.0, 0.0),
        (2**32 - 2, 3, 1.0, 5.0),  # the kernel's counter has 32 bits
        (None, 3, 1.0, None),
        (3, None, 1.0, None),
        (3, 9, 0.0, None),
    ],
)
def test_drops_per_second(before: int | None, now: int | None, elapsed_s: float, per_s: float | None) -> None:
    known = [{} if drops is None else {WEB.cookie: drops} for drops in (before, now)]
    (one,) = listeners(sample(0, WEB, drops=known[0]), sample(elapsed_s, WEB, drops=known[1]))
    assert (one.drops, one.drops_per_s) == (now, per_s)


def test_drops_of_the_first_sample_are_no_rate() -> None:
    (one,) = listeners(sample(0, WEB, drops={1: 100}))
    assert (one.drops, one.drops_per_s) == (100, None)


@pytest.mark.parametrize(
    ("depth", "limit", "peak", "full"),
    [(9, 10, 0, False), (10, 10, 0, True), (3, 10, 10, True), (3, 10, 9, False), (0, 0, 0, False), (0, 0, 1, True)],
)
def test_whether_an_accept_queue_was_full_since_the_last_step(depth: int, limit: int, peak: int, full: bool) -> None:
    """A queue with the limit 0 holds one connection."""
    one = replace(WEB, recv_queue=depth, send_queue=limit)
    (found,) = listeners(sample(0, one, accept_queue_peaks={1: peak}))
    assert (found.accept_peak, found.accept_full) == (max(depth, peak), full)


@pytest.mark.parametrize(
    ("depth", "limit", "share", "over"),
    [
        (5, 10, 0.5, False), (10, 10, 1.0, False), (11, 10, 1.1, True), (0, 0, 0.0, False), (1, 0, 1.0, True),
        (None, 10, 0.0, False), (5, None, 0.0, False),
    ],
)  # fmt: skip
def test_how_full_a_queue_is(depth: int | None, limit: int | None, share: float, over: bool) -> None:
    queue = Queue(depth, limit)
    assert (queue.share, queue.is_over_limit) == (share, over)


def test_sockets_that_share_a_port_share_a_syn_queue() -> None:
    other = replace(WEB, cookie=2, recv_queue=5, send_queue=20)
    alone = replace(WEB, cookie=3, local=("0.0.0.0", 81))
    repeated = replace(HALF_OPEN, cookie=10, retransmits=1)
    found = {one.cookie: one for one in listeners(sample(0, WEB, other, alone, HALF_OPEN, repeated))}
    assert [found[cookie].group_size for cookie in (1, 2, 3)] == [2, 2, 1]
    assert [found[cookie].syn_queue.depth for cookie in (1, 2, 3)] == [2, 2, 0]
    assert [found[cookie].syn_queue.limit for cookie in (1, 2, 3)] == [30, 30, 10]
    assert [found[cookie].accept_queue.depth for cookie in (1, 2, 3)] == [0, 5, 0]
    assert [found[cookie].retransmitted for cookie in (1, 2, 3)] == [1, 1, 0]
