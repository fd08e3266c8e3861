"""Port scans on the real kernel: scans with all kinds of segments are found, other traffic is not."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tcpwatch.model.analyses.port_scans import MAX_SCANS
from tcpwatch.model.finding import Finding
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import open_source
from tests import lab
from tests.lab.machine.requirements import tracefs

KINDS = {
    "SYN": lab.Flag.SYN,
    "FIN": lab.Flag.FIN,
    "NULL": lab.Flag(0),
    "Xmas": lab.Flag.FIN | lab.Flag.PSH | lab.Flag.URG,
    "ACK": lab.Flag.ACK,
}
FAMILIES: tuple[lab.Family, ...] = (4, 6)


@pytest.fixture
def peer() -> Iterator[lab.Peer]:
    lab.require(lab.namespaces, lab.tun, lab.ipv6, tracefs)
    with lab.Namespace() as namespace, lab.Peer(namespace) as peer:
        yield peer


@pytest.fixture
def monitor(peer: lab.Peer) -> Iterator[Monitor]:
    """A Monitor with a poll before the scan begins; a listener exists at another address."""
    server = socket.create_server(("127.0.0.1", 0))
    monitor = Monitor(open_source("sock_diag", events=True, trace=True))
    try:
        view = monitor.step()
        assert view.trace.on, view.trace.why_no_trace
        yield monitor
    finally:
        monitor.close()
        server.close()


def a_source(family: lab.Family) -> str:
    """Return a new address: the trace has resets of other namespaces, too, where the same test may run."""
    high, low = os.urandom(2)
    return f"198.18.{high}.{max(low, 3)}" if family == 4 else f"fd00:198:18::{high + 1:x}:{low:x}"


def scan(peer: lab.Peer, source: str, ports: range, flags: lab.Flag) -> None:
    """Send one segment to each port and wait until the kernel has answered."""
    family: lab.Family = 6 if ":" in source else 4
    for port in ports:
        ends = lab.Endpoint.of(source, 40_000), lab.Endpoint.of(lab.LOCAL[family], port)
        peer._wire.send(lab.Segment(*ends, flags, seq=1, ack=1 if flags & lab.Flag.ACK else 0))


def scans(view: View, source: str) -> list[Finding]:
    return [one for one in view.findings if one.rule == "port-scan" and one.subject.name == source]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
def test_a_scan_is_found(flags: lab.Flag, family: lab.Family, peer: lab.Peer, monitor: Monitor) -> None:
    source = a_source(family)
    scan(peer, source, range(100, 130), flags)
    assert scans(monitor.step(), source) == [], "it has to hold for two steps"
    (finding,) = scans(monitor.step(), source)
    assert finding.headline.startswith(
        "got resets from 30 ports in 10 s (maybe of another network namespace): 100, 101,"
    )
    assert finding.evidence["resets"].value == 30


@pytest.mark.parametrize("sources", [6, MAX_SCANS])
def test_scans_from_many_sources_are_one_finding(sources: int, peer: lab.Peer, monitor: Monitor) -> None:
    addresses = {a_source(4) for _ in range(4 * sources)}
    for source in sorted(addresses)[:sources]:
        scan(peer, source, range(100, 120), lab.Flag.SYN)
    monitor.step()
    (finding,) = (one for one in monitor.step().findings if one.rule == "port-scan")
    at_least = "at least " * (sources == MAX_SCANS)
    assert finding.headline.startswith(f"{at_least}{sources} sources got resets from 20 ports or more each in 10 s: ")
    assert set(finding.filter.removeprefix("raddr:").split(",")) <= addresses
    assert [each for each in peer.log() if each.from_kernel and each.segment.flags & lab.Flag.RST][sources * 20 - 1 :]


@pytest.mark.parametrize("family", FAMILIES)
def test_few_closed_ports_are_no_scan(family: lab.Family, peer: lab.Peer, monitor: Monitor) -> None:
    source = a_source(family)
    for flags in KINDS.values():
        scan(peer, source, range(100, 105), flags)
    views = [monitor.step() for _ in range(3)]
    assert [scans(view, source) for view in views] == [[], [], []]
    assert [one.ports for one in views[-1].port_scans if one.source == source] == [5], "but they are known"


def test_open_ports_do_not_count_and_prove_the_namespace(peer: lab.Peer, monitor: Monitor) -> None:
    """Half of the ports are open. They do not count, and they show that the address is of this namespace."""
    source = a_source(4)
    with closing(socket.create_server((lab.LOCAL[4], 100))), closing(socket.create_server((lab.LOCAL[4], 101))):
        scan(peer, source, range(100, 130), lab.Flag.SYN)
        monitor.step()
        (finding,) = scans(monitor.step(), source)
    assert finding.headline.startswith("got resets from 28 ports in 10 s: 102, 103,")


def test_late_segments_of_reset_connections_are_no_scan(peer: lab.Peer, monitor: Monitor) -> None:
    """A client that resets connections to a service still receives its segments, at as many of its own ports."""
    peer.listen(5432)
    source = a_source(4)
    ports = []
    for _ in range(30):
        with closing(socket.create_connection((source, 5432))) as client:
            ports.append(client.getsockname()[1])
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    for port in ports:
        ends = lab.Endpoint.of(source, 5432), lab.Endpoint.of(lab.LOCAL[4], port)
        peer._wire.send(lab.Segment(*ends, lab.Flag.ACK | lab.Flag.PSH, seq=1, ack=1, payload=b"late"))
    views = [monitor.step() for _ in range(3)]
    assert [scans(view, source) for view in views] == [[], [], []]
    scan(peer, source, range(100, 130), lab.Flag.SYN)
    views = [monitor.step() for _ in range(2)]
    assert len(scans(views[-1], source)) == 1, "the same host scans from another port"
