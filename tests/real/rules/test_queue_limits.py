"""What sets the limit of a queue, and what the kernel does beyond it, on the real kernel."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tcpwatch.model.finding import Finding
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.lab.diag import dump


@pytest.fixture
def namespace() -> Iterator[lab.Namespace]:
    lab.require(lab.namespaces, lab.tun, lab.ipv6, lab.program("ss"))
    with lab.Namespace() as it:
        yield it


@pytest.fixture
def peer(namespace: lab.Namespace) -> Iterator[lab.Peer]:
    with lab.Peer(namespace) as it:
        yield it


@pytest.fixture
def monitor(namespace: lab.Namespace) -> Iterator[Monitor]:
    with closing(Monitor(LiveSource())) as it:
        yield it


@pytest.fixture
def stack(namespace: lab.Namespace) -> Iterator[ExitStack]:
    with ExitStack() as it:
        yield it


def listen(stack: ExitStack, backlog: int) -> tuple[socket.socket, int]:
    kernel = stack.enter_context(socket.create_server((lab.LOCAL[4], 0), backlog=backlog))
    return kernel, kernel.getsockname()[1]


def limit_in_ss(port: int) -> int:
    return next(row.transmit_queue for row in dump(4, "LISTEN") if row.local.port == port)


def finding(monitor: Monitor, rule: str, steps: int = 2) -> Finding:
    for _ in range(steps):
        found = monitor.step().findings
    return next(one for one in found if one.rule == rule)


def test_the_accept_queue_ends_at_somaxconn(
    namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor, stack: ExitStack
) -> None:
    """A restart with a larger somaxconn helps only if the backlog is larger: listen() takes the smaller of the two."""
    namespace.sysctl("net.core.somaxconn", 2)
    for backlog, raised in ((1000, 5), (2, 2)):
        kernel, port = listen(stack, backlog)
        for _ in range(3):
            peer.open(port)
        found = finding(monitor, "accept-queue-full")
        assert found.advice[1].startswith("The limit equals net.core.somaxconn (2): raise it, then restart ")
        namespace.sysctl("net.core.somaxconn", 5)
        kernel.close()
        _, port = listen(stack, backlog)
        assert limit_in_ss(port) == raised
        namespace.sysctl("net.core.somaxconn", 2)


def test_somaxconn_was_raised_after_listen(
    namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor, stack: ExitStack
) -> None:
    """The kernel keeps the limit, and does not show which of the two it was."""
    namespace.sysctl("net.core.somaxconn", 2)
    _, port = listen(stack, 1000)
    namespace.sysctl("net.core.somaxconn", 4096)
    assert limit_in_ss(port) == 2
    for _ in range(3):
        peer.half_open(port)
    syns = finding(monitor, "syn-queue-full")
    assert syns.advice[0].startswith("The limit is from listen(): the backlog that the application passed, or net.core")
    for _ in range(3):
        peer.open(port)
    full = finding(monitor, "accept-queue-full")
    assert "passed, or net.core.somaxconn at that time (now 4096). Raise" in full.advice[1]


def test_the_syn_queue_ends_at_somaxconn(
    namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor, stack: ExitStack
) -> None:
    namespace.sysctl("net.core.somaxconn", 4)
    _, port = listen(stack, 1000)
    for _ in range(5):
        peer.half_open(port)
    before = namespace.counters()["TCPReqQFullDoCookies"]
    peer.knock(port)
    assert namespace.counters()["TCPReqQFullDoCookies"] == before + 1
    found = finding(monitor, "syn-queue-full")
    assert found.advice[0].startswith("The limit equals net.core.somaxconn: raise it")


def test_the_syn_queue_ends_at_three_quarters_of_its_sysctl(
    namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor, stack: ExitStack
) -> None:
    namespace.sysctl("net.ipv4.tcp_syncookies", 0)
    namespace.sysctl("net.ipv4.tcp_max_syn_backlog", 16)
    _, port = listen(stack, 1000)
    monitor.step()
    for _ in range(24):
        peer.knock(port)
    half_open = len(dump(4, "SYN_RCVD"))
    assert half_open == 13, "twelve, and one that the kernel adds when the limit is reached"
    found = finding(monitor, "syn-queue-full")
    assert found.headline.startswith("13 of 12 half-open")
    assert namespace.counters()["ListenDrops"] == 11
    assert found.advice[0].startswith(
        "The limit is three quarters of net.ipv4.tcp_max_syn_backlog (tcp_syncookies is 0)"
    )
    namespace.sysctl("net.ipv4.tcp_max_syn_backlog", 64)
    peer.half_open(port)


@pytest.mark.parametrize("abort", [0, 1])
def test_what_the_kernel_does_beyond_the_limit(
    abort: int, namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor, stack: ExitStack
) -> None:
    namespace.sysctl("net.ipv4.tcp_abort_on_overflow", abort)
    _, port = listen(stack, 2)
    late = peer.half_open(port)
    for _ in range(3):
        peer.open(port)
    monitor.step()
    refused = peer.knock(port)
    late.complete()
    lab.wait_until(lambda: namespace.counters()["ListenOverflows"] == 2, "two overflows")
    assert (refused.answered, refused.reset, late.reset) == (False, False, bool(abort)), "the SYN is always dropped"
    assert [row.local.port for row in dump(4, "SYN_RCVD")] == [port] * (1 - abort)
    found = finding(monitor, "accept-queue-full", steps=1)
    assert " beyond the limit: it drops their SYNs" in found.why
    if not abort:
        syns = finding(monitor, "accept-queue-full")
        assert "believe they are connected" in syns.why


def test_a_queue_that_is_full_between_the_polls_alone(
    namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor, stack: ExitStack
) -> None:
    for cookies, effect in ((1, "answered with cookies"), (0, "dropped")):
        namespace.sysctl("net.ipv4.tcp_syncookies", cookies)
        kernel, port = listen(stack, 4)
        monitor.step()
        for _ in range(2):
            clients = [peer.knock(port) for _ in range(8)]
            assert len(dump(4, "SYN_RCVD")) == 5
            for client in clients:
                client.rst()
            assert not dump(4, "SYN_RCVD")
            found = monitor.step().findings
        (one,) = (each for each in found if each.rule == "syn-queue-full" and effect in each.headline)
        assert one.headline.endswith(f" {effect} because a SYN queue was full between the polls")
        assert one.subject.kind == "host"
        kernel.close()


def test_a_peak_between_two_polls(namespace: lab.Namespace, peer: lab.Peer, stack: ExitStack) -> None:
    kernel, port = listen(stack, 4)
    with closing(Monitor(LiveSource(watch_queues=True))) as monitor:
        for _ in range(2):
            clients = [peer.open(port) for _ in range(5)]
            monitor._source._queues._read_depths()  # type: ignore[attr-defined]  # so that nothing has to be waited for
            assert next(row.receive_queue for row in dump(4, "LISTEN")) == 5
            kernel.accept()[0].close()
            view = monitor.step()
            for _ in clients[1:]:
                kernel.accept()[0].close()
        (found,) = (one for one in view.findings if one.rule == "accept-queue-full")
        assert "4 of 4 waiting, peak 5" in found.headline
