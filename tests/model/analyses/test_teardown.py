"""Connections that end: TIME_WAIT, CLOSE_WAIT by process, half-closed ones and orphans."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tcpwatch.kernel.proc.owner_finder import (
    UNKNOWN_ELSEWHERE,
    UNKNOWN_NOT_LOOKED,
    UNKNOWN_PERMISSION,
    UNKNOWN_PROC,
)
from tcpwatch.model.analyses.teardown import Teardown, TeardownAnalysis
from tcpwatch.model.states import State
from tcpwatch.sample import Sample, SourceInfo
from tests.support.polls import first_poll, polls
from tests.support.views import NOW, Sock, make_rows, make_sample, sock

LISTEN = sock("LISTEN", "0.0.0.0:80", cookie=1, process="app", pid=7)


def sample(second: float, *socks: Sock, **facts: object) -> Sample:
    return make_sample(make_rows(socks, time=NOW + second), monotonic=second, **facts)


def follow(*samples: Sample) -> list[Teardown]:
    analysis = TeardownAnalysis(60, 300)
    return [analysis.step(poll) for poll in polls(*samples)]


def waits(port: int, left_s: float, remote: str = "192.0.2.1:1", **facts: int) -> Sock:
    return sock("TIME_WAIT", f"10.0.0.1:{port}", remote, timer="timewait", timer_s=left_s, **facts)  # type: ignore[arg-type]


def test_who_closed_first_and_when_they_end() -> None:
    socks = [LISTEN, waits(80, 59.9), waits(80, 0.2, "192.0.2.1:2"), waits(40_000, 0.9), waits(40_001, 60.0)]
    (one,) = follow(sample(0, *socks))
    result = one.time_wait
    assert (result.count, result.server, result.client, result.by_port) == (4, 2, 2, ((80, 2),))
    assert {second: many for second, many in enumerate(result.ending_by_second) if many} == {0: 2, 59: 2}
    assert (result.entered_per_s, result.left_per_s) == (None, None)


def test_what_enters_and_what_leaves() -> None:
    first = sample(0, *(waits(40_000 + at, 9.0, cookie=at + 1) for at in range(10)), counters={"TW": 100})
    second = sample(2, *(waits(40_000 + at, 9.0, cookie=at + 1) for at in range(4)), counters={"TW": 120})
    result = follow(first, second)[1].time_wait
    assert (result.entered_per_s, result.left_per_s) == (10.0, 13.0)


def test_the_three_kinds_of_close_wait() -> None:
    queues = [0, 0, 0, 1, 1, 9]
    socks = [
        sock("CLOSE_WAIT", "10.0.0.1:80", f"192.0.2.1:{at + 1}", recv_queue=queue, process="app", pid=7)
        for at, queue in enumerate(queues)
    ]
    socks += [sock("CLOSE_WAIT", "10.0.0.1:80", "192.0.2.1:99")]
    socks += [sock("CLOSE_WAIT", "10.0.0.1:81", "192.0.2.1:98", process="other", pid=8)]
    (one,) = follow(sample(0, *socks, descriptor_limits={7: 12}))
    app, other = one.close_wait
    assert (app.name, app.eof_seen, app.eof_pending, app.data_pending, app.count) == ("app[7]", 3, 2, 1, 6)
    assert (app.limit, app.share) == (12, 0.5)
    assert (other.name, other.count, other.limit, other.share) == ("other[8]", 1, None, 0.0)
    assert one.close_wait_unaccepted == 1


def test_psutil_does_not_know_the_kinds() -> None:
    socks = [sock("CLOSE_WAIT", "10.0.0.1:80", "192.0.2.1:1", process="app", pid=7)]
    (one,) = follow(sample(0, *socks, source=SourceInfo("psutil", "root")))
    (app,) = one.close_wait
    assert (app.eof_seen, app.eof_pending, app.data_pending, app.count) == (0, 0, 0, 1)


def leaks(second: float, *counts: int) -> Sample:
    socks = [
        sock("CLOSE_WAIT", "10.0.0.1:80", f"192.0.2.{process}:{at + 1}", cookie=1000 * process + at + 1,
             process=f"app{process}", pid=process)
        for process, count in enumerate(counts, 1) for at in range(count)
    ]  # fmt: skip
    return sample(second, *socks)


def test_how_old_they_are() -> None:
    results = follow(leaks(0, 2), leaks(59, 3), leaks(60, 3), leaks(130, 3))
    assert [(one.close_wait[0].old, one.close_wait[0].oldest_s) for one in results] == [
        (0, 0.0), (0, 59.0), (2, 60.0), (3, 130.0),
    ]  # fmt: skip


def test_how_old_they_were_when_we_came() -> None:
    info = {1001: {"last_ack_recv": 90_000}, 1002: {"last_ack_recv": 5}}
    analysis = TeardownAnalysis(60, 300)
    oldest, asked = [], []
    for poll in polls(leaks(0, 2), replace(leaks(1, 3), watched_tcp_info=info), leaks(2, 3)):
        found = analysis.step(poll).close_wait[0]
        oldest.append((found.oldest_s, found.old))
        asked.append(analysis.wanted_tcp_info)
    assert oldest == [(0.0, 0), (90.0, 1), (91.0, 1)]
    assert asked == [frozenset({1001, 1002}), frozenset(), frozenset()], "of those that came later we know it ourselves"


def test_the_rate_of_ended_time_waits_is_over_ten_seconds() -> None:
    """The kernel ends TIME_WAITs in lumps: here forty each four seconds, while ten enter each second."""
    samples, count = [], 100
    for second in range(25):
        count += 10 - 40 * (second % 4 == 3)
        socks = [waits(40_000 + at, 9.0, cookie=at + 1) for at in range(count)]
        samples.append(sample(second, *socks, counters={"TW": 1000 + 10 * second}))
    left = [one.time_wait.left_per_s for one in follow(*samples)]
    assert left[0] is None
    assert all(one is not None and 6 <= one <= 14 for one in left[10:]), left


def test_the_ten_seconds_are_the_last_ten() -> None:
    """The counter of TIME_WAITs that entered is far from any time."""
    entered = {0: 5000, 4: 5040, 9: 5090, 11: 5090, 14: 5090, 15: 5090, 25: 5100, 26: 5100}
    left = [one.time_wait.left_per_s for one in follow(*(sample(s, counters={"TW": n}) for s, n in entered.items()))]
    assert left == [None, 10.0, 10.0, pytest.approx(90 / 11), 5.0, pytest.approx(50 / 11), 1.0, pytest.approx(10 / 11)]


def test_what_left_is_never_negative_and_needs_two_times() -> None:
    more = [waits(40_000 + at, 9.0, cookie=at + 1) for at in range(4)]
    first, second = sample(0, counters={"TW": 5}), sample(1, *more, counters={"TW": 5})
    assert [one.time_wait.left_per_s for one in follow(first, second)] == [None, 0.0]
    assert [one.time_wait.left_per_s for one in follow(first, replace(first, cookie=first.cookie))] == [None, None]


@pytest.mark.parametrize(
    ("counts", "growing"),
    [
        ([1, 2, 3, 4, 5, 6], True),
        ([0, 1, 2, 3, 4, 5], True),
        ([1, 2, 3, 4, 5], False),  # only four minutes
        ([1, 2, 3, 3, 5, 6], False),
        ([9, 1, 2, 3, 4, 5, 6], True),  # what was longer ago does not count
        ([1, 2, 3, 4, 5, 6, 6], False),
    ],
)
def test_whether_they_become_more_each_minute(counts: list[int], growing: bool) -> None:
    results = follow(*(leaks(60 * minute, count, 1) for minute, count in enumerate(counts)))
    assert {one.name: one.growing for one in results[-1].close_wait} == {"app1[1]": growing, "app2[2]": False}


def test_it_is_judged_by_the_minute_and_not_by_the_second() -> None:
    results = follow(*(leaks(second, 1 + second // 60) for second in range(0, 330, 10)))
    assert [one.close_wait[0].growing for one in results] == [False] * 30 + [True] * 3


def forgotten(count: int, first: int = 1, port: int = 80, **facts: Any) -> list[Sock]:
    """Return old CLOSE_WAITs with cookies from `first` on."""
    given = {"process": None, "inode": 9, "age_s": 99.0, **facts}
    return [
        sock("CLOSE_WAIT", f"10.0.0.1:{port}", f"192.0.2.1:{at}", cookie=at, **given)
        for at in range(first, first + count)
    ]


def by_holder(*socks: Sock, **facts: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Return the old ones by program, and by listener or user."""
    rows = make_rows(socks)
    result = TeardownAnalysis(60, 300).step(first_poll(make_sample(rows, **facts), rows))
    return tuple({one.name: one.old for one in held} for held in (result.close_wait, result.close_wait_spread))  # type: ignore[return-value]


