"""`listener-drops` on the real kernel: reasons that a counter names, one that none names, and none at all."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Callable, Iterator
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
from tests.lab.machine.requirements import tracefs
from tests.lab.machine.tracefs import tracefs_root
from tests.lab.wire import connection

TCP_MD5SIG, SO_ATTACH_FILTER, IP_MINTTL = 14, 26, 21
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
    sign(listener, lab.REMOTE[4], b"key")
    assert not found(knock(peer, port, monitor, 1))
    (finding,) = found(knock(peer, port, monitor, 3))
    assert str(finding.subject) == f"listener {lab.LOCAL[4]}:{port}"
    assert finding.headline.endswith("4 segments dropped within 30 s, TCPMD5NotFound rose by 4")
    assert int(Filter.parse(finding.filter).mask(monitor.step().rows).sum()) == 1


def sign(kernel: socket.socket, address: str, key: bytes) -> None:
    """Set the TCP-MD5 key for an address."""
    packed = struct.unpack("=I", socket.inet_aton(address))[0]
    signature = struct.pack("=HHI120xBBHI80s", socket.AF_INET, 0, packed, 0, 0, len(key), 0, key)
    kernel.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, signature)


def call(stack: ExitStack, port: int) -> None:
    """Begin an attempt from this host with a TCP-MD5 key."""
    client = stack.enter_context(socket.socket())
    client.setblocking(False)
    sign(client, lab.LOCAL[4], b"one")
    client.connect_ex((lab.LOCAL[4], port))


def unexpected_signature(peer: lab.Peer, stack: ExitStack, listener: socket.socket, port: int) -> None:
    call(stack, port)


def other_signature(peer: lab.Peer, stack: ExitStack, listener: socket.socket, port: int) -> None:
    sign(listener, lab.LOCAL[4], b"other")
    call(stack, port)


def few_hops(peer: lab.Peer, stack: ExitStack, listener: socket.socket, port: int) -> None:
    listener.setsockopt(socket.SOL_IP, IP_MINTTL, 255)
    peer.knock(port)


def wrong_echo(peer: lab.Peer, stack: ExitStack, listener: socket.socket, port: int) -> None:
    client = peer.half_open(port, offer=lab.Offer(timestamps=True))
    client._timestamp = (client._timestamp + 1_000_000_000) % (1 << 32)
    client.complete()


def old_timestamp(peer: lab.Peer, stack: ExitStack, listener: socket.socket, port: int) -> None:
    client = peer.half_open(port, offer=lab.Offer(timestamps=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "_clock", lambda: 1)
        client.complete()


Cause = Callable[[lab.Peer, ExitStack, socket.socket, int], None]
CAUSES: list[tuple[Cause, str]] = [
    (unexpected_signature, "TCPMD5Unexpected"), (other_signature, "TCPMD5Failure"), (few_hops, "TCPMinTTLDrop"),
    (wrong_echo, "TSEcrRejected"), (old_timestamp, "PAWSEstab"),
]  # fmt: skip


@pytest.mark.parametrize(("cause", "counter"), CAUSES, ids=[counter for _, counter in CAUSES])
def test_a_counter_names_the_reason(
    cause: Cause, counter: str, namespace: lab.Namespace, peer: lab.Peer, stack: ExitStack, monitor: Monitor
) -> None:
    if counter == "TSEcrRejected":
        lab.require(lab.kernel(6, 15))
    listener, port = listen(stack)
    monitor.step()
    before = namespace.counters()[counter]
    for _ in range(3):
        cause(peer, stack, listener, port)
    lab.wait_until(lambda: dropped_in_ss(port) == 3, "drops")
    assert namespace.counters()[counter] == before + 3
    (finding,) = (one for one in monitor.step().findings if one.rule == "listener-drops")
    assert finding.headline.endswith(f"3 segments dropped within 30 s, {counter} rose by 3")


def test_wrong_checksums_are_no_drops_of_a_listener(
    namespace: lab.Namespace, peer: lab.Peer, stack: ExitStack, monitor: Monitor
) -> None:
    _, port = listen(stack)
    before = namespace.counters()["InCsumErrors"]
    for number in range(3):
        ends = lab.Endpoint(lab.REMOTE[4], 1_000 + number), lab.Endpoint(lab.LOCAL[4], port)
        packet = lab.Segment(*ends, lab.Flag.SYN, seq=1).pack()
        peer._wire.send_packet(packet[:-1] + bytes([packet[-1] ^ 1]))
    assert namespace.counters()["InCsumErrors"] == before + 3
    assert dropped_in_ss(port) == 0
    assert not [found(monitor.step()) for _ in range(2)][1]


def test_the_addresses_are_in_the_trace_events() -> None:
    lab.require(tracefs, lab.kernel(6, 11))
    events = tracefs_root() / "events/tcp"
    names = {"tcp_hash_md5_required", "tcp_hash_md5_unexpected", "tcp_hash_md5_mismatch", "tcp_ao_handshake_failure"}
    assert names <= {path.name for path in events.iterdir()}
    assert all("saddr" in (events / name / "format").read_text() for name in names)


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
