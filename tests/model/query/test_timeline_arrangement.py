"""Timelines: which flows are chosen, in which order, and what is made of those that are seen."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tcpwatch.arrays.append_log import AppendLog
from tcpwatch.exporters.records import timeline_record, timelines_csv
from tcpwatch.model.lifecycle import closed_rows
from tcpwatch.model.lifecycle.archive import RECORD, Archive
from tcpwatch.model.lifecycle.closed_rows import rows_from_records
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.transitions import Origin, TransitionKind
from tcpwatch.model.query import timeline
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.query.timeline import Timeline, timelines_at
from tcpwatch.model.query.timeline_arrangement import (
    TimelineArrangement,
    TimelineArranger,
    TimelineSort,
)
from tcpwatch.model.sockets.rows import Mark, Rows
from tcpwatch.model.sockets.throughput import Throughput
from tcpwatch.model.states import Role, State
from tcpwatch.model.view import View
from tests.support.kernel.infos import make_infos
from tests.support.records import ClosedFlow, closed_flow, incident, make_archive, polled, traced
from tests.support.views import NOW, Sock, make_view, sock


def served(state: str, cookie: int, **given: Any) -> Sock:
    facts: dict[str, Any] = {"role": "server", "process": "nginx", "pid": 12, "cookie": cookie, **given}
    return sock(state, "10.0.0.1:443", f"10.0.0.9:{4000 + cookie}", **facts)


LIVE = (
    sock("LISTEN", "0.0.0.0:443", cookie=1),
    sock("CLOSED", "0.0.0.0:5000", cookie=2),
    served("ESTAB", 3, age_s=100, begin_seen=False),
    served("SYN_RCVD", 4, age_s=2),
    served("TIME_WAIT", 5, age_s=40, state_age_s=10, process=None),
    served("CLOSE_WAIT", 6, age_s=60, state_age_s=20, process="app"),
)
CLOSED_FLOWS = (
    closed_flow(served("ESTAB", 10), 50, 20, Ending.RESET_SENT),
    closed_flow(served("TIME_WAIT", 5), 40, 10.5, Ending.BY_US),
    closed_flow(served("ESTAB", 11, process="app"), 30, 29, Ending.UNKNOWN, owner=-1),
    closed_flow(served("LAST_ACK", 12), 5, 3, Ending.BY_PEER),
    closed_flow(served("ESTAB", 11, process="app"), 30, 29, Ending.TIMED_OUT),
)
"""11 comes twice, and 5 is still there, in TIME_WAIT."""


def view(*closed: ClosedFlow, live: tuple[Sock, ...] = LIVE, chunks: int = 2, **changes: Any) -> View:
    return make_view(*live, archive=make_archive(*closed, chunks=chunks, **changes))


def cookies(chosen: TimelineArrangement) -> list[int]:
    return [chosen.cookie(place) for place in range(len(chosen))]


def row(chosen: TimelineArrangement, cookie: int) -> Timeline:
    place = chosen.place(cookie)
    assert place is not None
    return timelines_at(chosen, place, place + 1)[0]


# Which


def test_live_and_closed_flows_each_once_the_newest_first() -> None:
    chosen = TimelineArranger().arrange(view(*CLOSED_FLOWS), Filter())
    assert cookies(chosen) == [4, 12, 11, 5, 10, 6, 3]
    assert (chosen.live, chosen.closed, chosen.total_live, chosen.total_closed) == (4, 3, 4, 3)


def test_of_a_flow_that_comes_twice_the_last_record_counts() -> None:
    assert row(TimelineArranger().arrange(view(*CLOSED_FLOWS), Filter()), 11).ending is Ending.TIMED_OUT


def test_nothing_at_all() -> None:
    chosen = TimelineArranger().arrange(view(live=()), Filter())
    assert (len(chosen), chosen.place(3), timelines_at(chosen, 0, 10)) == (0, None, [])
    assert len(TimelineArranger().arrange(view(live=LIVE[:2]), Filter())) == 0, "a listener is no flow"
    at_the_start = TimelineArranger().arrange(make_view(archive=Archive()), Filter())
    assert (len(at_the_start), at_the_start.total_closed, len(at_the_start.closed_cookie)) == (0, 0, 0)


@pytest.mark.parametrize(("wanted", "expected"), [
    ("process:nginx", [4, 12, 10, 3]),
    ("process:app", [11, 6]),
    ("state:established", [11, 10, 3]),
    ("port:4012", [12]),
    ("cookie:5", [5]),
    ("state:listen", []),
    ("ending:closed", [12, 5]),
    ("ending:reset-sent,timedout", [11, 10]),
    ("ending:LIVE", [4, 6, 3]),
    ("-ending:closed", [4, 11, 10, 6, 3]),
    ("ending:unknown", []),
])  # fmt: skip
def test_the_filter_asks_live_and_closed_flows_alike(wanted: str, expected: list[int]) -> None:
    chosen = TimelineArranger().arrange(view(*CLOSED_FLOWS), Filter.parse(wanted))
    assert cookies(chosen) == expected
    assert (chosen.total_live, chosen.total_closed) == (4, 3)


def test_a_flow_that_a_filter_hides_is_known_still() -> None:
    chosen = TimelineArranger().arrange(view(*CLOSED_FLOWS), Filter.parse("port:4012"))
    assert [chosen.knows(cookie) for cookie in (12, 10, 3, 1, 99)] == [True, True, True, False, False]
    assert [chosen.place(cookie) for cookie in (12, 10, 3, 1)] == [0, None, None, None]


def test_owners_that_are_forgotten_are_nobodys() -> None:
    archive = make_archive(*CLOSED_FLOWS)
    later = replace(archive, owners=archive.owners[1:], owners_from=1)
    chosen = TimelineArranger().arrange(make_view(*LIVE, archive=later), Filter())
    assert (row(chosen, 11).process, row(chosen, 10).process) == ("app[12]", "?")
    assert cookies(TimelineArranger().arrange(make_view(archive=later), Filter.parse("process:app"))) == [11]


# In which order


@pytest.mark.parametrize(("by", "reverse", "expected"), [
    (TimelineSort.BEGIN, False, [3, 6, 10, 5, 11, 12, 4]),
    (TimelineSort.BEGIN, True, [4, 12, 11, 5, 10, 6, 3]),
    (TimelineSort.LENGTH, False, [11, 12, 4, 5, 10, 6, 3]),
    (TimelineSort.END, False, [11, 10, 5, 12, 3, 6, 4]),
    (TimelineSort.STATE, False, [4, 3, 6, 5, 10, 11, 12]),
    (TimelineSort.ENDING, False, [10, 11, 5, 12, 3, 6, 4]),
    (TimelineSort.ENDING, True, [4, 6, 3, 12, 5, 11, 10]),
])  # fmt: skip
def test_order(by: TimelineSort, reverse: bool, expected: list[int]) -> None:
    chosen = TimelineArranger().arrange(view(*CLOSED_FLOWS), Filter(), by, reverse)
    assert cookies(chosen) == expected
    assert [chosen.place(cookie) for cookie in expected] == list(range(len(expected)))


@pytest.mark.parametrize("ended_s_ago", [0.5, 0.0, -0.5])
def test_the_end_of_a_live_connection_comes_after_one_that_has_just_ended(ended_s_ago: float) -> None:
    """The trace may report an end later than the time of the sample."""
    just_ended = closed_flow(served("ESTAB", 10), 50, ended_s_ago, Ending.BY_US)
    chosen = TimelineArranger().arrange(
        view(just_ended, live=(served("ESTAB", 3, age_s=100),)), Filter(), TimelineSort.END, reverse=False
    )
    assert cookies(chosen) == [10, 3]


_FLOWS = st.lists(
    st.tuples(st.integers(1, 30), st.sampled_from([9.0, 8.0, 7.5]), st.sampled_from(list(Ending))), max_size=40
)


@given(_FLOWS, st.sets(st.integers(1, 30)), st.sampled_from(list(TimelineSort)), st.booleans(), st.integers(1, 5))
def test_every_flow_once_and_in_order(
    closed: list[tuple[int, float, Ending]], live: set[int], by: TimelineSort, reverse: bool, chunks: int
) -> None:
    socks = tuple(served("ESTAB", cookie, age_s=cookie % 7) for cookie in sorted(live))
    flows = [closed_flow(served("ESTAB", cookie), begin, 7, ending) for cookie, begin, ending in closed]
    chosen = TimelineArranger().arrange(view(*flows, live=socks, chunks=chunks), Filter(), by, reverse)
    assert sorted(cookies(chosen)) == sorted(live | {cookie for cookie, _, _ in closed})
    assert cookies(TimelineArranger().arrange(chosen.view, Filter(), by, not reverse)) == cookies(chosen)[::-1]
    last = {cookie: (begin, ending) for cookie, begin, ending in closed}
    for one in timelines_at(chosen, 0, len(chosen)):
        if one.cookie not in live:
            assert (NOW - one.begin.time, one.ending) == last[one.cookie]


# What is kept from one View to the next


def test_each_record_is_asked_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    plain = rows_from_records

    def counted(archive: Archive, like: Rows, *records: NDArray[np.void]) -> Rows:
        asked.append(sum(map(len, records)))
        return plain(archive, like, *records)

    monkeypatch.setattr(closed_rows, "rows_from_records", counted)
    records = np.concatenate(
        make_archive(*(closed_flow(served("ESTAB", cookie), 9, 8) for cookie in range(1, 41))).records
    )
    log, chooser, wanted = AppendLog(RECORD, 64), TimelineArranger(), Filter.parse("port:443")
    owners = make_archive(CLOSED_FLOWS[0]).owners
    for first, last in ((0, 10), (10, 20), (20, 20), (20, 40)):
        log.add(records[first:last])
        shown = chooser.arrange(make_view(archive=Archive(log.chunks, owners=owners)), wanted)
        assert sorted(cookies(shown)) == list(range(1, last + 1))
    assert asked == [10, 10, 20]
    chooser.arrange(shown.view, Filter.parse("port:1"))
    assert asked[-1] == 40, "another filter asks of all"
    assert len(chooser.arrange(shown.view, wanted)) == 40


def test_records_that_were_dropped_are_not_shown() -> None:
    log, chooser = AppendLog(RECORD, 16), TimelineArranger()
    for cookie in range(1, 101):
        log.add(make_archive(closed_flow(served("ESTAB", cookie), 9, 8)).records[0])
        shown = chooser.arrange(make_view(archive=Archive(log.chunks)), Filter())
        assert cookies(shown)[0] == cookie
        assert len(shown) <= 20


# What is made of those that are seen


def test_a_row_has_its_history() -> None:
    changes = {3: [*traced(50, "SYN_RCVD", 49.5, "ESTAB"), *incident(20, TransitionKind.RETRANSMITTED)]}
    one = row(TimelineArranger().arrange(view(changes=changes), Filter()), 3)
    assert [(s.state, NOW - s.begin.time, s.begin.origin) for s in one.periods] == [
        (State.SYN_RCVD, 50, Origin.TRACE), (State.ESTABLISHED, 49.5, Origin.TRACE),
    ]  # fmt: skip
    assert (one.begin.time, one.began_earlier, one.live, one.end, one.ending) == (NOW - 50, False, True, None, None)
    assert (one.local, one.remote, one.role, one.process) == (
        ("10.0.0.1", 443),
        ("10.0.0.9", 4003),
        Role.SERVER,
        "nginx[12]",
    )
    assert [one.kind for one in one.incidents] == [TransitionKind.RETRANSMITTED]
    assert (one.length_s, one.line_end_s) == (50, NOW)


def test_a_flow_that_was_there_before_us_began_earlier() -> None:
    one = row(TimelineArranger().arrange(view(), Filter()), 3)
    assert one.began_earlier
    assert [(s.state, s.begin.time, s.end, s.began_earlier) for s in one.periods] == [
        (State.ESTABLISHED, NOW - 100, None, True)
    ]


def test_a_flow_whose_transitions_were_dropped_has_its_present_state() -> None:
    one = row(TimelineArranger().arrange(view(), Filter()), 6)
    assert [(s.state, NOW - s.begin.time, s.began_earlier) for s in one.periods] == [(State.CLOSE_WAIT, 20, True)]


def test_a_present_time_wait_has_an_ending() -> None:
    changes = {5: traced(40, "ESTAB", 10.6, "FIN_WAIT_1", 10.5, "TIME_WAIT")}
    info = {"bytes_received": 7, "bytes_acked": 9}
    closed = closed_flow(served("TIME_WAIT", 5), 40, 10.5, Ending.BY_US, info)
    one = row(TimelineArranger().arrange(view(closed, changes=changes), Filter()), 5)
    assert (one.live, one.ending, one.process, one.received_bytes, one.sent_bytes) == (
        True,
        Ending.BY_US,
        "nginx[12]",
        7,
        9,
    )
    assert one.end is not None
    assert (NOW - one.end.time, one.line_end_s, one.length_s) == (10.5, NOW, 29.5)


def test_a_present_time_wait_without_a_record_ended_when_it_began() -> None:
    changes = {5: polled(40, "ESTAB", 10, "TIME_WAIT")}
    one = row(TimelineArranger().arrange(view(changes=changes), Filter()), 5)
    assert (one.live, one.ending, one.end and NOW - one.end.time, one.length_s) == (True, None, 10, 30)
    exact = closed_flow(served("TIME_WAIT", 5), 40, 10.75, Ending.BY_US)
    one = row(TimelineArranger().arrange(view(exact, changes=changes), Filter()), 5)
    assert (one.ending, one.end and NOW - one.end.time) == (Ending.BY_US, 10.75), "its record knows better"


def test_a_closed_flow_ends_though_nothing_of_it_is_kept() -> None:
    chosen = TimelineArranger().arrange(view(*CLOSED_FLOWS), Filter())
    one = row(chosen, 10)
    assert [(s.state, NOW - s.begin.time, s.end and NOW - s.end.time) for s in one.periods] == [
        (State.ESTABLISHED, 50, 20)
    ]
    assert (one.live, one.mark, one.line_end_s, one.length_s) == (False, Mark.NONE, NOW - 20, 30)
    changes = {10: traced(50, "SYN_RCVD", 49, "ESTAB")}
    half = row(TimelineArranger().arrange(view(*CLOSED_FLOWS, changes=changes), Filter()), 10)
    assert [(s.state, s.end and NOW - s.end.time) for s in half.periods] == [
        (State.SYN_RCVD, 49), (State.ESTABLISHED, 20),
    ]  # fmt: skip
    late = {10: traced(50, "SYN_RCVD", 19, "ESTAB")}  # a state that seems to begin after the end
    one = row(TimelineArranger().arrange(view(*CLOSED_FLOWS, changes=late), Filter()), 10)
    assert [(s.state, s.end and NOW - s.end.time) for s in one.periods] == [
        (State.SYN_RCVD, 19), (State.ESTABLISHED, 19),
    ]  # fmt: skip


def test_the_length_of_a_short_connection_and_of_one_whose_clock_went_back() -> None:
    flows = closed_flow(served("ESTAB", 10), 5.5, 5.25), closed_flow(served("ESTAB", 11), 3, 4)
    chosen = TimelineArranger().arrange(view(*flows), Filter())
    assert [row(chosen, cookie).length_s for cookie in (10, 11)] == [0.25, 0.0]


def test_a_connection_that_we_saw_begin_did_not_begin_earlier() -> None:
    changes = {6: [*polled(60, "ESTAB", 20, "CLOSE_WAIT")]}
    one = row(TimelineArranger().arrange(view(changes=changes), Filter()), 6)
    assert (one.began_earlier, [s.began_earlier for s in one.periods]) == (False, [False, False])
    only_last = {6: polled(60, "ESTAB", 20, "CLOSE_WAIT")[1:]}
    one = row(TimelineArranger().arrange(view(changes=only_last), Filter()), 6)
    assert [(s.state, NOW - s.begin.time, s.began_earlier) for s in one.periods] == [
        (State.ESTABLISHED, 60, False), (State.CLOSE_WAIT, 20, False),
    ]  # fmt: skip


def test_what_closed_since_the_poll_before_is_marked() -> None:
    archive = make_archive(closed_flow(served("ESTAB", 7), 9, 0.5))
    for elapsed_s, mark in ((1.0, "CLOSED"), (0.2, "NONE")):
        one = row(TimelineArranger().arrange(make_view(archive=archive, elapsed_s=elapsed_s), Filter()), 7)
        assert one.mark.name == mark


def test_a_record_that_knows_no_state_and_no_beginning() -> None:
    closed = closed_flow(served("ESTAB", 7), 2, 2, Ending.UNKNOWN, state=0, begin_slack=math.nan, origin=Origin.EVENT)
    one = row(TimelineArranger().arrange(view(closed), Filter()), 7)
    assert (one.state, one.periods, one.began_earlier) == (None, (), True)
    assert one.line_end_s == NOW - 2


def test_bytes_of_live_flows() -> None:
    it = view()
    throughput = Throughput(make_infos({3: {"bytes_acked": 5, "bytes_received": 6}}))
    chosen = TimelineArranger().arrange(replace(it, rows=replace(it.rows, throughput=throughput)), Filter())
    assert (row(chosen, 3).received_bytes, row(chosen, 3).sent_bytes) == (6, 5)
    assert (row(chosen, 6).received_bytes, row(chosen, 6).sent_bytes) == (None, None)


def test_only_what_is_asked_for_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    plain = timeline._facts

    def counted(rows: Rows, figures: Any) -> list[Timeline]:
        made.append(len(rows))
        return plain(rows, figures)

    monkeypatch.setattr(timeline, "_facts", counted)
    records = np.zeros(100_000, RECORD)
    records["cookie"] = np.arange(1, 100_001)
    records["begin"], records["end"] = NOW - 60 + records["cookie"] * 1e-4, NOW
    records["row"]["idiag_family"], records["row"]["idiag_dport"] = 2, 443
    chosen = TimelineArranger().arrange(make_view(archive=Archive((records,))), Filter.parse("port:443"))
    assert [one.cookie for one in timelines_at(chosen, 50, 53)] == [99_950, 99_949, 99_948]
    assert sum(made) == 3


# As CSV


def test_csv() -> None:
    changes = {12: polled(5, "ESTAB", 4, "CLOSE_WAIT", 3, None), 5: traced(40, "ESTAB", 10, "TIME_WAIT")}
    chosen = TimelineArranger().arrange(view(*CLOSED_FLOWS, changes=changes), Filter())
    lines = list(csv.DictReader(io.StringIO("".join(timelines_csv(chosen)))))
    assert [int(line["cookie"]) for line in lines] == cookies(chosen)
    by_cookie = {int(line["cookie"]): line for line in lines}
    one = by_cookie[12]
    assert (one["remote_port"], one["role"], one["process"], one["pid"]) == ("4012", "server", "nginx[12]", "12")
    assert (one["live"], one["ending"], one["begin_known"], one["begin_slack_s"]) == (
        "False",
        "closed by peer",
        "poll",
        "1.0",
    )
    assert (one["established_s"], one["close_wait_s"], one["time_wait_s"], one["length_s"]) == ("1.0", "1.0", "", "2.0")
    assert (by_cookie[5]["live"], by_cookie[5]["time_wait_s"], by_cookie[5]["end_known"]) == ("True", "10.0", "trace")
    assert (by_cookie[3]["end"], by_cookie[3]["begin_slack_s"], by_cookie[3]["ending"]) == ("", "", "")


def test_what_a_line_says_of_one_connection() -> None:
    changes = {12: polled(5.1234567, "ESTAB", 4, "CLOSE_WAIT", 3, None)}
    chosen = TimelineArranger().arrange(view(*CLOSED_FLOWS, changes=changes), Filter())
    one = timeline_record(row(chosen, 12))
    assert (one["state"], one["ending"], one["live"]) == ("LAST_ACK", "closed by peer", False)
    assert one["established_s"] == round(one["established_s"], 6) == pytest.approx(1.123457, abs=2e-6)
    assert (one["begin"], one["end"]) == (pytest.approx(NOW - 5.123457, abs=2e-6), NOW - 3)
    assert one["begin"] == round(one["begin"], 6)
    assert one["length_s"] == round(one["length_s"], 6)
    (known, unknown) = (timeline_record(row(chosen, cookie)) for cookie in (4, 3))
    assert (known["state"], known["live"], known["begin_slack_s"], known["end"]) == ("SYN_RCVD", True, None, None)
    assert (unknown["begin_slack_s"], unknown["received_bytes"], unknown["process"]) == (None, None, "nginx[12]")
    stateless = closed_flow(served("ESTAB", 7, process=None, role="unknown"), 2, 2, Ending.UNKNOWN, state=0)
    one = timeline_record(row(TimelineArranger().arrange(view(stateless), Filter()), 7))
    assert (one["state"], one["role"], one["pid"], one["ending"]) == (None, None, None, "unknown")


def test_a_connection_in_its_first_state_began_between_two_polls() -> None:
    it = replace(view(), elapsed_s=2.0)
    one = row(TimelineArranger().arrange(it, Filter()), 4)
    assert (one.begin.slack_s, one.periods[0].begin.slack_s, one.began_earlier) == (2.0, 2.0, False)
    changed = row(TimelineArranger().arrange(it, Filter()), 6)
    assert math.isnan(changed.periods[0].begin.slack_s)
    assert changed.began_earlier


def test_csv_comes_in_blocks() -> None:
    flows = [closed_flow(served("ESTAB", cookie), 9, 8) for cookie in range(1, 4_502)]
    blocks = list(timelines_csv(TimelineArranger().arrange(view(*flows, live=()), Filter())))
    assert [block.count("\n") for block in blocks] == [2_001, 2_000, 501]
    assert list(timelines_csv(TimelineArranger().arrange(view(live=()), Filter()))) == []


def test_the_keys_of_a_row_are_the_same_whatever_is_known() -> None:
    chosen = TimelineArranger().arrange(view(*CLOSED_FLOWS), Filter())
    assert len({tuple(timeline_record(one)) for one in timelines_at(chosen, 0, len(chosen))}) == 1
