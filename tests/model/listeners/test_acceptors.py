"""Which of the processes that hold a listener are named: those that accept, if accepted connections prove it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NOT_LOOKED, UNKNOWN_PERMISSION, Owner
from tcpwatch.kernel.proc.process import Process
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind, TraceEvents
from tcpwatch.model.listeners.acceptors import accepted_owners
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_analysis import QueueAnalysis
from tcpwatch.model.states import State
from tcpwatch.sample import Sample
from tests.support.polls import polls
from tests.support.views import NOW, make_rows, make_sample, sock


def process(pid: int, name: str, started_s: float = -3600.0) -> Process:
    """Return a process that was started so many seconds after the first sample."""
    return Process(pid, name, name, 0, "root", NOW + started_s)


SYSTEMD, APP = process(1, "systemd", -9999), process(12, "app")
MASTER, *WORKERS = (process(20 + at, "nginx") for at in range(4))
Held = tuple[str, tuple[Process, ...]]
"""A socket's spec: `LISTEN 80`, `ESTAB 4000`; and its holders."""


@dataclass(frozen=True)
class Case:
    """Samples a second apart, and how the listener is named in the end."""

    samples: Sequence[Sequence[Held]]
    process: str
    application: str
    holders: str


def taken(second: float, held: Sequence[Held], **facts: Any) -> Sample:
    """Return a sample; the cookie of a connection is its port, that of a listener counts from 1."""
    socks = []
    for at, (spec, _) in enumerate(held, 1):
        state, port = spec.split()
        local = "0.0.0.0:80" if state == "LISTEN" else "10.0.0.1:80"
        remote = "0.0.0.0:0" if state == "LISTEN" else f"192.0.2.1:{port}"
        socks.append(sock(state, local, remote, cookie=at if state == "LISTEN" else int(port), inode=int(port)))
    rows = make_rows(socks, time=NOW + second)
    owners = list(dict.fromkeys(Owner(processes) for _, processes in held if processes))
    by_cookie = {s.cookie: Owner(processes) for s, (_, processes) in zip(socks, held, strict=True) if processes}
    codes = [owners.index(by_cookie[c]) if c in by_cookie else UNKNOWN_PERMISSION for c in rows.cookie.tolist()]
    given = {"monotonic": second, "owner": np.array(codes, np.int32), "owners": owners, **facts}
    return make_sample(rows, **given)


def seen(samples: Sequence[Sequence[Held]]) -> Sequence[Listener]:
    queues = QueueAnalysis(0.8)
    for poll in polls(*(taken(float(second), held) for second, held in enumerate(samples))):
        result = queues.step(poll)
    return result.listeners


