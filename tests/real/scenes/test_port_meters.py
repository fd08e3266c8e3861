"""Ephemeral ports on the real kernel: the figures agree with connect() and with ss."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tcpwatch.model.analyses.ephemeral_ports import Destination, EphemeralPorts
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.support.kernel import ss

LOW, HIGH = 30_000, 30_029
SERVER, OTHER = ("127.0.0.1", 8080), ("127.0.0.1", 8082)
REMOTE = "127.0.0.1:8082"


@pytest.fixture
def namespace() -> Iterator[lab.Namespace]:
    """A new namespace for each test: sockets of an earlier test would hold ports."""
    lab.require(lab.namespaces, lab.program("ss"))
    with lab.Namespace() as it:
        yield it


@pytest.fixture
def monitor(namespace: lab.Namespace) -> Iterator[Monitor]:
    namespace.sysctl("net.ipv4.ip_local_port_range", f"{LOW} {HIGH}")
    namespace.sysctl("net.ipv4.tcp_tw_reuse", 0)
    with closing(Monitor(LiveSource())) as it:
        yield it


@pytest.fixture
def stack(monitor: Monitor) -> Iterator[ExitStack]:
    """Closes the sockets of a test before the namespace is left."""
    with ExitStack() as it:
        it.enter_context(socket.create_server(SERVER, backlog=512))
        yield it


def ports(monitor: Monitor) -> EphemeralPorts:
    found = monitor.step().ephemeral_ports
    assert found is not None
    return found


def toward(monitor: Monitor, remote: str = "127.0.0.1:8080") -> Destination | None:
    return next((one for one in ports(monitor).destinations if one.remote == remote), None)


def left(monitor: Monitor, remote: str = "127.0.0.1:8080") -> int:
    one = toward(monitor, remote)
    return one.free if one else ports(monitor).range.usable


def connect(stack: ExitStack, server: tuple[str, int] = SERVER) -> socket.socket:
    return stack.enter_context(socket.create_connection(server, timeout=5))


def assert_exhausted(stack: ExitStack, server: tuple[str, int] = SERVER) -> None:
    with pytest.raises(OSError) as caught:
        connect(stack, server)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def by_hand(namespace: lab.Namespace, remote: str = "127.0.0.1:8080") -> int:
    """Return the ports of the range that ss shows in use toward `remote`."""
    ports = {line.local.port for line in ss.lines(namespace) if f"{line.remote.address}:{line.remote.port}" == remote}
    return sum(LOW <= port <= HIGH for port in ports)


def fill(monitor: Monitor, stack: ExitStack, until: int = 1) -> list[socket.socket]:
    """Connect until the meter shows this number of free ports."""
    return [connect(stack) for _ in range(left(monitor) - until)]


def test_connect_succeeds_with_one_port_left_and_fails_with_none(
    namespace: lab.Namespace, monitor: Monitor, stack: ExitStack
) -> None:
    usable = ports(monitor).range.usable
    assert usable == HIGH - LOW + 1
    fill(monitor, stack)
    one = toward(monitor)
    assert one is not None
    assert (one.used, one.free) == (usable - 1, 1)
    assert by_hand(namespace) == one.used
    connect(stack)
    assert left(monitor) == 0
    assert_exhausted(stack)
    assert by_hand(namespace) == usable


def test_another_destination_has_ports_of_its_own(monitor: Monitor, stack: ExitStack) -> None:
    other = ("127.0.0.1", 8081)
    stack.enter_context(socket.create_server(other, backlog=64))
    fill(monitor, stack, until=0)
    assert_exhausted(stack)
    assert left(monitor, "127.0.0.1:8081") == HIGH - LOW + 1
    connect(stack, other)
    assert left(monitor, "127.0.0.1:8081") == HIGH - LOW


def test_connect_does_not_use_reserved_and_bound_ports(
    namespace: lab.Namespace, monitor: Monitor, stack: ExitStack
) -> None:
    namespace.sysctl("net.ipv4.ip_local_reserved_ports", f"{LOW + 3},{LOW + 10}-{LOW + 14},{HIGH}-{HIGH + 9}")
    stack.enter_context(socket.create_server(("127.0.0.1", LOW + 20), backlog=8))
    bound = stack.enter_context(socket.socket())
    bound.bind(("127.0.0.1", LOW + 21))
    span = ports(monitor).range
    assert (span.reserved, span.held, span.usable) == (7, 2, HIGH - LOW + 1 - 9)
    fill(monitor, stack)
    connect(stack)
    assert left(monitor) == 0
    assert_exhausted(stack)


def test_connections_of_a_listener_in_the_range_hold_one_port(monitor: Monitor, stack: ExitStack) -> None:
    inside = ("127.0.0.1", LOW + 5)
    listener = stack.enter_context(socket.create_server(inside, backlog=8))
    for _ in range(3):
        connect(stack, inside)
        stack.enter_context(listener.accept()[0])
    found = ports(monitor)
    assert found.range.held == 1
    fill(monitor, stack)
    connect(stack)
    assert left(monitor) == 0
    assert_exhausted(stack)


def test_time_waits_pin_ports(namespace: lab.Namespace, monitor: Monitor, stack: ExitStack) -> None:
    time_waits(monitor, stack)
    one = toward(monitor, REMOTE)
    assert one is not None
    assert (one.used, one.time_wait, one.reusable, one.free) == (HIGH - LOW + 1, 10, 0, 0)
    assert by_hand(namespace, REMOTE) == one.used
    assert one.next_free_s is not None
    assert 50 < one.next_free_s <= 60
    assert_exhausted(stack, OTHER)


def test_reusable_time_waits_do_not_pin_ports(namespace: lab.Namespace, monitor: Monitor, stack: ExitStack) -> None:
    namespace.sysctl("net.ipv4.tcp_tw_reuse", 1)
    time_waits(monitor, stack)
    lab.wait_until(
        lambda: (one := toward(monitor, REMOTE)) is not None and one.reusable == 10, "that all may be reused"
    )
    one = toward(monitor, REMOTE)
    assert one is not None
    assert (one.used, one.time_wait, one.free) == (HIGH - LOW - 9, 0, 10)
    for _ in range(10):
        connect(stack, OTHER)
    assert left(monitor, REMOTE) == 0
    assert_exhausted(stack, OTHER)


def time_waits(monitor: Monitor, stack: ExitStack) -> None:
    """All ports are used, ten of them by our TIME_WAITs."""
    listener = stack.enter_context(socket.create_server(OTHER, backlog=64))
    sockets = [connect(stack, OTHER) for _ in range(HIGH - LOW + 1)]
    accepted = {one.getpeername()[1]: one for one in (stack.enter_context(listener.accept()[0]) for _ in sockets)}
    for client in sockets[:10]:
        server = accepted[client.getsockname()[1]]
        client.close()
        assert server.recv(1) == b""
        server.close()
    lab.wait_until(lambda: waiting(monitor) == 10, "ten TIME_WAITs")


def waiting(monitor: Monitor) -> int:
    one = toward(monitor, REMOTE)
    return one.time_wait + one.reusable if one else 0
