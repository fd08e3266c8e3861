"""Listeners on one port that are bound to different interfaces, on the real kernel."""

from __future__ import annotations

import functools
import socket
from contextlib import ExitStack, closing

from tcpwatch.model.finding import Finding
from tcpwatch.model.query.filter import Filter
from tcpwatch.monitor import Monitor
from tcpwatch.report.summary_json import summary
from tcpwatch.sources.live import LiveSource
from tests import lab


def listener(stack: ExitStack, port: int, device: str, backlog: int) -> socket.socket:
    one = stack.enter_context(socket.socket())
    one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    one.bind(("0.0.0.0", port))
    one.listen(backlog)
    return one


def test_two_devices_are_two_listeners(peer: lab.Peer) -> None:
    with ExitStack() as stack:
        local = listener(stack, 0, "lo", 1)
        port = local.getsockname()[1]
        listener(stack, port, peer.device, 64)
        for _ in range(2):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        for _ in range(3):
            peer.open(port)
        monitor = stack.enter_context(closing(Monitor(LiveSource())))
        monitor.step()
        view = monitor.step()
        found = {
            one.endpoint: (one.waiting, one.accept_queue.depth) for one in view.listeners if one.local_port == port
        }
        assert found == {f"*%lo:{port}": (2, 2), f"*%{peer.device}:{port}": (3, 3)}
        (full,) = (one for one in view.findings if one.rule == "accept-queue-full")
        assert str(full.subject) == f"listener *%lo:{port}"
        assert selected(full, view.rows) == 2
        interfaces = {one["interface"] for one in summary(view)["listeners"] if one["local_port"] == port}
        assert interfaces == {"lo", peer.device}


def selected(finding: Finding, rows: object) -> int:
    return int(Filter.parse(finding.filter).mask(rows).sum())  # type: ignore[arg-type]


def test_scopes_of_a_link_local_address(namespace: lab.Namespace) -> None:
    namespace.ip("link add a0 type veth peer a1", "link add b0 type veth peer b1")
    for device in ("a0", "a1", "b0", "b1"):
        namespace.ip(f"link set {device} up")
    for device in ("a0", "b0"):
        namespace.ip(f"address add fe80::77/64 dev {device} nodad")
    with ExitStack() as stack:
        port = 0
        for device in ("a0", "b0"):
            one = stack.enter_context(socket.socket(socket.AF_INET6))
            lab.wait_until(functools.partial(bind, one, port, device), f"fe80::77%{device}")
            one.listen(8)
            port = one.getsockname()[1]
        stack.enter_context(socket.create_connection(("fe80::77%b0", port)))
        monitor = stack.enter_context(closing(Monitor(LiveSource())))
        found = {one.endpoint: one.waiting for one in monitor.step().listeners if one.local_port == port}
        assert found == {f"[fe80::77]%a0:{port}": 0, f"[fe80::77]%b0:{port}": 1}


def bind(one: socket.socket, port: int, device: str) -> bool:
    try:
        one.bind(("fe80::77", port, 0, socket.if_nametoindex(device)))
    except OSError:  # the address is not usable yet
        return False
    return True
