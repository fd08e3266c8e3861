"""`tcp-memory` on the real kernel: one socket whose buffer is full is not all sockets together."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from tcpwatch.model.finding import Finding, Severity
from tcpwatch.monitor import Monitor
from tcpwatch.sample import Sample
from tcpwatch.sources.live import LiveSource
from tests import lab


class LimitedSource(LiveSource):
    """A live source of a host whose use is above the pressure value: tcp_mem is a sysctl of the whole machine."""

    def sample(self, watched: Iterable[int] = ()) -> Sample:
        sample = super().sample(watched)
        limits = {"tcp_mem_pressure": -1, "tcp_mem_high": 1 << 40}
        return replace(sample, sysctls={**sample.sysctls, **limits})


@pytest.fixture
def listener(namespace: lab.Namespace) -> Iterator[socket.socket]:
    """A listener whose connections have a receive buffer of some kilobytes."""
    with socket.socket() as it:
        it.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000)
        it.bind((lab.LOCAL[4], 0))
        it.listen()
        yield it


def send_with_gaps(listener: socket.socket, peer: lab.Peer, namespace: lab.Namespace) -> None:
    """Let a client send data out of order until the kernel prunes the queue."""
    before = namespace.counters()
    client = peer.open(listener.getsockname()[1])
    with listener.accept()[0]:
        client._next += 1_000
        for _ in range(20):
            client.send(bytes(100))
            client._next += 50
        after = namespace.counters()
    assert after["PruneCalled"] > before["PruneCalled"]
    assert after["TCPOFODrop"] > before["TCPOFODrop"], "data out of order is dropped"


def findings(monitor: Monitor) -> list[Finding]:
    return [one for one in monitor.step().findings if one.rule == "tcp-memory"]


def test_a_full_buffer_of_one_socket(namespace: lab.Namespace, peer: lab.Peer, listener: socket.socket) -> None:
    with closing(Monitor(LiveSource())) as monitor:
        assert not findings(monitor)
        for _ in range(2):
            send_with_gaps(listener, peer, namespace)
            found = findings(monitor)
    (one,) = found
    assert one.severity is Severity.WARNING
    assert one.headline.endswith(" receive queues/s pruned")
    assert "pages" not in one.headline


def test_all_sockets_together(namespace: lab.Namespace, peer: lab.Peer, listener: socket.socket) -> None:
    with closing(source := LimitedSource()), closing(Monitor(source)) as monitor:
        assert not findings(monitor), "for one step"
        (one,) = findings(monitor)
        assert (one.severity, one.headline.endswith(" pages in use")) == (Severity.WARNING, True)
        send_with_gaps(listener, peer, namespace)
        (one,) = findings(monitor)
        assert one.severity is Severity.CRITICAL
        assert " pages in use, " in one.headline
        assert one.headline.endswith(" receive queues/s pruned")
