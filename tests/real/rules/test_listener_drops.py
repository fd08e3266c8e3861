"""`listener-drops` on the real kernel: reasons that a counter names, one that none names, and none at all."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tcpwatch.config.thresholds import DEFAULT
from tcpwatch.model.finding import Finding
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.rules.queues.listener_drops import listener_drops
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tests import lab

TCP_MD5SIG, SO_ATTACH_FILTER = 14, 26
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)
"""A classic BPF program: accept 0 bytes of each packet."""


@pytest.fixture
def stack(namespace: lab.Namespace) -> Iterator[ExitStack]:
    with ExitStack() as it:
        yield it


@pytest.fixture
def monitor(stack: ExitStack, namespace: lab.Namespace) -> Monitor:
    monitor = stack.enter_context(closing(Monitor(LiveSource())))
    monitor.step()
    return monitor


def listen(stack: ExitStack) -> tuple[socket.socket, int]:
    one = stack.enter_context(socket.create_server((lab.LOCAL[4], 0), backlog=64))
    return one, one.getsockname()[1]


def drops(view: View, port: int) -> int:
    return next(one.drops or 0 for one in view.listeners if one.local_port == port)


def knock(peer: lab.Peer, port: int, monitor: Monitor, count: int) -> View:
    """Let the listener drop `count` more SYNs, and return the View after that."""
    view = monitor.step()
    before = drops(view, port)
    for _ in range(count):
        peer.knock(port)
    lab.wait_until(lambda: dropped_in_ss(port) == before + count, f"{count} drops")
    return monitor.step()


def dropped_in_ss(port: int) -> int:
    with closing(LiveSource()) as live:
        sample = live.sample()
        return next(sample.drops[int(one)] for one in sample.cookie[(sample.local_port == port) & (sample.state == 10)])


def found(view: View) -> list[Finding]:
    return [candidate.finding for candidate in listener_drops(view, DEFAULT)]


def test_syns_without_a_signature(peer: lab.Peer, stack: ExitStack, monitor: Monitor) -> None:
    listener, port = listen(stack)
    address = struct.unpack("=I", socket.inet_aton(lab.REMOTE[4]))[0]
    key = struct.pack("=HHI120xBBHI80s", socket.AF_INET, 0, address, 0, 0, 3, 0, b"key")
    listener.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, key)
    assert not found(knock(peer, port, monitor, 1))
    (finding,) = found(knock(peer, port, monitor, 3))
    assert str(finding.subject) == f"listener {lab.LOCAL[4]}:{port}"
    assert finding.headline.endswith("4 segments dropped within 30 s, TCPMD5NotFound rose by 4")
    assert int(Filter.parse(finding.filter).mask(monitor.step().rows).sum()) == 1


def test_a_filter_of_the_socket(peer: lab.Peer, stack: ExitStack, monitor: Monitor) -> None:
    listener, port = listen(stack)
    program = ctypes.create_string_buffer(DROP_ALL)
    attached = struct.pack("HxxxxxxP", 1, ctypes.addressof(program))
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, attached)
    assert not found(knock(peer, port, monitor, 2)), "one step is not enough where no counter names the reason"
    (finding,) = found(knock(peer, port, monitor, 2))
    assert finding.headline.endswith("4 segments dropped within 30 s, for a reason that no counter names")


def test_what_is_usual_in_handshakes_is_no_finding(
    namespace: lab.Namespace, peer: lab.Peer, stack: ExitStack, monitor: Monitor
) -> None:
    """SYNs that are repeated, and resets of half-open connections, are counted as drops of the listener too."""
    _, port = listen(stack)
    for _ in range(3):
        half_open = [peer.half_open(port) for _ in range(3)]
        for one in half_open:
            one.syn()
        lab.wait_until(lambda: dropped_in_ss(port) > 0, "drops of repeated SYNs")
        for one in half_open:
            one.rst()
        view = monitor.step()
        assert not found(view)
    assert drops(view, port) > 0


def test_a_full_queue_is_no_other_reason(
    namespace: lab.Namespace, peer: lab.Peer, stack: ExitStack, monitor: Monitor
) -> None:
    full = stack.enter_context(socket.create_server((lab.LOCAL[4], 0), backlog=2))
    port = full.getsockname()[1]
    for _ in range(3):
        peer.open(port)
    for _ in range(2):
        assert not found(knock(peer, port, monitor, 3))
