"""`resets` on the real kernel, in seconds of a clock that the test makes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tcpwatch.monitor import Monitor
from tests import lab
from tests.support.clock import SteadySource

QUIET_S, RECENT_S = 25, 10


@pytest.fixture
def monitor(namespace: lab.Namespace) -> Iterator[Monitor]:
    with closing(Monitor(SteadySource())) as it:
        yield it


def to_a_closed_port(peer: lab.Peer) -> None:
    peer.knock(1)


def to_a_closed_socket(peer: lab.Peer) -> None:
    with socket.create_server((lab.LOCAL[4], 0)) as listener:
        client = peer.open(listener.getsockname()[1])
        listener.accept()[0].close()
    client.send(b"late")


def with_unread_data(peer: lab.Peer) -> None:
    with socket.create_server((lab.LOCAL[4], 0)) as listener:
        client = peer.open(listener.getsockname()[1])
        client.send(b"unread")
        listener.accept()[0].close()


def with_linger_0(peer: lab.Peer) -> None:
    with socket.create_server((lab.LOCAL[4], 0)) as listener:
        peer.open(listener.getsockname()[1])
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        accepted.close()


def at_a_full_accept_queue(peer: lab.Peer) -> None:
    with socket.create_server((lab.LOCAL[4], 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        late = peer.half_open(port)
        peer.open(port)
        late.complete()
        listener.accept()[0].close()


CAUSES = (to_a_closed_port, to_a_closed_socket, with_unread_data, with_linger_0, at_a_full_accept_queue)


def test_a_sudden_storm(namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor) -> None:
    """Each cause that the finding names sends one reset a second."""
    namespace.sysctl("net.ipv4.tcp_abort_on_overflow", 1)
    sent = [namespace.counters()["OutRsts"]]
    for second in range(QUIET_S + RECENT_S + 1):
        for cause in CAUSES * (second >= QUIET_S):
            before = namespace.counters()["OutRsts"]
            cause(peer)
            lab.wait_until(lambda before=before: namespace.counters()["OutRsts"] > before, "a reset")  # type: ignore[misc]
        sent.append(namespace.counters()["OutRsts"])
        found = [one for one in monitor.step().findings if one.rule == "resets"]
    (one,) = found
    recent, earlier = sent[-1] - sent[-1 - RECENT_S], sent[-1 - RECENT_S] - sent[1]
    assert one.evidence["resets_sent"].value == recent / RECENT_S >= len(CAUSES)
    assert one.evidence["resets_sent_before"].value == earlier / QUIET_S
    assert " resets/s sent in the last 10 s, " in one.headline


def test_resets_that_have_always_been(namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor) -> None:
    for _ in range(QUIET_S + RECENT_S):
        for _ in range(6):
            to_a_closed_port(peer)
        view = monitor.step()
    assert view.rates["OutRsts"] == 6
    assert not [one for one in view.findings if one.rule == "resets"]
