"""Processes that do not read, so that this host advertises a zero window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from tcpwatch.config.thresholds import DEFAULT
from tcpwatch.model.analyses.stalls import HIGH_QUEUE, StallAnalysis, Stalls, UnreadProgram
from tcpwatch.sample import Sample
from tests.support.polls import polls
from tests.support.views import NOW, Sock, make_rows, make_sample, sock


def sample(second: float, *socks: Sock) -> Sample:
    numbered = [one if one.cookie else replace(one, cookie=100 + at) for at, one in enumerate(socks)]
    return make_sample(make_rows(numbered, time=NOW + second), monotonic=second)


def follow(
    *samples: Sample, closed_windows: tuple[int, ...] = (), windows: Mapping[int, int | None] = MappingProxyType({})
) -> list[Stalls]:
    """`closed_windows` are the samples before which the kernel advertised a window of 0.

    `windows`: cookie → receive window, 0 unless given; None where the kernel does not send the field.
    """
    analysis, found = StallAnalysis(DEFAULT), []
    for at, poll in enumerate(polls(*samples)):
        rates = {"TCPToZeroWindowAdv": 3.0 if at in closed_windows else 0.0}
        sizes = {cookie: windows.get(cookie, 0) for cookie in analysis.wanted_tcp_info}
        infos = {cookie: {} if size is None else {"rcv_wnd": size} for cookie, size in sizes.items()}
        known = replace(poll.sample, watched_tcp_info=infos)
        found.append(analysis.step(replace(poll, sample=known, rates=rates)))
    return found


def reading(queue: int, cookie: int, process: str = "app", pid: int = 7) -> Sock:
    return sock("ESTAB", "10.0.0.1:80", "192.0.2.1:1", recv_queue=queue, cookie=cookie, process=process, pid=pid)


def unread(path: Stalls) -> list[tuple[str, int, int]]:
    return [(str(it.program), it.count, it.unread_bytes) for it in path.unread]


def test_who_does_not_read() -> None:
    high = HIGH_QUEUE
    socks = [reading(high, 1), reading(high + 1, 2), reading(high - 1, 3), reading(2 * high, 4, "other", 8)]
    quiet, asked, result, after = follow(*(sample(at, *socks) for at in range(4)), closed_windows=(1,))
    assert unread(quiet) == [], "much that waits to be read is no closed window yet"
    assert unread(asked) == [], "their windows are not known yet"
    assert unread(result) == unread(after) == [("app[7]", 2, 2 * high + 1), ("other[8]", 1, 2 * high)]


def test_whose_window_is_open_is_not_the_reason() -> None:
    socks = [reading(HIGH_QUEUE, 1), reading(HIGH_QUEUE, 2, "other", 8)]
    for window, expected in ((0, ["app[7]", "other[8]"]), (1, ["app[7]"]), (None, ["app[7]", "other[8]"])):
        last = follow(*(sample(at, *socks) for at in range(3)), closed_windows=(1,), windows={2: window})[-1]
        assert [name for name, *_ in unread(last)] == expected


def test_it_is_over_when_it_was_read() -> None:
    high, low = reading(HIGH_QUEUE, 1), reading(5, 1)
    results = follow(sample(0, high), sample(1, high), sample(2, low), sample(3, high), closed_windows=(0,))
    assert [len(it.unread) for it in results] == [0, 1, 0, 0]
    assert isinstance(results[1].unread[0], UnreadProgram)


def test_an_owner_that_is_found_later() -> None:
    known = reading(HIGH_QUEUE, 1)
    unknown = replace(known, process=None, inode=9)
    results = follow(*(sample(at, unknown) for at in range(3)), sample(3, known), closed_windows=(1,))
    assert [len(it.unread) for it in results] == [0, 0, 0, 1]
