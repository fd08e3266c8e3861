"""Role and closer stay known after the states that showed them have passed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

import pytest

from tcpwatch.model.columns.columns import BY_KEY
from tcpwatch.model.states import State
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tests import lab

Action = Callable[[lab.Produced], None]


def peer_does(act: Callable[[lab.Connection], object]) -> Action:
    def action(it: lab.Produced) -> None:
        assert it.connection
        act(it.connection)

    return action


def close_listener(it: lab.Produced) -> None:
    assert it.listener
    it.listener.close()


def close_unanswered(it: lab.Produced) -> None:
    assert it.kernel
    assert it.connection
    it.connection.acknowledge(False)
    it.kernel.close()


acknowledge = peer_does(lambda peer: peer.acknowledge())
fin = peer_does(lambda peer: peer.fin())
answer = peer_does(lambda peer: peer.answer(lab.Policy.ACCEPT))
cross = peer_does(lambda peer: peer.answer(lab.Policy.SIMULTANEOUS_HALF_OPEN))
complete = peer_does(lambda peer: peer.complete())
acknowledge_all_but_fin = peer_does(lambda peer: peer.acknowledge(fin=False))


@dataclass(frozen=True, slots=True)
class Case:
    """The first state, and (action, state, role, closer) of each further step."""

    start: str
    looks: tuple[tuple[Action, str, str, str | None], ...]


CASES = {
    "a server's client is served on": Case(
        "ESTABLISHED",
        # Without the listener, its port must be remembered.
        ((close_listener, "ESTABLISHED", "server", None), (fin, "CLOSE_WAIT", "server", "peer")),
    ),
    "the handshake goes on": Case("SYN_RCVD", ((complete, "ESTABLISHED", "server", None),)),
    "a late answer": Case("SYN_SENT", ((answer, "ESTABLISHED", "client", None),)),
    "both call": Case(
        "SYN_SENT",
        ((cross, "SYN_RCVD", "client", None), (complete, "ESTABLISHED", "client", None)),
    ),
    "closed here first": Case(
        "FIN_WAIT_1",
        ((acknowledge, "FIN_WAIT_2", "server", "local"), (fin, "TIME_WAIT", "server", "local")),
    ),
    "an orphan goes the same way": Case("FIN_WAIT_2/orphan", ((fin, "TIME_WAIT", "server", "local"),)),
    "closed there first": Case("CLOSE_WAIT", ((close_unanswered, "LAST_ACK", "server", "peer"),)),
    "both closed": Case("CLOSING", ((acknowledge, "TIME_WAIT", "server", "both"),)),
    "the FINs crossed": Case(
        "FIN_WAIT_1/orphan",
        (
            (acknowledge_all_but_fin, "FIN_WAIT_1", "server", "local"),
            (fin, "CLOSING", "server", "both"),
            (acknowledge, "TIME_WAIT", "server", "both"),
        ),
    ),
}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", CASES)
def test_roles_and_closers_are_remembered(peer: lab.Peer, name: str, family: lab.Family) -> None:
    case = CASES[name]
    with lab.produce(peer, case.start, family) as it, closing(Monitor(LiveSource())) as monitor:
        rows = monitor.step().rows
        at = next(i for i, port in enumerate(rows.table["idiag_dport"]) if port == it.remote.port)
        cookie = int(rows.cookie[at])
        states = [State(rows.state[at])]
        for action, state, role, closer in case.looks:
            action(it)
            await_state(it, state)
            assert look(monitor, cookie) == (state, role, closer)
            states.append(State[state])
        check_transitions(monitor, cookie, states)


def await_state(it: lab.Produced, state: str) -> None:
    lab.wait_until(lambda: (row := it.row()) is not None and row.state == state, state)


def look(monitor: Monitor, cookie: int) -> tuple[str, str | None, str | None]:
    """Return state, role and closer of the socket with this cookie."""
    rows = monitor.step().rows
    at = rows.find(cookie)
    assert at is not None, "another socket has taken its place"
    state, role, closer = (BY_KEY[key].values(rows)[at] for key in ("state", "role", "closer"))
    return state, role, closer


def check_transitions(monitor: Monitor, cookie: int, states: list[State]) -> None:
    monitor.watched = frozenset({cookie})
    seen = monitor.step().details[cookie].transitions
    changes = [(old, new) for old, new in pairwise(states) if old != new]
    assert [(change.old, change.new) for change in seen] == changes
