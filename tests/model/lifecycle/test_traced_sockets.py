"""The trace's events brought together by socket; stories of one kernel address, event by event."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind
from tcpwatch.model.lifecycle.traced_sockets import MATCH_TIMEOUT_S, TracedSockets, TraceStep
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


def follow(threads: TracedSockets, text: str, begin: float) -> TraceStep:
    """One step."""
    nobody = np.empty(0, uapi.SOCKET), np.empty(0, np.uint64)
    told = events(text, begin) if text else np.empty(0, TRACE_EVENT)
    return threads.step(told, begin + 0.1, lambda cookies: np.isin(cookies, list(OURS)), lambda: nobody)


CLIENT = "CLOSED>SYN_SENT | SYN_SENT>ESTABLISHED | ESTABLISHED>FIN_WAIT_1"


def test_a_life_in_one_step() -> None:
    found = follow(TracedSockets(), f"{CLIENT} | FIN_WAIT_1>CLOSED | destroyed 7", 10.0)
    (thread,) = found.ended
    assert (thread["cookie"], thread["last"], thread["begin"]) == (7, State.FIN_WAIT_1, 10.0)
    assert thread["closed"] == pytest.approx(10.003)
    assert set(found.events["cookie"].tolist()) == {7}
    assert (found.foreign_sockets, found.unmatched_sockets) == (0, 0)


def test_a_reset_after_the_end_is_its_own_and_what_follows_is_another_s() -> None:
    """Data met a closed socket; its address is given out again at once, to another namespace."""
    text = f"{CLIENT} | received | FIN_WAIT_1>CLOSED | destroyed 7 | reset CLOSED | {CLIENT}"
    found = follow(TracedSockets(), text, 10.0)
    (thread,) = found.ended
    assert (thread["cookie"], thread["reset_in"], thread["reset_received"]) == (7, State.CLOSED, True)
    assert len(found.events) == 7


def test_a_life_over_two_steps_at_an_address_that_a_stranger_had() -> None:
    threads = TracedSockets()
    follow(threads, f"{CLIENT} | FIN_WAIT_1>CLOSED | destroyed 99", 10.0)
    assert not len(follow(threads, CLIENT, 10.2).ended)
    found = follow(threads, "FIN_WAIT_1>CLOSED | destroyed 8", 10.4)
    (thread,) = found.ended
    assert (thread["cookie"], thread["begin"], thread["last"]) == (8, 10.2, State.FIN_WAIT_1)


def test_a_stranger_is_known_after_a_while() -> None:
    threads = TracedSockets()
    assert follow(threads, f"{CLIENT} | FIN_WAIT_1>CLOSED | destroyed 99", 10.0).foreign_sockets == 0
    assert follow(threads, "", 10.0 + MATCH_TIMEOUT_S).foreign_sockets == 1
    assert threads.idle


def test_only_the_last_life_of_a_socket_counts() -> None:
    """Refused, then connected again with the same socket."""
    again = f"CLOSED>SYN_SENT | received | SYN_SENT>CLOSED | {CLIENT} | FIN_WAIT_1>CLOSED | destroyed 7"
    (thread,) = follow(TracedSockets(), again, 10.0).ended
    assert (thread["reset_received"], thread["last"]) == (False, State.FIN_WAIT_1)
    assert thread["begin"] == pytest.approx(10.003)
