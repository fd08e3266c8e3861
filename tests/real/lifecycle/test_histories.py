"""What only a second look can tell: who opened and who closed first, after the states that said so have passed."""

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
class Story:
    """A case of the lab, and what happens to it then: (action, state, role, closer) of each further look."""

    start: str
    looks: tuple[tuple[Action, str, str, str | None], ...]


STORIES = {
    "a server's client is served on": Story(
        "ESTABLISHED",
        # The listener has gone: that the port was a listener's is only remembered.
        ((close_listener, "ESTABLISHED", "server", None), (fin, "CLOSE_WAIT", "server", "peer")),
    ),
    "the handshake goes on": Story("SYN_RCVD", ((complete, "ESTABLISHED", "server", None),)),
    "a late answer": Story("SYN_SENT", ((answer, "ESTABLISHED", "client", None),)),
    "both call": Story(
        "SYN_SENT",
        ((cross, "SYN_RCVD", "client", None), (complete, "ESTABLISHED", "client", None)),
    ),
    "closed here first": Story(
        "FIN_WAIT_1",
        ((acknowledge, "FIN_WAIT_2", "server", "local"), (fin, "TIME_WAIT", "server", "local")),
    ),
    "an orphan goes the same way": Story("FIN_WAIT_2/orphan", ((fin, "TIME_WAIT", "server", "local"),)),
    "closed there first": Story("CLOSE_WAIT", ((close_unanswered, "LAST_ACK", "server", "peer"),)),
    "both closed": Story("CLOSING", ((acknowledge, "TIME_WAIT", "server", "both"),)),
    "the FINs crossed": Story(
        "FIN_WAIT_1/orphan",
        (
            (acknowledge_all_but_fin, "FIN_WAIT_1", "server", "local"),
            (fin, "CLOSING", "server", "both"),
            (acknowledge, "TIME_WAIT", "server", "both"),
        ),
    ),
}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", STORIES)
def test_roles_and_closers_are_remembered(peer: lab.Peer, name: str, family: lab.Family) -> None:
    story = STORIES[name]
    with lab.produce(peer, story.start, family) as it, closing(Monitor(LiveSource())) as monitor:
        rows = monitor.step().rows
        at = next(i for i, port in enumerate(rows.table["idiag_dport"]) if port == it.remote.port)
        cookie = int(rows.cookie[at])
        states = [State(rows.state[at])]
        for action, state, role, closer in story.looks:
            action(it)
            await_state(it, state)
            assert look(monitor, cookie) == (state, role, closer)
            states.append(State[state])
        check_transitions(monitor, cookie, states)


def await_state(it: lab.Produced, state: str) -> None:
    lab.wait_until(lambda: (row := it.row()) is not None and row.state == state, state)


def look(monitor: Monitor, cookie: int) -> tuple[str, str | None, str | None]:
    """State, role and closer of the socket that has had this cookie all along."""
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
