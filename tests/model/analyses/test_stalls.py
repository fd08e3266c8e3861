"""Processes that do not read, so that this host advertises a zero window."""

from __future__ import annotations

from dataclasses import replace

from tcpwatch.config.thresholds import DEFAULT
from tcpwatch.model.analyses.stalls import HIGH_QUEUE, StallAnalysis, Stalls, UnreadProgram
from tcpwatch.sample import Sample
from tests.support.polls import polls
from tests.support.views import NOW, Sock, make_rows, make_sample, sock


def sample(second: float, *socks: Sock) -> Sample:
    numbered = [one if one.cookie else replace(one, cookie=100 + at) for at, one in enumerate(socks)]
    return make_sample(make_rows(numbered, time=NOW + second), monotonic=second)


def follow(*samples: Sample, closed_windows: tuple[int, ...] = ()) -> list[Stalls]:
    """`closed_windows` are the samples before which the kernel advertised a window of 0."""
    analysis, found = StallAnalysis(DEFAULT), []
    for at, poll in enumerate(polls(*samples)):
        rates = {"TCPToZeroWindowAdv": 3.0 if at in closed_windows else 0.0}
        found.append(analysis.step(replace(poll, rates=rates)))
    return found


def reading(queue: int, cookie: int, process: str = "app", pid: int = 7) -> Sock:
    return sock("ESTAB", "10.0.0.1:80", "192.0.2.1:1", recv_queue=queue, cookie=cookie, process=process, pid=pid)


def unread(path: Stalls) -> list[tuple[str, int, int]]:
    return [(str(it.program), it.count, it.unread_bytes) for it in path.unread]


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
    assert isinstance(results[0].unread[0], UnreadProgram)


def test_an_owner_that_is_found_later() -> None:
    known = reading(HIGH_QUEUE, 1)
    unknown = replace(known, process=None, inode=9)
    results = follow(sample(0, unknown), sample(1, unknown), sample(2, known), closed_windows=(1,))
    assert [len(it.unread) for it in results] == [0, 0, 1]