PORT_80 = sock("LISTEN", "0.0.0.0:80", cookie=999)


def test_the_workers_of_a_program_are_counted_together() -> None:
    workers = [replace(one, process="worker", pid=100 + at) for at, one in enumerate(forgotten(25))]
    assert by_holder(PORT_80, *workers) == ({"worker (25 processes)": 25}, {})
    others = [replace(one, uid=33, cookie=100 + at) for at, one in enumerate(workers)]
    assert by_holder(*workers[:9], *others[:8]) == ({"worker (9 processes)": 9, "worker (8 processes)": 8}, {})


def test_the_descriptor_limit_is_that_of_each_process() -> None:
    workers = [replace(one, process="worker", pid=100 + at % 2) for at, one in enumerate(forgotten(25))]
    rows = make_rows(workers)
    poll = first_poll(make_sample(rows, descriptor_limits={100: 26, 101: 10}), rows)
    (program,) = TeardownAnalysis(60, 300).step(poll).close_wait
    assert (program.limit, program.share) == (10, 1.2)


@pytest.mark.parametrize("reason", [UNKNOWN_PERMISSION, UNKNOWN_ELSEWHERE, UNKNOWN_PROC])
def test_a_leak_without_a_visible_owner_is_one_of_its_listener_or_user(reason: int) -> None:
    hidden: dict[str, Any] = {"owner_code": reason, "uid": 33, "user": "www-data"}
    assert by_holder(PORT_80, *forgotten(20, **hidden)) == ({}, {"*:80": 20})
    assert by_holder(*forgotten(20, **hidden)) == ({}, {"www-data": 20}), "its listener has closed"
    clients = forgotten(15, 50, port=4000, **hidden)
    assert by_holder(PORT_80, *forgotten(10, **hidden), *clients) == ({}, {"www-data": 25})
    assert by_holder(PORT_80, *forgotten(19, **hidden)) == ({}, {})