ACTIVATED: Held = ("LISTEN 80", (SYSTEMD, APP))
FORKED: Held = ("LISTEN 80", (MASTER, *WORKERS))
SHARED: Held = ("LISTEN 80", tuple(WORKERS))
HELD = "held by systemd[1], app[12]"
POOL = "held by nginx[20], nginx[21], nginx[22] and 1 more"
CASES = {
    "the only holder": Case([[("LISTEN 80", (APP,))]], "app[12]", "app[12]", ""),
    "nothing was accepted": Case([[ACTIVATED]], "app[12] +1", "the application", HELD),
    "a new connection": Case(
        [[ACTIVATED], [ACTIVATED], [ACTIVATED, ("ESTAB 4000", (APP,))]], "app[12]", "app[12]",
        HELD + "; accepted by app[12]",
    ),
    "an accepted connection that has closed": Case(
        [[ACTIVATED], [ACTIVATED, ("ESTAB 4000", (APP,))], [ACTIVATED]], "app[12]", "app[12]",
        HELD + "; accepted by app[12]",
    ),
    "an old connection of the only program of that name": Case(
        [[ACTIVATED, ("ESTAB 4000", (APP,))]], "app[12]", "the application", HELD + "; connections held by app[12]"
    ),
    "the manager accepts": Case(
        [[ACTIVATED], [ACTIVATED, ("ESTAB 4000", (SYSTEMD,))]], "systemd[1]", "systemd[1]",
        HELD + "; accepted by systemd[1]",
    ),
    "a pool, and nothing was accepted": Case([[FORKED]], "nginx[20] +3", "the application", POOL),
    "a pool of which one accepts": Case(
        [[FORKED], [FORKED, ("ESTAB 4000", (WORKERS[1],))]], "nginx[22]", "nginx[22]",
        POOL + "; accepted by nginx[22]",
    ),
    "a pool of which two accept": Case(
        [[FORKED], [FORKED, ("ESTAB 4000", (WORKERS[1],)), ("ESTAB 4001", (WORKERS[0],))]], "nginx[21] +1",
        "nginx[21], nginx[22]", POOL + "; accepted by nginx[21], nginx[22]",
    ),
    "a pool with one old connection": Case(
        [[FORKED, ("ESTAB 4000", (WORKERS[1],))]], "nginx[20] +3", "the application", POOL
    ),
    "a pool with two old connections": Case(
        [[FORKED, ("ESTAB 4000", (WORKERS[1],)), ("ESTAB 4001", (WORKERS[1],))]], "nginx[22]", "the application",
        POOL + "; connections held by nginx[22]",
    ),
    "a connection that two hold": Case(
        [[FORKED], [FORKED, ("ESTAB 4000", (MASTER, WORKERS[0]))]], "nginx[20] +3", "the application", POOL
    ),
    "everybody accepts": Case(
        [[SHARED], [SHARED, *((f"ESTAB {worker.pid}", (worker,)) for worker in WORKERS)]],
        "nginx[21] +2", "nginx[21], nginx[22], nginx[23]", "",
    ),
    "of an unknown owner": Case([[("LISTEN 80", ())]], "", "the application", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_process_that_is_named(name: str) -> None:
    case = CASES[name]
    (listener,) = seen(case.samples)
    assert (listener.process, listener.application, listener.holders) == (case.process, case.application, case.holders)


def test_a_child_that_was_started_later_has_inherited_the_connection() -> None:
    """A server forks for each connection; its child keeps the listener open, and the server closes the connection."""
    child = process(99, "server", 1.5)
    both: Held = ("LISTEN 80", (replace(APP, name="server"), child))
    (listener,) = seen([[], [both], [both, ("ESTAB 4000", (child,))], [both, ("ESTAB 4000", (child,))]])
    assert (listener.accepted_by, listener.holders) == ((), "held by server[12], server[99]")


def test_the_first_holder_that_is_found_need_not_be_the_only_one() -> None:
    alone: Held = ("LISTEN 80", (WORKERS[0],))
    samples = [taken(0.0, [alone], holders_known=False), taken(1.0, [alone])]
    queues = QueueAnalysis(0.8)
    (first,), (second,) = (queues.step(poll).listeners for poll in polls(*samples))
    assert (first.application, first.holders) == ("the application", "held by nginx[21]")
    assert (second.application, second.holders) == ("nginx[21]", "")
    first_poll, second_poll = polls(*samples)
    for poll, accepting in ((first_poll, 0), (second_poll, None)):
        codes, owners = accepted_owners(poll.join)
        assert owners[codes[0]] == Owner((WORKERS[0],), accepting)
    accepted: Held = ("ESTAB 4000", (WORKERS[0],))
    samples = [taken(0.0, [alone], holders_known=False), taken(1.0, [alone, accepted], holders_known=False)]
    *_, (last,) = (queues.step(poll).listeners for poll in polls(*samples))
    assert last.application == "nginx[21]", "it has accepted a connection"


HELPER = process(98, "helper", -60.0)
SERVER = process(97, "server")
LEAKED: Held = ("LISTEN 80", (SERVER, HELPER))


def test_a_helper_that_has_inherited_connections_does_not_accept() -> None:
    stale, shared_one = ("ESTAB 4000", (HELPER,)), ("ESTAB 4001", (SERVER, HELPER))
    (listener,) = seen([[LEAKED, stale, shared_one]])
    assert listener.accepted_by == ()
    assert listener.holders.endswith("; connections held by server[97]"), "it shares a connection with the older one"
    (listener,) = seen([[LEAKED, stale], [LEAKED, stale, ("ESTAB 4002", (SERVER,))]])
    assert listener.accepted_by == (SERVER,), "what is proved by a new connection replaces what is presumed"
    (listener,) = seen([[LEAKED, ("CLOSE_WAIT 4000", (HELPER,))]])
    assert listener.accepted_by == ()


BEGIN, CLOSE = ("SYN_RCVD", "ESTAB"), ("CLOSE_WAIT", "LAST_ACK")
Change = tuple[float, int, int, tuple[str, str], int]
"""Monotonic time, kernel address of the socket, thread, states, local port."""


def traced(*changes: Change) -> TraceEvents:
    table = np.zeros(len(changes), TRACE_EVENT)
    for row, (time, address, thread, states, port) in zip(table, changes, strict=True):
        row["time"], row["socket"], row["pid"], row["sport"] = time, address, thread, port
        row["kind"], (row["old"], row["new"]) = TraceEventKind.STATE, map(State.parse, states)
    return TraceEvents(table)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([(0.5, 1, 5, BEGIN, 80), (0.6, 1, 12, CLOSE, 80)], [12]),
        ([(0.5, 1, 5, BEGIN, 80), (0.6, 1, 12, ("ESTAB", "FIN_WAIT_1"), 80)], [12]),
        ([(0.5, 1, 12, BEGIN, 80), (0.6, 1, 5, CLOSE, 80)], []),  # a thread that is no holder
        ([(0.5, 1, 5, BEGIN, 80), (0.6, 2, 12, CLOSE, 80)], []),  # another socket, which began before
        ([(0.5, 1, 5, BEGIN, 81), (0.6, 1, 12, CLOSE, 81)], []),  # of another listener
        ([(0.5, 1, 5, BEGIN, 80), (0.6, 1, 12, ("ESTAB", "CLOSE_WAIT"), 80)], []),  # the peer has closed
        ([(-7200.0, 1, 5, BEGIN, 80), (0.6, 1, 12, CLOSE, 80)], []),  # before the process was started
    ],
)
def test_the_trace_shows_who_closes_what_it_has_accepted(changes: Sequence[Change], expected: list[int]) -> None:
    samples = taken(0.0, [ACTIVATED]), taken(1.0, [ACTIVATED], trace_events=traced(*changes))
    queues = QueueAnalysis(0.8)
    _, (listener,) = [queues.step(poll).listeners for poll in polls(*samples)]
    assert [process.pid for process in listener.accepted_by] == expected


