"""Which peer the lost segments belong to, on the real kernel; ss and the counters of the namespace are the oracles."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Finding
from tcpwatch.monitor import Monitor
from tcpwatch.sources import live
from tcpwatch.sources.live import open_source
from tests import lab
from tests.lab.diag import dump
from tests.lab.machine.requirements import tracefs
from tests.lab.waiting import wait_until
from tests.lab.wire.connection import Connection, Policy

PORT, DEAD_PORT = 5432, 6379
LOSSY, WELL, DEAD = "198.18.7.1", "198.18.7.2", "198.18.7.3"
LIMITS = Thresholds(retransmissions_window_s=60)


@pytest.fixture
def namespace() -> Iterator[lab.Namespace]:
    lab.require(lab.namespaces, lab.tun, lab.ipv6, lab.program("ss"))
    with lab.Namespace() as namespace:
        yield namespace


@pytest.fixture
def peer(namespace: lab.Namespace) -> Iterator[lab.Peer]:
    with lab.Peer(namespace) as peer:
        peer.listen(PORT)
        peer.listen(DEAD_PORT, Policy.SILENT)
        yield peer


@pytest.fixture(params=["tcp_info", "trace"])
def monitor(request: pytest.FixtureRequest, peer: lab.Peer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Monitor]:
    monkeypatch.setattr(live, "TCP_INFO_MIN_S", 60.0)  # in every sample, also on a busy machine
    traced = request.param == "trace"
    if traced:
        lab.require(tracefs)
    monitor = Monitor(
        open_source("sock_diag", ask_infos=not traced, events=True, trace=traced), thresholds=LIMITS
    )  # fmt: skip
    try:
        yield monitor
    finally:
        monitor.close()


def connect(peer: lab.Peer, address: str) -> tuple[socket.socket, Connection]:
    kernel = socket.create_connection((address, PORT), 5)
    kernel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return kernel, peer.connection_of(kernel)


def talk(kernel: socket.socket, connection: Connection, requests: int) -> None:
    """Send requests, each after the one before was acknowledged."""
    for _ in range(requests):
        expected = len(connection.received) + 1
        kernel.send(b"x")
        connection.wait_for(lambda it, size=expected: len(it.received) >= size, "the request")  # type: ignore[misc]


def finding(monitor: Monitor) -> Finding:
    """Poll twice and return the finding."""
    monitor.step()
    (found,) = (one for one in monitor.step().findings if one.rule == "retransmissions")
    return found


def retransmitted(namespace: lab.Namespace, address: str) -> int:
    """Return the retransmitted segments of the connections to this address, by `ss -ti`."""
    return sum(
        map(int, re.findall(r"retrans:\d+/(\d+)", namespace.ss("-tiHn", "state", "established", "dst", address)))
    )


def test_the_lossy_peer_is_named_and_no_dead_one(namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor) -> None:
    """Every tenth segment to one peer is lost; SYNs to another are retransmitted more often."""
    (bad, bad_end), (good, good_end) = connect(peer, LOSSY), connect(peer, WELL)
    calls = [socket.socket() for _ in range(30)]
    with closing(bad), closing(good):
        monitor.step()
        for call in calls:
            call.setblocking(False)
            call.connect_ex((DEAD, DEAD_PORT))
        bad_end.lose_every(10)
        talk(good, good_end, 60)
        talk(bad, bad_end, 60)
        wait_until(lambda: all(row.retransmits >= 1 for row in dump(4, "SYN_SENT")), "SYN retries")
        found = finding(monitor)
        counted = retransmitted(namespace, LOSSY)
        assert counted >= 5
        assert retransmitted(namespace, WELL) == 0
    evidence = {name: figure.value for name, figure in found.evidence.items()}
    assert (evidence["worst_peer"], evidence["retransmitted"]) == (LOSSY, counted)
    assert found.headline.endswith(f", 100 % of them to {LOSSY}")
    assert found.filter == f"raddr:{LOSSY}"
    syns = evidence["syn_retransmitted"]
    assert isinstance(syns, float | int)
    assert syns >= 30 > counted
    for call in calls:
        call.close()


def test_nobody_is_named_where_two_are_alike(peer: lab.Peer, monitor: Monitor) -> None:
    pairs = [connect(peer, address) for address in (LOSSY, WELL)]
    monitor.step()
    for kernel, connection in pairs:
        connection.lose_every(10)
        talk(kernel, connection, 60)
    found = finding(monitor)
    assert found.evidence["worst_peer"].value is None
    assert found.headline.endswith("s")
    assert " to " not in found.headline
    for kernel, _ in pairs:
        kernel.close()


def test_nobody_is_named_without_figures_of_peers(peer: lab.Peer) -> None:
    """Neither the trace nor the tcp_info of all connections: a share of the host alone."""
    with closing(Monitor(open_source("sock_diag"), thresholds=LIMITS)) as monitor:
        kernel, connection = connect(peer, LOSSY)
        monitor.step()
        connection.lose_every(10)
        with closing(kernel):
            talk(kernel, connection, 110)
            found = finding(monitor)
        assert (found.evidence["worst_peer"].value, found.filter) == (None, "")


def test_an_ipv4_client_of_an_ipv6_socket(namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor) -> None:
    """Its address is IPv4-mapped; the application answers with a segment at a time."""
    with closing(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)) as listener:
        client = peer.open(listener.getsockname()[1], remote=lab.Endpoint.of(LOSSY, 40_000))
        kernel, _ = listener.accept()
        with closing(kernel):
            kernel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            monitor.step()
            client.lose_every(10)
            talk(kernel, client, 110)
            found = finding(monitor)
            counted = retransmitted(namespace, f"[::ffff:{LOSSY}]")
    assert (found.evidence["worst_peer"].value, found.evidence["retransmitted"].value) == (LOSSY, counted)
    assert counted >= 5