def test_a_leak_of_programs_with_few_each_is_one_of_their_listener() -> None:
    many = [replace(one, process=f"task{at}", pid=100 + at) for at, one in enumerate(forgotten(20))]
    programs, spread = by_holder(PORT_80, *many)
    assert (len(programs), spread) == (20, {"*:80": 20})


def test_what_a_program_explains_is_not_counted_again() -> None:
    program = forgotten(30, process="app", pid=7)
    assert by_holder(PORT_80, *program, *forgotten(19, 50)) == ({"app[7]": 30}, {})
    assert by_holder(PORT_80, *program, *forgotten(20, 50)) == ({"app[7]": 30}, {"*:80": 20})


def test_neither_queued_ones_nor_those_not_looked_up_yet_are_hidden() -> None:
    assert by_holder(PORT_80, *forgotten(40, inode=0)) == ({}, {})
    assert by_holder(PORT_80, *forgotten(40, owner_code=UNKNOWN_NOT_LOOKED)) == ({}, {})


def test_half_closed_by_program_and_by_user() -> None:
    def held(at: int, **facts: Any) -> Sock:
        return sock("FIN_WAIT_2", "10.0.0.1:80", f"192.0.2.1:{at}", cookie=at, age_s=400.0, **facts)

    workers = [held(at, process="worker", pid=at) for at in range(1, 4)]
    hidden = [held(at, inode=at, owner_code=UNKNOWN_ELSEWHERE) for at in range(10, 15)]
    rows = make_rows([*workers, *hidden, held(30, inode=3, owner_code=UNKNOWN_NOT_LOOKED)])
    result = TeardownAnalysis(60, 300).step(first_poll(make_sample(rows), rows))
    assert [(one.name, one.count, one.old) for one in result.half_closed] == [("worker (3 processes)", 3, 3)]
    (unseen,) = result.half_closed_hidden
    assert (unseen.name, unseen.count, unseen.old, unseen.why_hidden) == ("root", 5, 5, UNKNOWN_ELSEWHERE)


def test_half_closed_and_orphaned() -> None:
    held = sock("FIN_WAIT_2", "10.0.0.1:80", "192.0.2.1:1", cookie=1, process="app", pid=7)
    others = [
        sock("FIN_WAIT_2", "10.0.0.1:80", "192.0.2.1:2"), sock("FIN_WAIT_1", "10.0.0.1:80", "192.0.2.1:3"),
        sock("LAST_ACK", "10.0.0.1:80", "192.0.2.1:4"), sock("CLOSING", "10.0.0.1:80", "192.0.2.1:5"),
        sock("FIN_WAIT_1", "10.0.0.1:80", "192.0.2.1:6", process="app", pid=7),
    ]  # fmt: skip
    others = [replace(one, cookie=at) for at, one in enumerate(others, 10)]
    first, second = follow(sample(0, held, *others), sample(300, held, *others))
    assert [(one.name, one.count, one.old, one.oldest_s) for one in second.half_closed] == [("app[7]", 1, 1, 300.0)]
    assert first.half_closed[0].old == 0
    assert second.orphaned == {State.FIN_WAIT_1: 1, State.FIN_WAIT_2: 1, State.LAST_ACK: 1, State.CLOSING: 1}
    assert second.owned == {State.FIN_WAIT_1: 1, State.FIN_WAIT_2: 1, State.LAST_ACK: 0, State.CLOSING: 0}
