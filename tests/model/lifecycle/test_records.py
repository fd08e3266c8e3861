"""Records of closed connections: what is kept of each, and whether it counts, in made-up hosts of a few polls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.kernel.proc.owner_finder import (
    UNKNOWN_ELSEWHERE,
    UNKNOWN_NO_PROCESS,
    UNKNOWN_NOT_LOOKED,
    UNKNOWN_PERMISSION,
    UNKNOWN_PROC,
    Owner,
)
from tcpwatch.kernel.proc.process import Process
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind, TraceEvents
from tcpwatch.model.lifecycle.archive import Archive
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.tracker import LifecycleStep, Tracker
from tcpwatch.model.lifecycle.transitions import Origin
from tcpwatch.model.states import Role, State
from tcpwatch.sample import Sample
from tests.support.polls import polls as joined
from tests.support.views import NOW, Sock, make_rows, make_sample, make_table, sock

PACE_S = 2.0
"""Seconds between two polls; the first is at NOW, and at 1000.0 of the monotonic clock."""
LISTENER = sock("LISTEN", "0.0.0.0:80", cookie=1, inode=5, process="httpd", pid=12)
OPEN = sock("ESTAB", "10.0.0.1:80", "10.0.0.9:4000", cookie=7, process="worker", pid=13)
CALLING = sock("SYN_SENT", "10.0.0.1:4000", "10.0.0.9:443", cookie=8, process="curl", pid=14)
HALF_OPEN = sock("SYN_RCVD", "10.0.0.1:80", "10.0.0.9:4001", cookie=9)
TIME_WAIT = sock("TIME_WAIT", "10.0.0.1:80", "10.0.0.9:4002", cookie=10, timer="timewait", timer_s=60)
CALLER = Owner((Process(21, "wget", "wget", 0, "root", NOW - 9),))


def event(one: Sock, at: float, **info: int) -> tuple[Sock, float, dict[str, int]]:
    """A destroy event, seconds after the first poll; `info` is tcp_info without `tcpi_`."""
    return replace(one, state=State.CLOSED, inode=0), at, info


Event = tuple[Sock, float, dict[str, int]]


def destroyed(events: Sequence[Event]) -> DestroyedSockets:
    infos = np.zeros(len(events), uapi.TCP_INFO)
    for row, (_, _, info) in zip(infos, events, strict=True):
        for name, value in info.items():
            row[f"tcpi_{name}"] = value
    when = 1000.0 + np.array([at for _, at, _ in events], np.float64)
    return DestroyedSockets(make_table([one for one, _, _ in events]), infos, when, uapi.TCP_INFO.itemsize)


def traced(one: Sock, pid: int, *changes: tuple[float, str, str]) -> TraceEvents:
    """Changes of state of one connection, and then that it was destroyed."""
    table = np.zeros(len(changes) + 1, TRACE_EVENT)
    ends = make_table([one])[0]
    for row, (at, old, new) in zip(table, changes, strict=False):
        row["time"], row["kind"], row["old"], row["new"] = (
            1000.0 + at,
            TraceEventKind.STATE,
            State.parse(old),
            State.parse(new),
        )
    table["src"], table["dst"], table["family"] = ends["idiag_src"], ends["idiag_dst"], ends["idiag_family"]
    table["sport"], table["dport"] = ends["idiag_sport"], ends["idiag_dport"]
    table["socket"], table["pid"] = 0xFFFF_8880_0000_1000, pid
    table[-1]["time"], table[-1]["kind"], table[-1]["cookie"] = table[-2]["time"], TraceEventKind.DESTROYED, one.cookie
    return TraceEvents(table)


@dataclass(frozen=True, slots=True)
class Poll:
    """The sockets of one poll, and what was reported since the poll before."""

    socks: Sequence[Sock]
    events: Sequence[Event] = ()
    traced: TraceEvents | None = None
    sysctls: Mapping[str, int] | None = None
    callers: Mapping[int, Owner] | None = None
    begin_monotonic_s: float = 0.0

    def sample(self, number: int) -> Sample:
        rows = make_rows(self.socks, time=NOW + number * PACE_S)
        begin = {"begin_monotonic_s": self.begin_monotonic_s} if self.begin_monotonic_s else {}
        return make_sample(
            rows, destroyed=destroyed(self.events), trace_events=self.traced, sysctls=self.sysctls or {},
            callers=self.callers or {}, **begin,
        )  # fmt: skip


def run(*polls: Poll) -> tuple[LifecycleStep, NDArray[np.void], Archive]:
    """Return what the last step adds to the totals, all records, and what is remembered."""
    model = Tracker(memory_mib=1)
    for poll in joined(*(poll.sample(number) for number, poll in enumerate(polls))):
        step = model.step(poll)
    return step, np.concatenate(model.archive.records), model.archive


def only(*polls: Poll) -> np.void:
    """Return the record of the only connection that ended."""
    _, records, _ = run(*polls)
    (record,) = records
    found: np.void = record
    return found


# Vanished without an event ----------------------------------------------------------------------

CROSSED = replace(HALF_OPEN, inode=77)
VANISHED = {
    "half-open": (HALF_OPEN, {}, Ending.UNKNOWN, False),
    "half-open, one SYN+ACK is left": (
        replace(HALF_OPEN, retransmits=4), {"tcp_synack_retries": 5}, Ending.UNKNOWN, False,
    ),
    "half-open, the last SYN+ACK was sent": (
        replace(HALF_OPEN, retransmits=5), {"tcp_synack_retries": 5}, Ending.TIMED_OUT, False,
    ),
    "half-open, sent even more often": (
        replace(HALF_OPEN, retransmits=6), {"tcp_synack_retries": 5}, Ending.TIMED_OUT, False,
    ),
    "half-open, the number of SYN+ACKs is unknown": (replace(HALF_OPEN, retransmits=9), {}, Ending.UNKNOWN, False),
    "two SYNs crossed": (CROSSED, {}, Ending.UNKNOWN, True),
    "open, with retransmits": (replace(OPEN, retransmits=9), {"tcp_synack_retries": 5}, Ending.UNKNOWN, True),
    "TIME_WAIT": (TIME_WAIT, {}, Ending.BY_US, True),
    "open": (OPEN, {}, Ending.UNKNOWN, True),
}  # fmt: skip


@pytest.mark.parametrize("name", VANISHED)
def test_a_connection_that_vanishes_between_two_polls(name: str) -> None:
    one, sysctls, ending, counts = VANISHED[name]
    step, (record,), _ = run(Poll([LISTENER]), Poll([LISTENER, one]), Poll([LISTENER], sysctls=sysctls))
    assert (record["cookie"], record["state"], record["ending"]) == (one.cookie, one.state, ending)
    assert len(step.ended) == counts
    assert (record["info_bytes"], record["origin"], record["seen"]) == (0, Origin.POLL, True)
    end = NOW + 2 if one is TIME_WAIT else NOW + 4  # a full socket ends where TIME_WAIT begins
    assert (record["end"], record["end_slack"]) == (end, PACE_S)
    assert (record["begin"], record["begin_slack"]) == (NOW + 2, PACE_S)


def test_a_time_wait_from_before_the_first_poll_does_not_count() -> None:
    step, (record,), _ = run(Poll([LISTENER, TIME_WAIT]), Poll([LISTENER]))
    assert (record["ending"], len(step.ended)) == (Ending.BY_US, 0)
    assert math.isnan(record["begin_slack"])


def test_an_open_connection_from_before_the_first_poll_counts() -> None:
    step, (record,), _ = run(Poll([LISTENER, OPEN]), Poll([LISTENER]))
    assert (record["begin"], record["end"], len(step.ended)) == (NOW, NOW + 2, 1)
    assert math.isnan(record["begin_slack"])


# Destroy events ---------------------------------------------------------------------------------


def test_the_listener_shows_role_and_owner_of_a_connection_between_two_polls() -> None:
    served, called = replace(OPEN, cookie=20), replace(CALLING, cookie=21)
    polls = Poll([LISTENER]), Poll([LISTENER], [event(served, 1.0), event(called, 1.0)])
    _, records, archive = run(*polls)
    assert [int(cookie) for cookie in records["cookie"]] == [20, 21]
    assert [int(role) for role in records["role"]] == [Role.SERVER, Role.CLIENT]
    assert archive.owner(int(records["owner"][0])) == LISTENER.owner
    assert records["owner"][1] == UNKNOWN_NOT_LOOKED
    assert not records["seen"].any()


HIDDEN = (UNKNOWN_PERMISSION, UNKNOWN_ELSEWHERE, UNKNOWN_PROC, UNKNOWN_NOT_LOOKED)


@pytest.mark.parametrize("reason", HIDDEN)
def test_an_owner_that_was_hidden_is_not_the_kernel(reason: int) -> None:
    hidden = replace(OPEN, process=None, inode=7, owner_code=reason)
    waits = replace(TIME_WAIT, cookie=OPEN.cookie, local=OPEN.local, remote=OPEN.remote)
    for last in ([], [waits]):
        record = only(Poll([]), Poll([hidden]), Poll(last, [event(hidden, 3.0)]))
        assert record["owner"] == reason


@pytest.mark.parametrize("reason", HIDDEN)
def test_the_owner_of_a_connection_between_two_polls_is_as_hidden_as_its_listener(reason: int) -> None:
    listener = replace(LISTENER, process=None, owner_code=reason)
    _, records, _ = run(Poll([listener]), Poll([listener], [event(replace(OPEN, cookie=20), 1.0)]))
    assert records["owner"].tolist() == [reason]


def test_the_owner_of_a_connection_between_two_polls_is_one_of_those_that_share_the_listener() -> None:
    listener = replace(LISTENER, also=((13, "httpd"),))
    gone = event(replace(OPEN, cookie=20), 1.0)
    _, (record,), archive = run(Poll([listener]), Poll([listener], [gone]))
    owner = archive.owner(int(record["owner"]))
    assert owner is not None and (owner.accepting, [it.pid for it in owner.processes]) == (0, [12, 13])
    accepted = replace(OPEN, cookie=21, process="httpd", pid=13)
    _, records, archive = run(Poll([listener]), Poll([listener]), Poll([listener, accepted], [event(OPEN, 5.0)]))
    owner = archive.owner(int(records["owner"][0]))
    assert owner is not None and (owner.accepting, [it.pid for it in owner.processes]) == (None, [13])


def test_a_connection_that_no_process_had_accepted_has_none() -> None:
    waiting = replace(OPEN, process=None, inode=0)
    record = only(Poll([]), Poll([waiting]), Poll([], [event(waiting, 3.0)]))
    assert record["owner"] == UNKNOWN_NO_PROCESS


@pytest.mark.parametrize("listening", [(True, False), (False, True), (True, True), (False, False)])
def test_the_listener_may_have_closed_or_opened_meanwhile(listening: tuple[bool, bool]) -> None:
    other = replace(LISTENER, local=("0.0.0.0", 81), cookie=2, process="other", pid=99)
    before, now = ([other, LISTENER] if there else [other] for there in listening)
    _, records, archive = run(Poll(before), Poll(now, [event(replace(OPEN, cookie=20), 1.0)]))
    (record,) = records[records["cookie"] == 20]
    assert record["role"] == (Role.SERVER if any(listening) else Role.CLIENT)
    assert archive.owner(int(record["owner"])) == (LISTENER.owner if any(listening) else None)


def test_polls_know_better_than_the_listener() -> None:
    _, (record,), archive = run(
        Poll([LISTENER]),
        Poll([LISTENER, OPEN]),
        Poll([LISTENER], [event(OPEN, 3.0, bytes_received=5)]),
    )
    assert archive.owner(int(record["owner"])) == OPEN.owner
    assert (record["role"], record["seen"], record["state"]) == (Role.SERVER, True, State.ESTABLISHED)
    assert (record["info_bytes"], record["info"]["tcpi_bytes_received"]) == (uapi.TCP_INFO.itemsize, 5)
    assert record["row"]["idiag_state"] == State.ESTABLISHED, "the row as it was last seen"


def test_the_owner_is_remembered_when_a_connection_goes_on_in_time_wait() -> None:
    waits = replace(TIME_WAIT, cookie=OPEN.cookie, local=OPEN.local, remote=OPEN.remote)
    _, (record,), archive = run(
        Poll([LISTENER]), Poll([LISTENER, OPEN]), Poll([LISTENER, waits], [event(OPEN, 3.0, bytes_acked=1)])
    )
    assert archive.owner(int(record["owner"])) == OPEN.owner
    assert (record["ending"], record["row"]["idiag_state"]) == (Ending.BY_US, State.ESTABLISHED)


def test_a_disconnected_socket_has_lost_its_figures() -> None:
    bare = replace(OPEN, local=("0.0.0.0", 80), remote=(OPEN.remote[0], 0))
    record = only(Poll([]), Poll([OPEN]), Poll([], [event(bare, 3.0, bytes_sent=5)]))
    assert (record["info_bytes"], record["ending"]) == (0, Ending.RESET_SENT)
    assert record["row"]["idiag_dport"] == OPEN.remote[1]


def test_a_disconnected_socket_that_nothing_else_reported_keeps_what_is_left_of_its_endpoints() -> None:
    bare = replace(OPEN, local=("0.0.0.0", 80), remote=(OPEN.remote[0], 0))
    record = only(Poll([]), Poll([], [event(bare, 1.0)]))
    for name in ("idiag_sport", "idiag_dport", "idiag_family", "idiag_dst"):
        assert np.array_equal(record["row"][name], make_table([bare])[0][name]), name


@pytest.mark.parametrize("one", [LISTENER, sock("CLOSED", "0.0.0.0:81", cookie=2)], ids=["listener", "bound"])
def test_a_socket_that_never_had_a_connection_leaves_no_record(one: Sock) -> None:
    step, records, _ = run(Poll([one, OPEN]), Poll([], [event(one, 1.0), event(OPEN, 1.0)]))
    assert [int(cookie) for cookie in records["cookie"]] == [OPEN.cookie]
    assert len(step.ended) == 1


@pytest.mark.parametrize(
    ("listeners", "inode", "state", "expected"),
    [
        ([], 0, "ESTAB", Ending.NOT_ACCEPTED),
        ([], 0, "CLOSE_WAIT", Ending.NOT_ACCEPTED),
        ([], 0, "FIN_WAIT_1", Ending.RESET_SENT),
        ([], 7, "ESTAB", Ending.RESET_SENT),
        ([LISTENER], 0, "ESTAB", Ending.RESET_SENT),
    ],
)
def test_a_connection_in_the_accept_queue_of_a_listener_that_closed(
    listeners: list[Sock], inode: int, state: str, expected: Ending
) -> None:
    waiting = replace(OPEN, process=None, inode=inode, state=State.parse(state))
    bare = replace(waiting, local=("0.0.0.0", 80), remote=(OPEN.remote[0], 0))
    _, records, _ = run(Poll([LISTENER, waiting]), Poll(listeners, [event(bare, 1.0)]))
    assert [int(one["ending"]) for one in records if one["cookie"] == OPEN.cookie] == [expected]


# Times ------------------------------------------------------------------------------------------

TIMES = {
    "an event": (3.0, 0.0, {}, NOW + 3.0, 1.001),
    "an event after the poll was read": (4.5, 0.0, {}, NOW + 4.0, 2.001),
    "the dump before began earlier than it was finished": (3.0, 1001.5, {}, NOW + 3.0, 1.501),
    "an event of the dump before": (1.0, 0.0, {}, NOW + 1.0, 0.001),
    "the last ACK came since that poll": (3.0, 0.0, {"last_ack_recv": 1000}, NOW + 3.0, 1.001),
    "the last ACK came before that poll, and no poll saw it": (3.0, 0.0, {"last_ack_recv": 1100}, NOW + 3.0, math.nan),
}


@pytest.mark.parametrize("name", TIMES)
def test_when_a_connection_ended_that_no_poll_saw(name: str) -> None:
    at, begun, info, end, slack_s = TIMES[name]
    record = only(Poll([]), Poll([], begin_monotonic_s=begun), Poll([], [event(OPEN, at, **info)]))
    assert (record["end"], record["origin"]) == (end, Origin.EVENT)
    assert record["end_slack"] == pytest.approx(slack_s, nan_ok=True)
    assert (record["begin"], record["begin_slack"]) == (record["end"], pytest.approx(slack_s, nan_ok=True))


def test_when_a_connection_ended_that_a_poll_saw() -> None:
    record = only(Poll([]), Poll([OPEN]), Poll([], [event(OPEN, 3.0, last_ack_recv=1100)]))
    assert (record["end"], record["begin"]) == (NOW + 3.0, NOW + 2.0)
    assert record["end_slack"] == pytest.approx(1.001), "a silent connection was still there in the poll before"
    assert record["begin_slack"] == PACE_S


def test_a_connection_seen_after_it_had_ended_began_no_later_than_it_ended() -> None:
    waits = replace(TIME_WAIT, cookie=7)
    record = only(Poll([]), Poll([waits], [event(replace(OPEN, cookie=7), 1.0)]))
    assert (record["begin"], record["end"]) == (NOW + 1.0, NOW + 1.0)
    assert record["begin_slack"] == PACE_S


def test_an_application_that_holds_a_closed_socket_does_not_make_it_end_later() -> None:
    waits = replace(OPEN, state=State.TIME_WAIT)
    record = only(Poll([]), Poll([OPEN]), Poll([waits]), Poll([waits]), Poll([], [event(OPEN, 7.0)]))
    assert (record["end"], record["end_slack"], record["origin"]) == (NOW + 4.0, PACE_S, Origin.POLL)
    closed = replace(OPEN, state=State.CLOSED)
    record = only(Poll([closed]), Poll([closed]), Poll([], [event(OPEN, 3.0)]))
    assert (record["end"], record["origin"]) == (NOW, Origin.POLL)
    assert math.isnan(record["end_slack"]), "it may have ended long before"
    assert record["state"] == 0


# With the trace ---------------------------------------------------------------------------------

CALLED = replace(CALLING, cookie=30)
CHANGES = ((0.5, "CLOSED", "SYN_SENT"), (0.6, "SYN_SENT", "ESTAB"), (0.9, "ESTAB", "CLOSED"))


def test_the_trace_knows_both_times_and_who_called() -> None:
    events_ = traced(CALLED, 21, *CHANGES)
    polls = Poll([LISTENER]), Poll([LISTENER], [event(CALLED, 1.0)], events_, callers={20: LISTENER.owner, 21: CALLER})  # type: ignore[dict-item]
    _, (record,), archive = run(*polls)
    assert archive.owner(int(record["owner"])) == CALLER
    assert record["begin"] == pytest.approx(NOW + 0.5)
    assert record["end"] == pytest.approx(NOW + 0.9)
    assert (record["begin_slack"], record["end_slack"], record["origin"]) == (0, 0, Origin.TRACE)
    assert (record["role"], record["state"]) == (Role.CLIENT, State.ESTABLISHED)


@pytest.mark.parametrize("callers", [{}, {20: CALLER}])
def test_a_caller_that_had_ended_is_unknown(callers: Mapping[int, Owner]) -> None:
    record = only(Poll([]), Poll([], [event(CALLED, 1.0)], traced(CALLED, 21, *CHANGES), callers=callers))
    assert record["owner"] == UNKNOWN_NOT_LOOKED


def test_who_holds_a_socket_is_better_known_than_who_called() -> None:
    _, (record,), archive = run(
        Poll([]),
        Poll([CALLED]),
        Poll([], [event(CALLED, 3.0)], traced(CALLED, 21, *CHANGES), callers={21: CALLER}),
    )
    assert archive.owner(int(record["owner"])) == CALLED.owner


def test_the_trace_shows_the_role_where_a_listener_would_mislead() -> None:
    own_port = replace(CALLED, local=("10.0.0.1", 80))
    record = only(Poll([LISTENER]), Poll([LISTENER], [event(own_port, 1.0)], traced(own_port, 21, *CHANGES)))
    assert record["role"] == Role.CLIENT
    accepted = ((0.5, "LISTEN", "SYN_RCVD"), (0.6, "SYN_RCVD", "ESTAB"), (0.9, "ESTAB", "CLOSED"))
    record = only(Poll([]), Poll([], [event(CALLED, 1.0)], traced(CALLED, 0, *accepted)))
    assert record["role"] == Role.SERVER


def test_the_trace_gives_a_disconnected_socket_its_ends_back() -> None:
    bare = replace(CALLED, local=("0.0.0.0", 4000), remote=("10.0.0.9", 0))
    record = only(Poll([]), Poll([], [event(bare, 1.0)], traced(CALLED, 21, *CHANGES)))
    row, truth = record["row"], make_table([CALLED])[0]
    for name in ("idiag_sport", "idiag_dport", "idiag_family"):
        assert row[name] == truth[name]
    assert row["idiag_src"].tolist() == truth["idiag_src"].tolist()


# A late event -----------------------------------------------------------------------------------


def test_a_late_event_adds_the_last_figures_and_the_ending() -> None:
    step, records, archive = run(
        Poll([LISTENER]),
        Poll([LISTENER, OPEN]),
        Poll([LISTENER]),
        Poll([LISTENER], [event(OPEN, 3.9, bytes_acked=1, bytes_received=9, data_segs_in=1)]),
    )
    first, last = records
    assert (first["ending"], last["ending"]) == (Ending.UNKNOWN, Ending.ORDERLY)
    assert (first["info_bytes"], last["info_bytes"]) == (0, uapi.TCP_INFO.itemsize)
    assert last["info"]["tcpi_bytes_received"] == 9
    assert (last["begin"], last["end"], last["end_slack"]) == (first["begin"], first["end"], first["end_slack"])
    assert (len(step.ended), archive.ended_ever) == (0, 1)
    found = archive.last_record(7)
    assert found is not None and found["ending"] == Ending.ORDERLY


def test_a_late_event_of_a_disconnected_socket_adds_no_figures() -> None:
    bare = replace(OPEN, local=("0.0.0.0", 80), remote=(OPEN.remote[0], 0))
    _, records, _ = run(Poll([]), Poll([OPEN]), Poll([]), Poll([], [event(bare, 3.9, bytes_acked=1)]))
    assert [int(one) for one in records["info_bytes"]] == [0, 0]
    assert [int(one) for one in records["ending"]] == [Ending.UNKNOWN, Ending.RESET_SENT]


def test_a_late_event_that_explains_nothing_leaves_the_ending() -> None:
    last_try = replace(CROSSED, retransmits=5)
    polls = Poll([]), Poll([last_try]), Poll([], sysctls={"tcp_synack_retries": 5})
    _, records, _ = run(*polls, Poll([], [event(last_try, 3.9)]))
    assert [int(one) for one in records["ending"]] == [Ending.TIMED_OUT, Ending.TIMED_OUT]


def test_an_event_is_not_late_for_a_socket_that_was_connected_again() -> None:
    again = replace(OPEN, remote=("10.0.0.9", 4444))
    last = event(again, 7.0, bytes_received=9)
    step, records, archive = run(Poll([]), Poll([OPEN]), Poll([]), Poll([again]), Poll([], [last]))
    assert [int(one["row"]["idiag_dport"]) for one in records] == [4000, 4444]
    assert [int(one["info"]["tcpi_bytes_received"]) for one in records] == [0, 9]
    assert (len(step.ended), archive.ended_ever) == (1, 2)


def test_an_event_is_late_for_a_socket_that_is_held_closed() -> None:
    held = replace(OPEN, state=State.CLOSED)
    polls = Poll([]), Poll([OPEN]), Poll([held]), Poll([held]), Poll([], [event(OPEN, 7.0, bytes_received=9)])
    step, records, archive = run(*polls)
    assert [float(one["end"]) for one in records] == [NOW + 4.0, NOW + 4.0]
    assert [int(one["info"]["tcpi_bytes_received"]) for one in records] == [0, 9]
    assert (len(step.ended), archive.ended_ever) == (0, 1)
