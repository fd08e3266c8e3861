"""Hosts that do not answer, on the real kernel: new connections, and connections that were open."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Figure, Finding, Severity
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import open_source
from tests import lab
from tests.lab.diag import dump
from tests.lab.machine.requirements import tracefs
from tests.lab.waiting import wait_until
from tests.lab.wire.connection import Connection, Policy

PORT = 6379
LIMITS = Thresholds(connect_stuck_wait_s=0.05, silent_peer_s=0.6)
FAMILIES: tuple[lab.Family, ...] = (4, 6)


@pytest.fixture
def peer() -> Iterator[lab.Peer]:
    lab.require(lab.namespaces, lab.tun, lab.ipv6)
    with lab.Namespace() as namespace, lab.Peer(namespace) as peer:
        yield peer


_held: list[socket.socket] = []


@pytest.fixture(autouse=True)
def _close_sockets(peer: lab.Peer) -> Iterator[None]:
    yield
    while _held:
        _held.pop().close()


@dataclass
class Watch:
    """A Monitor, and all that its findings said so far."""

    monitor: Monitor
    said: list[Finding] = field(default_factory=list)

    def step(self) -> View:
        view = self.monitor.step()
        self.said = list(view.findings)
        return view

    def until(self, rule: str, wanted: Callable[[Finding], bool] = lambda _: True) -> Finding:
        """Poll until this rule has a finding."""

        def found() -> list[Finding]:
            self.step()
            return [one for one in self.said if one.rule == rule and wanted(one)]

        return wait_until(found, f"a finding of {rule}", 15)[0]


@pytest.fixture(params=[False, True], ids=["no trace", "trace"])
def watch(request: pytest.FixtureRequest, peer: lab.Peer) -> Iterator[Watch]:
    if request.param:
        lab.require(tracefs)
    monitor = Monitor(open_source("sock_diag", ask_infos=True, events=True, trace=request.param), thresholds=LIMITS)
    try:
        monitor.step()
        yield Watch(monitor)
    finally:
        monitor.close()


without_trace = pytest.mark.parametrize("watch", [False], indirect=True, ids=["no trace"])


def host(number: int, family: lab.Family = 4) -> str:
    return f"198.18.7.{number}" if family == 4 else f"fd00:198:18::7:{number}"


def dial(address: str, port: int = PORT) -> socket.socket:
    """Begin a connection attempt."""
    kernel = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    _held.append(kernel)
    kernel.setblocking(False)
    kernel.connect_ex((address, port))
    return kernel


# Connection attempts --------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_callers_with_a_short_timeout(family: lab.Family, peer: lab.Peer, watch: Watch) -> None:
    """They close before the first retransmit: no poll ever sees a SYN retry."""
    peer.listen(PORT, Policy.SILENT)
    for _ in range(3):
        calls = [dial(host(9, family)) for _ in range(3)]
        due = watch.step().sample.monotonic + 0.1
        wait_until(lambda due=due: watch.step().sample.monotonic > due, "a timeout of 0.1 s")  # type: ignore[misc]
        for call in calls:
            call.close()
        wait_until(lambda: not dump(family, "SYN_SENT"), "closed sockets")
    finding = watch.until("connect-stuck", lambda one: one.evidence["given_up"].value == 9)
    assert str(finding.subject.value) == (f"{host(9)}:{PORT}" if family == 4 else f"[{host(9, 6)}]:{PORT}")
    assert finding.headline == "9 connection attempts given up without an answer within 30 s"
    assert "two minutes" not in " ".join(finding.advice)


@pytest.mark.parametrize("family", FAMILIES)
def test_hosts_of_one_network(family: lab.Family, peer: lab.Peer, watch: Watch) -> None:
    """One attempt to each; the port does not matter. Two hosts of another network are a smaller matter."""
    peer.listen(PORT, Policy.SILENT)
    calls = [dial(host(number, family)) for number in range(1, 8)]
    finding = watch.until("connect-stuck", lambda one: one.evidence["addresses"].value == 7)
    network = "198.18.7.0/24" if family == 4 else "fd00:198:18::/64"
    assert str(finding.subject) == f"destination {network}"
    assert [one.rule for one in watch.said] == ["connect-stuck"]
    assert len(calls) == 7


@without_trace
def test_many_destinations(peer: lab.Peer, watch: Watch) -> None:
    """In networks of their own; some callers have given up meanwhile."""
    peer.listen(PORT, Policy.SILENT)
    calls = [dial(f"198.18.{number}.9") for number in range(10, 16) for _ in range(5)]
    finding = watch.until("connect-stuck", lambda one: one.evidence["destinations"].value == 6)
    assert finding.headline.startswith("30 connection attempts to 6 destinations unanswered: 198.18.")
    assert finding.headline.endswith(f":{PORT} and 3 more")
    assert len(dump(4, "SYN_SENT")) == len(calls)


@without_trace
def test_some_callers_give_up(peer: lab.Peer, watch: Watch) -> None:
    peer.listen(PORT, Policy.SILENT)
    calls = [dial(host(9)) for _ in range(8)]
    watch.step()
    wait_until(lambda: all(row.retransmits >= 2 for row in dump(4, "SYN_SENT")), "SYN retries", 15)
    watch.step()
    for call in calls[:2]:
        call.close()
    finding = watch.until("connect-stuck", lambda one: one.evidence["given_up"].value == 2)
    assert finding.headline.startswith("8 connection attempts unanswered, up to ")
    assert finding.headline.endswith(" SYN retries; 2 of them given up within 30 s")
    assert len(dump(4, "SYN_SENT")) == 6


@without_trace
def test_the_kernel_gives_up_when_its_sysctl_says_so(peer: lab.Peer, watch: Watch) -> None:
    peer._namespace.sysctl("net.ipv4.tcp_syn_retries", 1)
    peer._namespace.sysctl("net.ipv4.tcp_syn_linear_timeouts", 1)
    peer.listen(PORT, Policy.SILENT)
    calls = [dial(host(9)) for _ in range(5)]
    begin = time.monotonic()
    finding = watch.until("connect-stuck")
    assert "net.ipv4.tcp_syn_retries limits the retries of attempts without a timeout" in finding.advice[1]
    wait_until(lambda: not dump(4, "SYN_SENT"), "the end of the attempts", 15)
    assert time.monotonic() - begin < 30, "the default is more than two minutes"
    assert {call.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for call in calls} == {errno.ETIMEDOUT}


def test_refused_and_cancelled_attempts_are_answered_ones(peer: lab.Peer, watch: Watch) -> None:
    """A port that refuses; a caller that cancels a second attempt because the first succeeded; a slow host."""
    peer.listen(PORT, Policy.REFUSE)
    peer.listen(7000, Policy.SILENT)
    peer.listen(7001, Policy.SILENT)
    for _ in range(6):
        for port in (PORT, 7000):
            dial(host(1), port).close()
        watch.step()
    slow = [dial(host(2), 7001) for _ in range(6)]
    watch.step()
    for kernel in slow[:5]:
        kernel.close()
    peer.connection_of(slow[5]).answer(Policy.ACCEPT)
    wait_until(lambda: dump(4, "ESTABLISHED"), "the connection")
    for _ in range(3):
        watch.step()
        assert watch.said == []


# Open connections -----------------------------------------------------------------------------


def connect(peer: lab.Peer, address: str, count: int) -> list[tuple[socket.socket, Connection]]:
    peer.listen(PORT)
    opened = []
    for _ in range(count):
        kernel = socket.create_connection((address, PORT), 5)
        _held.append(kernel)
        opened.append((kernel, peer.connection_of(kernel)))
    return opened


def break_(opened: list[tuple[socket.socket, Connection]], data: bytes = b"a request") -> None:
    """From now on nothing comes from the peer; the kernel has data to send."""
    for kernel, connection in opened:
        connection.acknowledge(False)
        kernel.send(data)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_peer_that_dies_under_open_connections(family: lab.Family, peer: lab.Peer, watch: Watch) -> None:
    address = host(9, family)
    dying, well = connect(peer, address, 20), connect(peer, host(8, family), 4)
    break_(dying)
    for kernel, _ in well:
        kernel.send(b"a request")
    finding = watch.until("peer-silent", lambda one: one.severity == Severity.CRITICAL)
    assert (str(finding.subject), finding.evidence["connections"].value) == (f"destination {address}", 20)
    assert [one.rule for one in watch.said] == ["peer-silent"], watch.said
    silent = finding.evidence["silent"].value
    assert isinstance(silent, float)
    assert 0.6 <= silent < 15
    # It lasts while nothing new is sent, and ends with an answer.
    later = watch.until("peer-silent", lambda one: float(one.evidence["silent"].value or 0) > silent + 0.5)
    assert later.evidence["connections"].value == 20
    for _, connection in dying:
        connection.acknowledge()
    wait_until(lambda: not any(row.retransmits for row in dump(family, "ESTABLISHED")), "answered retransmits", 15)
    wait_until(lambda: watch.step() and not watch.said, "no finding")


def test_one_connection_of_many_hears_from_the_peer(peer: lab.Peer, watch: Watch) -> None:
    """A load balancer lost its state for some connections: it is not silent."""
    lost, well = connect(peer, host(9), 6), connect(peer, host(9), 1)
    break_(lost)
    ((_, connection),) = well
    wait_until(lambda: sum(row.retransmits > 1 for row in dump(4, "ESTABLISHED")) == 6, "retransmits")

    def polled() -> bool:
        connection.send(b"x")
        view = watch.step()
        assert not [one for one in watch.said if one.rule == "peer-silent"], watch.said
        return view.step > 12

    wait_until(polled, "polls")


def test_idle_connections_that_begin_to_retransmit(peer: lab.Peer, watch: Watch) -> None:
    """Nothing was received for longer than the threshold, as nothing was asked: the peer does not owe an answer yet."""
    opened = connect(peer, host(9), 4)
    for _, connection in opened:
        connection.send(b"hello")
    started = time.monotonic()
    wait_until(lambda: time.monotonic() > started + 2 * LIMITS.silent_peer_s, "idle connections")
    watch.step()
    broken = time.monotonic()
    break_(opened)
    retransmitted = False
    while time.monotonic() < broken + LIMITS.silent_peer_s:
        retransmitted |= all(row.retransmits for row in dump(4, "ESTABLISHED") if row.remote.port == PORT)
        view = watch.step()
        early = time.monotonic() < broken + LIMITS.silent_peer_s
        assert not (early and view.stalls.silent.all_peers)
    assert retransmitted
    finding = watch.until("peer-silent")
    silent = finding.evidence["silent"].value
    assert isinstance(silent, float)
    assert silent <= time.monotonic() - broken


def test_a_network_that_is_cut_off(peer: lab.Peer, watch: Watch) -> None:
    opened = [pair for number in range(1, 7) for pair in connect(peer, host(number), 1)]
    break_(opened)
    finding = watch.until("peer-silent", lambda one: one.evidence["addresses"].value == 6)
    assert str(finding.subject) == "destination 198.18.7.0/24"
    assert "198.18.7.1, 198.18.7.2, 198.18.7.3 and 3 more" in finding.headline


@without_trace
def test_many_silent_peers(peer: lab.Peer, watch: Watch) -> None:
    opened = [pair for number in range(10, 16) for pair in connect(peer, f"198.18.{number}.9", 3)]
    break_(opened)
    finding = watch.until("peer-silent", lambda one: one.evidence.get("peers", Figure(0)).value == 6)
    assert finding.headline.startswith("18 connections to 6 peers without an answer: 198.18.")
    assert finding.headline.endswith(" and 3 more")
    assert sum(row.retransmits > 0 for row in dump(4, "ESTABLISHED")) == 18


def test_attempts_to_the_dead_peer_are_not_a_second_finding(peer: lab.Peer, watch: Watch) -> None:
    opened = connect(peer, host(9), 4)
    peer.listen(PORT, Policy.SILENT)
    break_(opened)
    calls = [dial(host(9)) for _ in range(6)]
    wait_until(lambda: all(row.retransmits >= 2 for row in dump(4, "SYN_SENT")), "SYN retries", 15)
    finding = watch.until("peer-silent", lambda one: one.evidence["attempts"].value == 6)
    assert finding.headline.endswith(", 6 connection attempts unanswered")
    assert [one.rule for one in watch.said] == ["peer-silent"]
    assert len(calls) == 6


def test_a_peer_that_does_not_read_is_not_silent(peer: lab.Peer, watch: Watch) -> None:
    """It answers the window probes."""
    opened = connect(peer, host(9), 4)
    for kernel, connection in opened:
        connection.window(0)
        kernel.send(b"waits")
    wait_until(lambda: all(row.timer == "persist" for row in dump(4, "ESTABLISHED")), "probes")
    for _ in range(10):
        watch.step()
        assert not [one for one in watch.said if one.rule == "peer-silent"]