def test_a_process_that_has_ended_is_forgotten() -> None:
    after: Held = ("LISTEN 80", (SYSTEMD, process(13, "app")))
    (listener,) = seen([[ACTIVATED], [ACTIVATED, ("ESTAB 4000", (APP,))], [after]])
    assert (listener.accepted_by, listener.holders) == ((), "held by systemd[1], app[13]")


def test_a_group_in_which_each_worker_holds_every_socket() -> None:
    group = [("LISTEN 80", (MASTER, *WORKERS))] * 2
    both = seen([group, [*group, ("ESTAB 4000", (WORKERS[1],))]])
    assert [one.accepted_by for one in both] == [(), ()], "it is not known whose socket it came from"
    own: list[Held] = [("LISTEN 80", (MASTER, worker)) for worker in WORKERS[:2]]
    ordered = seen([own, [*own, ("ESTAB 4000", (WORKERS[1],))]])
    assert sorted(one.process for one in ordered) == ["nginx[20] +1", "nginx[22]"]


def owners_of_connections(*samples: Sequence[Held]) -> list[Owner | int]:
    """Return the owner of the connections of each key, or the reason why it is unknown; the last is of no key."""
    *_, poll = polls(*(taken(float(second), held) for second, held in enumerate(samples)))
    codes, owners = accepted_owners(poll.join)
    return [owners[code] if code >= 0 else code for code in codes.tolist()]


def test_the_owner_of_connections_that_no_poll_saw() -> None:
    one = ("ESTAB 4000", (APP,))
    assert owners_of_connections([("LISTEN 80", (APP,))]) == [Owner((APP,)), UNKNOWN_NOT_LOOKED]
    assert owners_of_connections([ACTIVATED], [ACTIVATED, one])[0] == Owner((APP,))
    assert owners_of_connections([ACTIVATED])[0] == Owner((SYSTEMD, APP), 0)
    assert owners_of_connections([("LISTEN 80", ())])[0] == UNKNOWN_PERMISSION
    group = [("LISTEN 80", (worker,)) for worker in WORKERS[:2]]
    assert owners_of_connections(group)[0] == Owner(tuple(WORKERS[:2]), 0)
    assert owners_of_connections([*group, ("LISTEN 80", ())])[0] == UNKNOWN_PERMISSION
    pool = [FORKED], [FORKED, ("ESTAB 4000", (WORKERS[1],)), ("ESTAB 4001", (WORKERS[0],))]
    assert str(owners_of_connections(*pool)[0]) == "nginx[21] +1"
