"""Ephemeral ports on the real kernel: the meter is what connect() can still do, or says "at most".

Each situation is made first. Then connect() is called until it fails, and the number of calls that succeeded is
compared with the meter.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pytest

from tcpwatch.model.analyses.ephemeral_ports import Destination, EphemeralPorts
from tcpwatch.model.finding import Finding, Severity
from tcpwatch.model.states import State
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.lab.machine.requirements import tracefs
from tests.support.clock import SteadySource

LOW, HIGH = 30_000, 30_029
SIZE = HIGH - LOW + 1
_IP_BIND_ADDRESS_NO_PORT, _IP_LOCAL_PORT_RANGE = 24, 51
Address = tuple[str, int]
Prepare = Callable[[socket.socket], None]


def plain(kernel: socket.socket) -> None:
    """Let connect() choose the port."""


def on_loopback(kernel: socket.socket) -> None:
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")


def bound(kernel: socket.socket) -> None:
    kernel.bind(("127.0.0.1", 0))


def bound_without_port(kernel: socket.socket) -> None:
    kernel.setsockopt(socket.SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    kernel.bind(("127.0.0.1", 0))


def from_other_address(kernel: socket.socket) -> None:
    kernel.setsockopt(socket.SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    kernel.bind(("127.0.0.7", 0))


def own_range(kernel: socket.socket) -> None:
    kernel.setsockopt(socket.SOL_IP, _IP_LOCAL_PORT_RANGE, struct.pack("I", LOW + 2 | (LOW + 11) << 16))


class Host:
    """Makes connections in a namespace and keeps them until the end of the test."""

    def __init__(self, namespace: lab.Namespace, stack: ExitStack) -> None:
        self.namespace, self._stack = namespace, stack
        self._ports = iter(range(9000, 9999))
        self.bound_only = 0

    def keep(self, kernel: socket.socket) -> socket.socket:
        kernel.settimeout(5)
        return self._stack.enter_context(kernel)

    def bind(self, address: Address) -> None:
        """Bind a socket that does nothing else."""
        kernel = self.keep(socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET))
        kernel.bind(address)
        self.bound_only += 1

    def listen(self, address: str = "127.0.0.1") -> tuple[socket.socket, Address]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = self.keep(socket.create_server((address, next(self._ports)), family=family, backlog=256))
        return listener, listener.getsockname()[:2]

    def connect(self, server: Address, prepare: Prepare = plain, mapped: bool = False) -> socket.socket:
        v6 = mapped or ":" in server[0]
        kernel = self.keep(socket.socket(socket.AF_INET6 if v6 else socket.AF_INET))
        prepare(kernel)
        kernel.connect((f"::ffff:{server[0]}" if mapped else server[0], server[1]))
        return kernel

    def open(self, count: int, server: Address, prepare: Prepare = plain, mapped: bool = False) -> list[socket.socket]:
        return [self.connect(server, prepare, mapped) for _ in range(count)]

    def leave_time_waits(
        self, count: int, listener: socket.socket, prepare: Prepare = plain, mapped: bool = False
    ) -> None:
        server = listener.getsockname()[:2]
        pairs = [(self.connect(server, prepare, mapped), self.keep(listener.accept()[0])) for _ in range(count)]
        for client, accepted in pairs:
            client.close()
            assert accepted.recv(1) == b""
            accepted.close()
        arguments = "-H", "-t", "-a", "-n", "state", "time-wait", "dport", f"= :{server[1]}"
        lab.wait_until(lambda: len(self.namespace.ss(*arguments).splitlines()) >= count, "the TIME_WAITs")

    def count_connects(self, server: Address, prepare: Prepare = plain) -> int:
        """Return how many connect() calls succeed."""
        count = 0
        while True:
            kernel = self.keep(socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET))
            prepare(kernel)
            if error := kernel.connect_ex(server):
                assert error == errno.EADDRNOTAVAIL
                kernel.close()
                return count
            count += 1


@pytest.fixture
def host() -> Iterator[Host]:
    """A host with thirty ephemeral ports, and 127.0.0.0/8 and 10.9.0.1 as addresses of its own."""
    lab.require(lab.namespaces, lab.ipv6, lab.program("ss"), lab.program("ip"))
    with lab.Namespace() as namespace, ExitStack() as stack:
        namespace.sysctl("net.ipv4.ip_local_port_range", f"{LOW} {HIGH}")
        namespace.add_address("10.9.0.1/24")
        yield Host(namespace, stack)


@dataclass(frozen=True)
class Called:
    """A destination of connect() calls, and how they are made."""

    server: Address
    prepare: Prepare = plain
    local: str | None = None
    """The local address, where it is not that of the server."""
    interface: str = ""


Situation = Callable[[Host], Called]
EXACT: list[Situation] = []
BOUNDED: list[Situation] = []


def exact(situation: Situation) -> Situation:
    EXACT.append(situation)
    return situation


def bounded(situation: Situation) -> Situation:
    """Mark a situation in which no interface of the kernel shows how many ports are left."""
    BOUNDED.append(situation)
    return situation


@exact
def nothing(host: Host) -> Called:
    return Called(host.listen()[1])


@exact
def one_destination(host: Host) -> Called:
    server = host.listen()[1]
    host.open(21, server)
    return Called(server)


@exact
def mapped_and_plain(host: Host) -> Called:
    server = host.listen()[1]
    host.open(9, server)
    host.open(10, server, mapped=True)
    return Called(server)


@exact
def mapped_time_waits(host: Host) -> Called:
    host.namespace.sysctl("net.ipv4.tcp_tw_reuse", 0)
    listener, server = host.listen()
    host.leave_time_waits(6, listener)
    host.leave_time_waits(6, listener, mapped=True)
    return Called(server)


@exact
def ipv6(host: Host) -> Called:
    server = host.listen("::1")[1]
    host.open(11, server)
    return Called(server)


@exact
def no_reuse(host: Host) -> Called:
    host.namespace.sysctl("net.ipv4.tcp_tw_reuse", 0)
    listener, server = host.listen()
    host.leave_time_waits(12, listener)
    return Called(server)


@exact
def reuse_not_on_loopback(host: Host) -> Called:
    host.namespace.sysctl("net.ipv4.tcp_tw_reuse", 2)
    listener, server = host.listen("10.9.0.1")
    host.leave_time_waits(12, listener)
    return Called(server)


@exact
def reuse_delayed(host: Host) -> Called:
    lab.require(lab.kernel(6, 14))
    host.namespace.sysctl("net.ipv4.tcp_tw_reuse", 1)
    host.namespace.sysctl("net.ipv4.tcp_tw_reuse_delay", 60_000)
    listener, server = host.listen()
    host.leave_time_waits(SIZE, listener)
    return Called(server)


@bounded
def reused_after_a_shorter_delay(host: Host) -> Called:
    lab.require(lab.kernel(6, 14))
    host.namespace.sysctl("net.ipv4.tcp_tw_reuse", 1)
    host.namespace.sysctl("net.ipv4.tcp_tw_reuse_delay", 1)
    listener, server = host.listen()
    host.leave_time_waits(SIZE, listener)
    return Called(server)


@bounded
def without_timestamps(host: Host) -> Called:
    host.namespace.sysctl("net.ipv4.tcp_timestamps", 0)
    host.namespace.sysctl("net.ipv4.tcp_tw_reuse", 1)
    _reuse_at_once(host)
    listener, server = host.listen()
    host.leave_time_waits(20, listener)
    host.namespace.sysctl("net.ipv4.tcp_timestamps", 1)
    return Called(server)


@bounded
def timestamps_switched_off_later(host: Host) -> Called:
    host.namespace.sysctl("net.ipv4.tcp_tw_reuse", 1)
    _reuse_at_once(host)
    listener, server = host.listen()
    host.leave_time_waits(20, listener)
    host.namespace.sysctl("net.ipv4.tcp_timestamps", 0)
    return Called(server)


@bounded
def loopback_source(host: Host) -> Called:
    _reuse_at_once(host)
    listener, server = host.listen("10.9.0.1")
    host.leave_time_waits(20, listener, bound_without_port)
    return Called(server, bound_without_port, "127.0.0.1")


@bounded
def loopback_device(host: Host) -> Called:
    _reuse_at_once(host)
    listener, server = host.listen("10.9.0.1")
    host.leave_time_waits(20, listener, on_loopback)
    return Called(server, on_loopback, interface="lo")


def _reuse_at_once(host: Host) -> None:
    lab.require(lab.kernel(6, 14))
    host.namespace.sysctl("net.ipv4.tcp_tw_reuse_delay", 1)


@bounded
def without_device_after_device(host: Host) -> Called:
    server = host.listen()[1]
    host.open(7, server, on_loopback)
    return Called(server)


@exact
def device_after_none(host: Host) -> Called:
    server = host.listen()[1]
    host.open(7, server)
    host.open(4, server, on_loopback)
    return Called(server, on_loopback, interface="lo")


@exact
def reserved_held_and_listening(host: Host) -> Called:
    host.namespace.sysctl("net.ipv4.ip_local_reserved_ports", f"{LOW + 3},{LOW + 10}-{LOW + 14},{HIGH}-{HIGH + 9}")
    server = host.listen()[1]
    host.keep(socket.create_server(("127.0.0.9", LOW + 20)))
    host.bind(("::1", LOW + 22))
    host.open(5, server)
    return Called(server)


@exact
def several_local_addresses(host: Host) -> Called:
    server = host.listen()[1]
    host.bind(("127.0.0.9", LOW + 4))
    return Called(server, from_other_address, "127.0.0.7")


@bounded
def other_local_address_in_use(host: Host) -> Called:
    server = host.listen()[1]
    host.open(SIZE, server)
    return Called(server, from_other_address, "127.0.0.7")


@exact
def address_without_port(host: Host) -> Called:
    server = host.listen()[1]
    host.open(13, server, bound_without_port)
    return Called(server)


@bounded
def bound_before_connect(host: Host) -> Called:
    servers = [host.listen(f"127.0.1.{at}")[1] for at in range(1, 6)]
    for server in servers:
        host.open(SIZE // 5, server, bound)
    return Called(servers[0])


@bounded
def some_bound_before_connect(host: Host) -> Called:
    server, other = host.listen()[1], host.listen()[1]
    host.open(5, other, bound)
    host.open(6, server)
    return Called(server)


@bounded
def time_waits_of_bound_connections(host: Host) -> Called:
    _reuse_at_once(host)
    listener, server = host.listen()
    host.leave_time_waits(10, listener, bound)
    return Called(server)


@bounded
def range_of_the_socket(host: Host) -> Called:
    server = host.listen()[1]
    host.open(6, server, own_range)
    other = host.listen()[1]
    host.open(4, other)
    return Called(server)


@bounded
def odd_number_of_ports(host: Host) -> Called:
    host.namespace.sysctl("net.ipv4.ip_local_port_range", f"{LOW} {HIGH + 1}")
    server = host.listen()[1]
    host.open(SIZE, server)
    return Called(server)


def ports(monitor: Monitor) -> EphemeralPorts:
    found = monitor.step().ephemeral_ports
    assert found is not None
    return found


def bound_only(monitor: Monitor) -> int:
    return monitor.step().counts[State.CLOSED]


def toward(found: EphemeralPorts, called: Called) -> Destination | None:
    local = called.local or called.server[0]
    wanted = (local, *called.server, called.interface)
    return next(
        (to for to in found.destinations
         if (to.local_address, to.remote_address, to.remote_port, to.interface) == wanted), None
    )  # fmt: skip


def left(found: EphemeralPorts, called: Called) -> tuple[int, int]:
    """Return at least and at most how many ports are left."""
    to = toward(found, called)
    if to is not None:
        return to.free_least, to.free
    return found.range.size - found.occupied, found.range.usable


@pytest.mark.parametrize("situation", [*EXACT, *BOUNDED], ids=lambda one: one.__name__)
@pytest.mark.parametrize("watched_before", [False, True], ids=["older", "watched"])
def test_the_meter_is_what_connect_can_still_do(host: Host, situation: Situation, watched_before: bool) -> None:
    with closing(Monitor(LiveSource(events=True))) as monitor:
        if watched_before:
            ports(monitor)
        called = situation(host)
        lab.wait_until(lambda: bound_only(monitor) == host.bound_only, "the next dump of sockets that are only bound")
        found = ports(monitor)
        least, most = left(found, called)
        real = host.count_connects(called.server, called.prepare)
        assert least <= real <= most, found
        if situation in EXACT:
            assert least == most
        assert left(ports(monitor), called)[0] == 0


def test_what_a_watched_time_wait_had_is_known(host: Host) -> None:
    host.namespace.sysctl("net.ipv4.tcp_tw_reuse", 1)
    _reuse_at_once(host)
    with closing(Monitor(LiveSource(events=True))) as monitor:
        ports(monitor)
        used, unused = (host.listen() for _ in range(2))
        host.leave_time_waits(10, used[0])
        host.namespace.sysctl("net.ipv4.tcp_timestamps", 0)
        host.leave_time_waits(10, unused[0])
        host.namespace.sysctl("net.ipv4.tcp_timestamps", 1)

        def known() -> tuple[int, int]:
            found = ports(monitor)
            one, other = (toward(found, Called(server)) for _, server in (used, unused))
            assert one is not None and other is not None
            return one.unproven, other.without_timestamps

        lab.wait_until(lambda: known() == (0, 10), "the destroy events")
        found = ports(monitor)
        one, other = (toward(found, Called(server)) for _, server in (used, unused))
        assert one is not None and other is not None
        assert (one.reusable, one.used, one.time_wait) == (10, 0, 0)
        assert (other.reusable, other.used, other.time_wait, other.free) == (0, 10, 10, SIZE - 10)


def findings(monitor: Monitor, steps: int = 2) -> list[Finding]:
    found: tuple[Finding, ...] = ()
    for _ in range(steps):
        found = monitor.step().findings
    return [one for one in found if one.rule == "port-exhaustion"]


def test_a_range_that_bind_has_used_up(host: Host) -> None:
    bound_before_connect(host)
    with closing(Monitor(LiveSource())) as monitor:
        (finding,) = findings(monitor)
        assert (finding.severity, finding.subject.kind) == (Severity.CRITICAL, "host")
        assert finding.headline.startswith(
            "100 % of all 30 ports in use, 30 by connections to 5 destinations, 0 unused"
        )
        assert monitor.step().port_usage.share == 1.0


def test_a_range_that_listeners_have_used_up(host: Host) -> None:
    for _ in range(SIZE):
        host.keep(socket.create_server(("127.0.0.1", 0)))
    with closing(Monitor(LiveSource())) as monitor:
        (finding,) = findings(monitor)
        assert (finding.severity, finding.subject.kind) == (Severity.CRITICAL, "host")
        assert "30 held by bind(), 0 unused" in finding.headline


def test_when_the_ports_run_out(host: Host) -> None:
    """One connection a second, of which the finding is right: after so many seconds connect() fails."""
    server = host.listen()[1]
    host.open(SIZE // 2, server)
    with closing(Monitor(SteadySource())) as monitor:
        for _ in range(4):
            host.open(1, server)
            found = findings(monitor, 1)
    (finding,) = found
    used, left = SIZE // 2 + 4, SIZE // 2 - 4
    assert finding.headline.startswith(f"63 % of {SIZE} ports used, {left} left, runs out in {left} s")
    assert host.count_connects(server) == SIZE - used == left


@pytest.mark.parametrize(("delay_ms", "words"), [(1_000, "after one second"), (200, "after 0.2 s")])
def test_time_waits_that_hold_ports(host: Host, delay_ms: int, words: str) -> None:
    """connect() takes them when and as soon as the advice says."""
    host.namespace.sysctl("net.ipv4.tcp_tw_reuse", 0)
    if delay_ms != 1_000:
        lab.require(lab.kernel(6, 14))
        host.namespace.sysctl("net.ipv4.tcp_tw_reuse_delay", delay_ms)
    listener, server = host.listen()
    host.leave_time_waits(SIZE, listener)
    with closing(Monitor(LiveSource())) as monitor:
        (finding,) = findings(monitor)
    assert finding.headline.startswith(f"100 % of {SIZE} ports used, 0 left, {SIZE} TIME_WAIT, next free in ")
    assert finding.advice[1] == f"With net.ipv4.tcp_tw_reuse=1 connect() takes the port of a TIME_WAIT {words}."
    assert host.count_connects(server) == 0
    host.namespace.sysctl("net.ipv4.tcp_tw_reuse", 1)
    lab.wait_until(lambda: host.count_connects(server) > 0, "a port that is taken", 10)


def test_time_waits_whose_ports_are_kept(host: Host) -> None:
    called = reuse_delayed(host)
    with closing(Monitor(LiveSource())) as monitor:
        (finding,) = findings(monitor)
    assert finding.advice[1] == "net.ipv4.tcp_tw_reuse_delay keeps the port of a TIME_WAIT for 1 m 00 s."
    assert host.count_connects(called.server) == 0


def leave_time_waits_without_timestamps(host: Host) -> Address:
    host.namespace.sysctl("net.ipv4.tcp_timestamps", 0)
    host.namespace.sysctl("net.ipv4.tcp_tw_reuse", 1)
    _reuse_at_once(host)
    listener, server = host.listen()
    host.leave_time_waits(20, listener)
    return server


def test_time_waits_without_timestamps(host: Host) -> None:
    """The destroy events of connections that end while tcpwatch runs show whether they had timestamps."""
    with closing(Monitor(LiveSource(events=True))) as monitor:
        ports(monitor)
        server = leave_time_waits_without_timestamps(host)

        def known() -> list[Finding]:
            return [one for one in findings(monitor, 1) if ", 20 TIME_WAIT" in one.headline]

        (finding,) = lab.wait_until(known, "the finding")
    assert finding.headline.startswith(f"67 % of {SIZE} ports used, 10 left, 20 TIME_WAIT")
    assert "had no TCP timestamps, so tcp_tw_reuse does not free their ports." in finding.advice[1]
    assert host.count_connects(server) == 10


def test_time_waits_that_perhaps_had_no_timestamps(host: Host) -> None:
    server = leave_time_waits_without_timestamps(host)
    with closing(Monitor(LiveSource())) as monitor:
        (finding,) = findings(monitor)
    assert finding.headline.startswith(f"0 % of {SIZE} ports used, at most {SIZE} left, 20 TIME_WAIT perhaps not")
    assert "whether the connections in TIME_WAIT had timestamps, without which their ports" in finding.why
    assert host.count_connects(server) == 10


def test_ports_that_bind_may_have_chosen(host: Host) -> None:
    server, other = host.listen()[1], host.listen()[1]
    host.open(5, other, bound)
    host.open(16, server)
    with closing(Monitor(LiveSource())) as monitor:
        (finding,) = findings(monitor)
    assert finding.headline.startswith(f"53 % of {SIZE} ports used, at most 14 left")
    assert "whether bind() chose ports that are in TIME_WAIT or in use elsewhere: fewer" in finding.why
    assert host.count_connects(server) == 9


def test_plain_connections_to_many_destinations_are_no_finding(host: Host) -> None:
    for _ in range(12):
        host.open(SIZE // 2 - 1, host.listen()[1])
    with closing(Monitor(LiveSource())) as monitor:
        assert findings(monitor) == []


def test_a_range_of_the_socket_that_is_used_up(host: Host) -> None:
    host.namespace.sysctl("net.ipv4.ip_local_port_range", f"{LOW} {LOW + 299}")
    server = host.listen()[1]

    def narrow(kernel: socket.socket) -> None:
        kernel.setsockopt(socket.SOL_IP, _IP_LOCAL_PORT_RANGE, struct.pack("I", LOW + 40 | (LOW + 69) << 16))

    lab.require(lab.kernel(6, 8))
    assert host.count_connects(server, narrow) == 30
    with closing(Monitor(LiveSource())) as monitor:
        (finding,) = findings(monitor)
        assert finding.severity is Severity.WARNING
        assert finding.headline.startswith(f"all 30 usable ports from {LOW + 40} to {LOW + 69} are used")


@pytest.fixture
def traced(host: Host) -> Iterator[Monitor]:
    lab.require(tracefs)
    with closing(Monitor(LiveSource(events=True, trace=True))) as monitor:
        monitor.step()
        yield monitor


def test_failed_connects_are_proof(host: Host, traced: Monitor) -> None:
    server = host.listen()[1]
    host.namespace.sysctl("net.ipv4.ip_local_port_range", f"{LOW} {LOW + 299}")
    assert host.count_connects(server, own_range) == 10
    lab.wait_until(lambda: bool(findings(traced, 1)), "the finding")
    (finding,) = findings(traced, 1)
    assert finding.severity is Severity.CRITICAL
    assert finding.headline.startswith("connect() fails with EADDRNOTAVAIL")
    assert str(finding.subject) == f"destination 127.0.0.1:{server[1]} from 127.0.0.1"


def test_failed_connects_toward_a_destination_without_connections(host: Host, traced: Monitor) -> None:
    server = host.listen()[1]
    for _ in range(SIZE):
        host.keep(socket.create_server(("127.0.0.1", 0)))
    assert host.count_connects(server) == 0

    def found() -> list[Finding]:
        return [one for one in findings(traced, 1) if one.subject.kind == "destination"]

    (finding,) = lab.wait_until(found, "the finding")
    assert finding.headline == f"connect() fails with EADDRNOTAVAIL, {SIZE} of {SIZE} ports held by bind()"
    assert str(finding.subject) == f"destination 127.0.0.1:{server[1]} from 127.0.0.1"


def test_failed_connects_of_another_namespace_are_not_ours(host: Host, traced: Monitor) -> None:
    mine = host.listen()[1]
    host.open(2, mine)
    with lab.Namespace() as other, ExitStack() as stack:
        other.sysctl("net.ipv4.ip_local_port_range", f"{LOW} {LOW + 1}")
        elsewhere = Host(other, stack)
        server = elsewhere.listen()[1]
        assert elsewhere.count_connects(server) == 2
    for _ in range(3):
        assert findings(traced, 1) == []
        assert ports(traced).failed == ()


def test_traced_connections_that_called_bind_hold_their_ports(host: Host, traced: Monitor) -> None:
    servers = [host.listen(f"127.0.1.{at}")[1] for at in range(1, 6)]
    for server in servers:
        host.open(2, server, bound)
    host.open(7, servers[0])
    lab.wait_until(lambda: ports(traced).range.held == 10, "the trace")
    found = ports(traced)
    (one,) = found.destinations
    assert (one.used, one.free, one.exact) == (7, SIZE - 17, True)
    assert host.count_connects(servers[0]) == one.free
