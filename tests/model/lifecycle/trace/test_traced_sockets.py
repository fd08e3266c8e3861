"""The trace's events brought together by socket; stories of one kernel address, event by event."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind
from tcpwatch.model.lifecycle.trace.polled_sockets import PolledSockets
from tcpwatch.model.lifecycle.trace.traced_sockets import MATCH_TIMEOUT_S, TracedSockets, TraceStep
from tcpwatch.model.states import State

ADDRESS = 0xFFFF_8880_0000_1000
OURS = {7, 8}
KINDS = {
    "destroyed": TraceEventKind.DESTROYED,
    "reset": TraceEventKind.RESET_SENT,
    "received": TraceEventKind.RESET_RECEIVED,
}


def events(text: str, begin: float) -> NDArray[np.void]:
    """`SYN_SENT>ESTABLISHED`, `destroyed 7`, `reset CLOSED`: a millisecond apart, all of one address."""
    parts = [part.split() for part in text.split("|")]
    table = np.zeros(len(parts), TRACE_EVENT)
    table["time"], table["socket"] = begin + 0.001 * np.arange(len(parts)), ADDRESS
    table["sport"], table["dport"] = 1000, 80
    for row, (word, *more) in zip(table, parts, strict=True):
        if ">" in word:
            row["kind"] = TraceEventKind.STATE
            row["old"], row["new"] = (State.parse(name) for name in word.split(">"))
        else:
            row["kind"] = KINDS[word]
            if word == "destroyed":
                row["cookie"] = int(more[0])
            elif more:
                row["old"] = row["new"] = State.parse(more[0])
    return table


def follow(traced: TracedSockets, text: str, begin: float) -> TraceStep:
    """One step."""
    nobody = polled(FLOW[:0], np.empty(0, np.uint64))
    trace_events = events(text, begin) if text else np.empty(0, TRACE_EVENT)
    return traced.step(trace_events, begin + 0.1, lambda cookies: np.isin(cookies, list(OURS)), lambda *_: nobody)


CLIENT = "CLOSED>SYN_SENT | SYN_SENT>ESTABLISHED | ESTABLISHED>FIN_WAIT_1"


def test_a_life_in_one_step() -> None:
    found = follow(TracedSockets(), f"{CLIENT} | FIN_WAIT_1>CLOSED | destroyed 7", 10.0)
    (seen,) = found.ended
    assert (seen["cookie"], seen["last_state"], seen["begin"]) == (7, State.FIN_WAIT_1, 10.0)
    assert seen["closed"] == pytest.approx(10.003)
    assert set(found.events["cookie"].tolist()) == {7}
    assert (found.foreign_sockets, found.unmatched_sockets) == (0, 0)


def test_a_reset_after_the_end_is_its_own_and_what_follows_is_another_s() -> None:
    """Data met a closed socket; its address is given out again at once, to another namespace."""
    text = f"{CLIENT} | received | FIN_WAIT_1>CLOSED | destroyed 7 | reset CLOSED | {CLIENT}"
    found = follow(TracedSockets(), text, 10.0)
    (seen,) = found.ended
    assert (seen["cookie"], seen["reset_in_state"], seen["reset_received"]) == (7, State.CLOSED, True)
    assert len(found.events) == 7


def test_a_connection_over_two_steps_at_the_address_of_a_foreign_one() -> None:
    traced = TracedSockets()
    follow(traced, f"{CLIENT} | FIN_WAIT_1>CLOSED | destroyed 99", 10.0)
    assert not len(follow(traced, CLIENT, 10.2).ended)
    found = follow(traced, "FIN_WAIT_1>CLOSED | destroyed 8", 10.4)
    (seen,) = found.ended
    assert (seen["cookie"], seen["begin"], seen["last_state"]) == (8, 10.2, State.FIN_WAIT_1)


def test_a_foreign_socket_is_known_after_the_timeout() -> None:
    traced = TracedSockets()
    assert follow(traced, f"{CLIENT} | FIN_WAIT_1>CLOSED | destroyed 99", 10.0).foreign_sockets == 0
    assert follow(traced, "", 10.0 + MATCH_TIMEOUT_S).foreign_sockets == 1
    assert traced.idle


def test_only_the_last_life_of_a_socket_counts() -> None:
    """Refused, then connected again with the same socket."""
    again = f"CLOSED>SYN_SENT | received | SYN_SENT>CLOSED | {CLIENT} | FIN_WAIT_1>CLOSED | destroyed 7"
    (seen,) = follow(TracedSockets(), again, 10.0).ended
    assert (seen["reset_received"], seen["last_state"]) == (False, State.FIN_WAIT_1)
    assert seen["begin"] == pytest.approx(10.003)


# Every field of a connection, in one step and in two ---------------------------------------------

Row = dict[str, int]
"""One trace event, as fields of TRACE_EVENT."""
FLOW = np.zeros(1, uapi.SOCKET)
FLOW["idiag_sport"], FLOW["idiag_dport"] = 1000, 80


def change(old: str, new: str, **fields: int) -> Row:
    return {"kind": TraceEventKind.STATE, "old": State.parse(old), "new": State.parse(new), **fields}


def reset(state: str, reason: int) -> Row:
    return {"kind": TraceEventKind.RESET_SENT, "old": State.parse(state), "new": State.parse(state), "reason": reason}


def close(cookie: int = 7) -> Row:
    """The last event; a socket that was disconnected has no ends any more."""
    return {"kind": TraceEventKind.DESTROYED, "cookie": cookie, "sport": 0, "dport": 0}


CONNECT = change("CLOSED", "SYN_SENT", pid=41, sport=0)  # the kernel has chosen no port yet
ESTABLISH = change("SYN_SENT", "ESTABLISHED", pid=99)  # whoever ran
ACCEPT = change("LISTEN", "SYN_RCVD", pid=98)
ACCEPTED = change("SYN_RCVD", "ESTABLISHED", pid=97)
FIN = change("ESTABLISHED", "FIN_WAIT_1")
END = change("FIN_WAIT_1", "CLOSED")
AGAIN: Row = {"kind": TraceEventKind.RETRANSMIT}
RECEIVED: Row = {"kind": TraceEventKind.RESET_RECEIVED, "old": State.ESTABLISHED, "new": State.ESTABLISHED}
ERROR: Row = {"kind": TraceEventKind.ERROR, "reason": 110}


def bits(*names: str) -> int:
    return sum(1 << State.parse(name) for name in names)


# The events, a millisecond apart; and the fields of the TRACED_SOCKET that are not 0. Times are milliseconds.
WHOLE: dict[str, tuple[list[Row], dict[str, float]]] = {
    "a client": (
        [CONNECT, ESTABLISH, FIN, END, close()],
        {"begin": 0, "closed": 3, "destroyed": 4, "latest_event": 4, "pid": 41, "last_state": State.FIN_WAIT_1,
         "visited": bits("CLOSED", "SYN_SENT", "ESTABLISHED", "FIN_WAIT_1")},
    ),
    "a server": (
        [ACCEPT, ACCEPTED, FIN, END, close()],
        {"begin": 0, "closed": 3, "destroyed": 4, "latest_event": 4, "last_state": State.FIN_WAIT_1,
         "visited": bits("LISTEN", "SYN_RCVD", "CLOSED", "ESTABLISHED", "FIN_WAIT_1")},
    ),
    "with retransmits": (
        [CONNECT, AGAIN, ESTABLISH, AGAIN, AGAIN, FIN, END, close()],
        {"begin": 0, "closed": 6, "destroyed": 7, "latest_event": 7, "pid": 41, "last_state": State.FIN_WAIT_1,
         "retransmitted": 3, "visited": bits("CLOSED", "SYN_SENT", "ESTABLISHED", "FIN_WAIT_1")},
    ),
    "reset by the peer": (
        [CONNECT, ESTABLISH, RECEIVED, change("ESTABLISHED", "CLOSED"), close()],
        {"begin": 0, "closed": 3, "destroyed": 4, "latest_event": 4, "pid": 41, "last_state": State.ESTABLISHED,
         "reset_received": 1, "visited": bits("CLOSED", "SYN_SENT", "ESTABLISHED")},
    ),
    "two resets are sent": (
        [CONNECT, ESTABLISH, reset("ESTABLISHED", 5), FIN, reset("FIN_WAIT_1", 6), END, close()],
        {"begin": 0, "closed": 5, "destroyed": 6, "latest_event": 6, "pid": 41, "last_state": State.FIN_WAIT_1,
         "reset_in_state": State.FIN_WAIT_1, "reset_reason": 6,
         "visited": bits("CLOSED", "SYN_SENT", "ESTABLISHED", "FIN_WAIT_1")},
    ),
    "a reset without a reason": (
        [CONNECT, ESTABLISH, reset("ESTABLISHED", 0), change("ESTABLISHED", "CLOSED"), close()],
        {"begin": 0, "closed": 3, "destroyed": 4, "latest_event": 4, "pid": 41, "last_state": State.ESTABLISHED,
         "reset_in_state": State.ESTABLISHED, "visited": bits("CLOSED", "SYN_SENT", "ESTABLISHED")},
    ),
    "an error": (
        [CONNECT, AGAIN, change("SYN_SENT", "CLOSED"), ERROR, close()],
        {"begin": 0, "closed": 2, "destroyed": 4, "latest_event": 4, "pid": 41, "last_state": State.SYN_SENT,
         "error": 110, "retransmitted": 1, "visited": bits("CLOSED", "SYN_SENT")},
    ),
    "held after its end": (
        [CONNECT, ESTABLISH, FIN, END, reset("CLOSED", 4), close()],
        {"begin": 0, "closed": 3, "destroyed": 5, "latest_event": 5, "pid": 41, "last_state": State.FIN_WAIT_1,
         "reset_in_state": State.CLOSED, "reset_reason": 4,
         "visited": bits("CLOSED", "SYN_SENT", "ESTABLISHED", "FIN_WAIT_1")},
    ),
    "connected again after it was refused": (
        [CONNECT, AGAIN, RECEIVED, reset("SYN_SENT", 3), change("SYN_SENT", "CLOSED"), ERROR,
         change("CLOSED", "SYN_SENT", pid=42), ESTABLISH, FIN, END, close()],
        {"begin": 6, "closed": 9, "destroyed": 10, "latest_event": 10, "pid": 42, "last_state": State.FIN_WAIT_1,
         "visited": bits("CLOSED", "SYN_SENT", "ESTABLISHED", "FIN_WAIT_1")},
    ),
    "no local port": (
        [CONNECT, change("SYN_SENT", "CLOSED", sport=0), close()],
        {"begin": 0, "closed": 1, "destroyed": 2, "latest_event": 2, "pid": 41, "last_state": State.SYN_SENT,
         "no_port": 1, "visited": bits("CLOSED", "SYN_SENT")},
    ),
    "no local port at first": (
        [CONNECT, change("SYN_SENT", "CLOSED", sport=0), change("CLOSED", "SYN_SENT", pid=42), ESTABLISH, FIN, END,
         close()],
        {"begin": 2, "closed": 5, "destroyed": 6, "latest_event": 6, "pid": 42, "last_state": State.FIN_WAIT_1,
         "visited": bits("CLOSED", "SYN_SENT", "ESTABLISHED", "FIN_WAIT_1")},
    ),
    "its beginning was not traced": (
        [ESTABLISH, FIN, END, close()],
        {"closed": 2, "destroyed": 3, "latest_event": 3, "last_state": State.FIN_WAIT_1,
         "visited": bits("CLOSED", "SYN_SENT", "ESTABLISHED", "FIN_WAIT_1")},
    ),
}  # fmt: skip


def trace(rows: list[Row], address: int = ADDRESS, begin: float = 10.0) -> NDArray[np.void]:
    table = np.zeros(len(rows), TRACE_EVENT)
    table["time"], table["socket"] = begin + 0.001 * np.arange(len(rows)), address
    table["sport"], table["dport"] = 1000, 80
    for row, fields in zip(table, rows, strict=True):
        for name, value in fields.items():
            row[name] = value
    return table


def fields_of(seen: np.void) -> dict[str, float]:
    """The fields of a TRACED_SOCKET that are not 0, times as milliseconds after 10 s."""
    found: dict[str, float] = {}
    for name in ("begin", "closed", "destroyed", "latest_event"):
        if not np.isnan(seen[name]):
            found[name] = round(1000 * (float(seen[name]) - 10), 3)
    names = (
        "pid",
        "visited",
        "retransmitted",
        "reset_reason",
        "error",
        "last_state",
        "reset_in_state",
        "reset_received",
        "no_port",
    )
    return found | {name: int(seen[name]) for name in names if seen[name]}


def step(traced: TracedSockets, table: NDArray[np.void], now: float, flows: NDArray[np.void] = FLOW) -> TraceStep:
    """One step; the polls saw connection 7 with the ends of FLOW."""
    found = polled(flows, np.full(len(flows), 7, np.uint64))
    return traced.step(table, now, lambda cookies: np.isin(cookies, list(OURS)), lambda *_: found)


def polled(table: NDArray[np.void], cookies: NDArray[np.uint64]) -> PolledSockets:
    yes = np.ones(len(table), np.bool_)
    return PolledSockets(table, cookies, yes, yes)


@pytest.mark.parametrize("name", WHOLE)
def test_every_fact_of_the_trace_about_a_connection(name: str) -> None:
    rows, expected = WHOLE[name]
    table = trace(rows)
    (seen,) = step(TracedSockets(), table, 10.1).ended
    assert fields_of(seen) == expected
    port = 0 if "no_port" in expected else 1000
    assert (seen["cookie"], seen["socket"], seen["endpoints"]["sport"], seen["endpoints"]["dport"]) == (
        7, ADDRESS, port, 80,
    )  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_two_steps_give_the_same_as_one(name: str) -> None:
    rows, expected = WHOLE[name]
    table = trace(rows)
    for known in (True, False):  # whether the first step finds the connection among those that a poll saw
        for split in range(1, len(table)):
            traced = TracedSockets()
            first = step(traced, table[:split], 10.05, FLOW if known else FLOW[:0])
            second = step(traced, table[split:], 10.1, FLOW[:0])
            (seen,) = second.ended
            assert fields_of(seen) == expected, f"in two steps at {split}"
            port = 0 if "no_port" in expected else 1000
            assert (seen["cookie"], seen["endpoints"]["sport"], seen["endpoints"]["dport"]) == (7, port, 80)
            assert not len(first.ended)
            assert len(first.events) + len(second.events) == len(table)
            assert set(first.events["cookie"].tolist()) | set(second.events["cookie"].tolist()) == {7}


def idle(traced: TracedSockets) -> bool:
    """Return `traced.idle`; mypy would take a property that was asserted once as unchanged."""
    return traced.idle


def test_a_closed_socket_that_is_held_is_reported_in_each_step() -> None:
    traced = TracedSockets()
    assert idle(traced)
    assert not len(step(traced, trace([CONNECT, ESTABLISH]), 10.1).closed)
    assert idle(traced), "an open connection needs no step"
    table = trace([change("ESTABLISHED", "CLOSED")], begin=10.2)
    for _ in range(2):
        (seen,) = step(traced, table, 10.3).closed
        assert (seen["cookie"], seen["last_state"]) == (7, State.ESTABLISHED)
        assert not idle(traced)
        table = table[:0]
    found = step(traced, trace([close()], begin=10.4), 10.5)
    assert (len(found.closed), len(found.ended)) == (0, 1)
    assert idle(traced)


def test_two_sockets_with_the_same_ends_are_nobody_s() -> None:
    """They are of two namespaces."""
    both = np.concatenate((trace([CONNECT, ESTABLISH]), trace([CONNECT, ESTABLISH], ADDRESS + 64)))
    found = step(TracedSockets(), both, 10.1)
    assert len(found.events) == 0
    other_ends = np.concatenate((trace([CONNECT, ESTABLISH]), trace([CONNECT, ESTABLISH], ADDRESS + 64)))
    other_ends["sport"][2:] += 1
    assert step(TracedSockets(), other_ends, 10.1).events["socket"].tolist() == [ADDRESS] * 2


def test_one_connection_among_many_sockets_of_the_trace() -> None:
    rows = [{**ESTABLISH, "socket": ADDRESS + 64 * port, "sport": port} for port in range(990, 1010)]
    found = step(TracedSockets(), trace(rows), 10.1)
    assert [(int(one["sport"]), int(one["cookie"])) for one in found.events] == [(1000, 7)]


def test_many_connections_are_found_by_their_ends() -> None:
    ports = (5000, 1000, 3000, 7000, 2000)
    flows = np.repeat(FLOW, len(ports))
    flows["idiag_sport"] = ports
    rows = [{**ESTABLISH, "socket": ADDRESS + 64 * port, "sport": port} for port in (7000, 1000, 2500, 9000, 3000, 5)]
    cookies = np.array([int(port) + 1 for port in ports], np.uint64)
    found = polled(flows, cookies)
    seen = TracedSockets().step(trace(rows), 10.1, lambda them: np.isin(them, cookies), lambda *_: found)
    by_port = {int(one["sport"]): int(one["cookie"]) for one in seen.events}
    assert by_port == {7000: 7001, 1000: 1001, 3000: 3001}


def test_our_own_sockets_are_not_foreign_however_late_they_are_read() -> None:
    found = step(TracedSockets(), trace([CONNECT, ESTABLISH, close()]), 10.1 + 2 * MATCH_TIMEOUT_S)
    assert (found.foreign_sockets, found.unmatched_sockets, len(found.ended)) == (0, 0, 1)


def test_a_connection_is_one_socket_s() -> None:
    traced = TracedSockets()
    assert len(step(traced, trace([CONNECT, ESTABLISH]), 10.1).events) == 2
    later = step(traced, trace([CONNECT, ESTABLISH], ADDRESS + 64, begin=10.2), 10.3)
    assert len(later.events) == 0, "the connection is already known by another address"
    named = np.concatenate((trace([CONNECT, close()]), trace([CONNECT, ESTABLISH], ADDRESS + 64)))
    found = step(TracedSockets(), named, 10.1)
    assert found.events["socket"].tolist() == [ADDRESS] * 2, "another socket has named the cookie"


def test_what_waits_is_unsure_after_a_while_and_foreign_once_it_is_destroyed() -> None:
    traced = TracedSockets()
    counts = [
        step(traced, trace([CONNECT, ESTABLISH]), 10.0, FLOW[:0]),
        step(traced, trace([]), 10.0 + MATCH_TIMEOUT_S, FLOW[:0]),
        step(traced, trace([]), 10.001 + MATCH_TIMEOUT_S, FLOW[:0]),
        step(traced, trace([close(99)], begin=12.0), 12.0 + MATCH_TIMEOUT_S, FLOW[:0]),
        step(traced, trace([]), 12.001 + MATCH_TIMEOUT_S, FLOW[:0]),
        step(traced, trace([]), 20.0, FLOW[:0]),
    ]
    assert [(one.foreign_sockets, one.unmatched_sockets) for one in counts] == [
        (0, 0),
        (0, 0),
        (0, 1),
        (0, 1),
        (1, 0),
        (0, 0),
    ]


@pytest.mark.parametrize(
    ("rows", "taken"),
    [
        ([change("CLOSED", "LISTEN"), change("LISTEN", "CLOSED"), close()], 1),
        ([ACCEPT, ACCEPTED, close()], 3),
        ([reset("LISTEN", 1), close()], 1),
        ([reset("TIME_WAIT", 1), close()], 1),
        ([{**reset("LISTEN", 1), "old": 12, "new": 12}, close()], 1),
        ([{**reset("LISTEN", 1), "old": 0, "new": 0}, close()], 1),
        ([reset("SYN_RCVD", 1), close()], 2),
        ([{"kind": TraceEventKind.SYNACK_RETRANSMIT}, close()], 1),
        ([{"kind": TraceEventKind.DROP}, ESTABLISH, close()], 3),
        ([ESTABLISH, {"kind": TraceEventKind.DROP, "socket": 5}, close()], 2),
        ([{**ESTABLISH, "socket": 0}, close()], 1),
    ],
)
def test_events_of_no_connection_are_left_out(rows: list[Row], taken: int) -> None:
    assert len(step(TracedSockets(), trace(rows), 10.1).events) == taken


def test_a_drop_counts_for_a_socket_that_is_known() -> None:
    traced = TracedSockets()
    step(traced, trace([CONNECT, ESTABLISH]), 10.1)
    found = step(traced, trace([{"kind": TraceEventKind.DROP}], begin=10.2), 10.3)
    assert found.events["cookie"].tolist() == [7]


def test_an_address_given_out_again_is_another_connection_s() -> None:
    traced = TracedSockets()
    step(traced, trace([CONNECT, ESTABLISH]), 10.1)
    flow = FLOW.copy()
    flow["idiag_sport"] = 2000
    rows = [{**row, "sport": 2000} for row in (ACCEPT, ACCEPTED, FIN, END)]
    later = trace([*rows, close(8)], begin=10.2)
    (seen,) = step(traced, later, 10.3, flow).ended
    assert (seen["cookie"], seen["begin"], seen["pid"]) == (8, 10.2, 0)
    assert seen["visited"] == bits("LISTEN", "SYN_RCVD", "CLOSED", "ESTABLISHED", "FIN_WAIT_1")


def test_an_address_given_out_again_after_a_lost_end_is_another_connection_s() -> None:
    """The event of the end of the first connection, which was closed, was lost."""
    traced = TracedSockets()
    assert len(step(traced, trace([CONNECT, ESTABLISH, FIN, END]), 10.1).closed) == 1
    (seen,) = step(traced, trace([ACCEPT, ACCEPTED, close(8)], begin=10.2), 10.3, FLOW[:0]).ended
    assert (seen["cookie"], seen["visited"]) == (8, bits("LISTEN", "SYN_RCVD", "ESTABLISHED"))


def test_a_socket_that_is_connected_again_is_known_before_a_poll_sees_it() -> None:
    traced = TracedSockets()
    assert len(step(traced, trace([CONNECT, change("SYN_SENT", "CLOSED")]), 10.1).closed) == 1
    again = step(traced, trace([CONNECT, ESTABLISH], begin=10.2), 10.3, FLOW[:0])
    assert again.events["cookie"].tolist() == [7, 7]


def test_several_sockets_in_one_step() -> None:
    sockets = [trace([*WHOLE[name][0][:-1], close(7 + at % 2)], ADDRESS + 64 * at) for at, name in enumerate(WHOLE)]
    for table in sockets:
        table["sport"][table["sport"] != 0] = table["socket"][0] % 60_000
    together = np.concatenate(sockets)
    together = together[np.argsort(together["time"], kind="stable")]
    found = step(TracedSockets(), together, 10.5, FLOW[:0])
    by_address = {int(seen["socket"]): fields_of(seen) for seen in found.ended}
    assert by_address == {ADDRESS + 64 * at: WHOLE[name][1] for at, name in enumerate(WHOLE)}
    assert found.ended["cookie"].tolist() == sorted(found.ended["cookie"].tolist())


def test_of_too_many_waiting_events_the_newest_half_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[TracedSockets.__module__], "KEPT_EVENTS", 10)
    rows = [{**ESTABLISH, "socket": ADDRESS + 64 * at} for at in range(11)]
    for count, events in ((10, [1] * 10), (11, [0] * 6 + [1] * 5)):
        traced = TracedSockets()
        step(traced, trace(rows[:count]), 10.1, FLOW[:0])
        ends = [{**close(), "socket": ADDRESS + 64 * at} for at in range(count)]
        found = step(traced, trace(ends, begin=10.2), 10.3, FLOW[:0])
        addresses = found.events["socket"][found.events["kind"] == TraceEventKind.STATE].tolist()
        assert [addresses.count(ADDRESS + 64 * at) for at in range(count)] == events


RETRANSMITS = [{**AGAIN, "old": State.ESTABLISHED, "new": State.ESTABLISHED}]
MATCHES: dict[str, tuple[list[Row], list[bool], list[bool], bool]] = {
    "an old connection retransmits": (RETRANSMITS, [True], [True], True),
    "tcp_info shows that it has never retransmitted": (RETRANSMITS, [True], [False], False),
    "a new one is younger than its tcp_info": ([ACCEPT, ACCEPTED, *RETRANSMITS], [True], [False], True),
    "two sockets have the endpoints": (RETRANSMITS, [True, True], [True, True], False),
    "one of them is a TIME_WAIT": (RETRANSMITS, [False, True], [True, True], True),
    "the only one is a TIME_WAIT": (RETRANSMITS, [False], [True], False),
    "the socket that closed continues in TIME_WAIT": ([*RETRANSMITS, END], [False], [True], True),
    "it closed after the poll": ([*RETRANSMITS, END], [True], [True], True),
    "one closed, and one is open": ([*RETRANSMITS, END], [False, True], [True, True], False),
}
"""Trace events; of each polled socket with their endpoints, whether it is a full one and may retransmit; the result."""


@pytest.mark.parametrize("name", MATCHES)
def test_matching_by_endpoints(name: str) -> None:
    rows, full, retransmit, matched = MATCHES[name]
    cookies = np.where(full, 7, 8).astype(np.uint64)
    found = PolledSockets(np.repeat(FLOW, len(full)), cookies, np.array(full), np.array(retransmit))
    seen = TracedSockets().step(trace(rows), 10.1, lambda them: np.isin(them, list(OURS)), lambda *_: found)
    assert len(seen.events) == (len(rows) if matched else 0)
    assert set(seen.events["cookie"].tolist()) <= {7 if full[-1] else 8}


def test_a_socket_is_looked_for_in_two_polls_after_its_latest_event() -> None:
    traced = TracedSockets()
    nothing, asked = trace([]), []

    def polled_later(local: NDArray[np.uint16], remote: NDArray[np.uint16], old: bool) -> PolledSockets:
        asked.append((local.tolist(), remote.tolist(), old))
        return polled(FLOW[:0], np.empty(0, np.uint64))

    def ours(cookies: NDArray[np.uint64]) -> NDArray[np.bool_]:
        return np.isin(cookies, list(OURS))

    for at, events in enumerate((nothing, nothing, trace(RETRANSMITS), nothing, nothing, nothing)):
        table = events.copy()
        table["time"] += at
        traced.step(table, 10.1 + at, ours, polled_later)
    assert asked == [([1000], [80], True)] * 2
    connected = trace([{**CONNECT, "sport": 1001}, {**ESTABLISH, "sport": 1001}], ADDRESS + 64, 20.0)
    traced.step(connected, 20.1, ours, polled_later)
    assert asked[2:] == [([1001], [80], False)]
