"""What is certain about accept() on the real kernel: a hung application, resets, ports used again, TCP Fast Open."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Finding
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_limits import Queue
from tcpwatch.model.rules.half_open.verdict import half_open_verdict
from tcpwatch.model.states import Role, State
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.lab.machine.sk_lookup import all_connections_to, bpf_sk_lookup
from tests.support.kernel import ss

SOON = Thresholds(accept_stalled_s=0.001, accept_stalled_count=4)


@pytest.fixture
def monitor(namespace: lab.Namespace) -> Iterator[Monitor]:
    with closing(Monitor(LiveSource(events=True), thresholds=SOON)) as it:
        yield it


def listener_of(view: View, kernel: socket.socket) -> Listener:
    inode = socket_inode(kernel)
    return next(one for one in view.listeners if one.inode == inode)


def socket_inode(kernel: socket.socket) -> int:
    return os.fstat(kernel.fileno()).st_ino


def stalled(view: View) -> list[Finding]:
    return [one for one in view.findings if one.rule == "accept-stalled"]


def depth_in_ss(namespace: lab.Namespace, kernel: socket.socket) -> int:
    port = kernel.getsockname()[1]
    return next(line.recv_queue for line in ss.lines(namespace) if line.state == "LISTEN" and line.local.port == port)


def state_of(client: lab.Connection) -> str:
    row = lab.find_row(4, client.local, client.remote)
    return row.state if row else ""


def reset(kernel: socket.socket) -> None:
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    kernel.close()


def test_a_hung_application_below_its_limit(namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor) -> None:
    with socket.create_server((lab.LOCAL[4], 0), backlog=100) as kernel:
        port = kernel.getsockname()[1]
        monitor.step()
        clients = [peer.open(port) for _ in range(3)]
        clients[0].close()
        assert not stalled(monitor.step()), "one poll proves nothing"
        monitor.step()
        clients.append(peer.open(port))
        assert [one.severity.name for one in stalled(monitor.step())] == ["WARNING"]
        view = monitor.step()
        (finding,) = stalled(view)
        one = listener_of(view, kernel)
        assert one.accept_queue == Queue(depth_in_ss(namespace, kernel), 100) == Queue(4, 100)
        assert one.accepted_per_s == 0
        assert one.stalled_s is not None
        assert one.waiting_s is not None
        assert 0 < one.stalled_s <= one.waiting_s + 0.01, "by another clock"
        assert (finding.severity.name, finding.evidence["clients_given_up"].value) == ("CRITICAL", 1)
        assert "4 of 100 waiting" in finding.headline
        kernel.accept()[0].close()
        view = monitor.step()
        assert listener_of(view, kernel).stalled_s is None
        assert not stalled(view), "the finding ends with the first accept()"


def test_clients_that_reset_keep_their_place_in_the_queue(
    namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor
) -> None:
    with socket.create_server((lab.LOCAL[4], 0), backlog=100) as kernel:
        port = kernel.getsockname()[1]
        clients = [peer.open(port) for _ in range(3)]
        monitor.step()
        for client in clients[:2]:
            client.rst()
        lab.wait_until(lambda: sum(line.local.port == port for line in ss.lines(namespace)) == 2, "the resets")
        assert depth_in_ss(namespace, kernel) == 3
        one = listener_of(monitor.step(), kernel)
        assert one.stalled_s, "no connection was opened and the queue is as deep as before"
        assert (one.waiting, one.client_reset) == (1, 2)
        reset(kernel.accept()[0])  # one that was reset: nothing visible changes but the depth
        one = listener_of(monitor.step(), kernel)
        assert one.stalled_s is None
        assert one.accept_queue.depth == depth_in_ss(namespace, kernel) == 2


def test_a_reset_connection_may_be_accepted_unseen(namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor) -> None:
    """One that nobody sees is accepted and another comes: the depth and all visible connections stay."""
    with socket.create_server((lab.LOCAL[4], 0), backlog=100) as kernel:
        port = kernel.getsockname()[1]
        hidden = peer.open(port)
        peer.open(port)
        hidden.rst()
        lab.wait_until(lambda: sum(line.local.port == port for line in ss.lines(namespace)) == 2, "the reset")
        monitor.step()
        reset(kernel.accept()[0])
        peer.open(port)
        view = monitor.step()
        one = listener_of(view, kernel)
        assert one.accept_queue.depth == 2
        assert one.stall is None
        assert one.unmoved, "the one that the kernel lists still waits"
        assert one.unmoved.unseen == 1, "at most so many were accepted"


def test_what_still_waits_where_others_may_have_been_accepted(
    namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor
) -> None:
    with socket.create_server((lab.LOCAL[4], 0), backlog=100) as kernel:
        port = kernel.getsockname()[1]
        hidden = [peer.open(port) for _ in range(2)]
        waiting = peer.open(port)
        for client in hidden:
            client.rst()
        lab.wait_until(lambda: sum(line.local.port == port for line in ss.lines(namespace)) == 2, "the resets")
        monitor.step()
        for _ in hidden:
            reset(kernel.accept()[0])
            peer.open(port)
            view = monitor.step()
        (finding,) = stalled(view)
        assert "all connections that waited " in finding.headline
        assert " ago still wait, 3 of 100 waiting" in finding.headline
        accepted, address = kernel.accept()
        accepted.close()
        assert address == waiting.remote


@pytest.mark.parametrize("seen", [True, False])
def test_a_full_queue_whose_clients_come_back_from_the_same_ports(peer: lab.Peer, monitor: Monitor, seen: bool) -> None:
    """Between two polls each accepted connection ends and another one with the same addresses waits."""
    with socket.create_server((lab.LOCAL[4], 0), backlog=2) as kernel:
        port = kernel.getsockname()[1]
        clients = [peer.open(port, remote=lab.Endpoint(lab.REMOTE[4], 31_000 + at)) for at in range(3)]
        rates = []
        for step in range(4):
            view = monitor.step()
            one = listener_of(view, kernel)
            rates.append(one.accepted_per_s or 0)
            assert rates[-1] <= (view.accepted_at_most_per_s or 0)
            assert one.accept_queue == Queue(3, 2)
            assert one.stalled_s is None
            (full,) = (each for each in view.findings if each.rule == "accept-queue-full") if step else (None,)
            if full:
                assert " accepts connections more slowly than clients open them." in full.why
                assert full.evidence["accepted"].unit == "connections/s or more"
                assert not stalled(view)
            verdict = half_open_verdict(view, one.key)
            assert "nothing" not in verdict.why
            for at in range(3 if seen else 1):
                reset(kernel.accept()[0])
                clients[at].wait_for(lambda it: it.reset, "the reset")
                clients[at] = peer.open(port, remote=clients[at].remote)
            clients = clients if seen else [*clients[1:], clients[0]]
        assert view.accepted_at_most_per_s is not None
        assert any(rates), "the kernel reports, sooner or later, that those that waited are freed"


@pytest.mark.parametrize("others", [0, 1])
def test_a_full_queue_of_redirected_connections(peer: lab.Peer, monitor: Monitor, others: int) -> None:
    """As with TPROXY: the local end of the connections is not the listener's."""
    lab.require(bpf_sk_lookup)
    with ExitStack() as stack:
        proxy, *_ = (stack.enter_context(transparent(15_100 + at)) for at in range(1 + others))
        stack.enter_context(all_connections_to(proxy))
        clients = [peer.open(9443) for _ in range(3)]
        for _ in range(3):
            view = monitor.step()
            one = listener_of(view, proxy)
            assert (one.accept_queue, one.stall) == (Queue(3, 2), None)
            reset(proxy.accept()[0])
            clients.pop(0).wait_for(lambda it: it.reset, "the reset")
            clients.append(peer.open(9443))
        (full,) = (each for each in view.findings if each.rule == "accept-queue-full")
        assert " accepts connections more slowly than clients open them." in full.why
        assert full.evidence["clients_given_up"].value == 0
        for _ in range(2):
            view = monitor.step()
        assert listener_of(view, proxy).stall, "now it accepts nothing"


def transparent(port: int) -> socket.socket:
    kernel = socket.socket()
    kernel.setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
    kernel.bind(("127.0.0.1", port))
    kernel.listen(2)
    return kernel


_IP_TRANSPARENT = 19  # linux/in.h


def test_a_hung_member_of_a_group(peer: lab.Peer, monitor: Monitor) -> None:
    address = (lab.LOCAL[4], 0)
    with (
        socket.create_server(address, backlog=100, reuse_port=True) as first,
        socket.create_server(first.getsockname(), backlog=100, reuse_port=True) as second,
    ):
        port = first.getsockname()[1]
        second.setblocking(False)
        monitor.step()
        for _ in range(4):
            for _ in range(8):
                peer.open(port)
            while True:
                try:
                    reset(second.accept()[0])
                except BlockingIOError:
                    break
            view = monitor.step()
        hung, serves = listener_of(view, first), listener_of(view, second)
        assert hung.accept_queue.depth, "the kernel chooses a member by a hash of the addresses"
        assert hung.stalled_s
        assert serves.stalled_s is None
        (finding,) = stalled(view)
        assert finding.subject.name.endswith(f" inode {hung.inode}")


def test_tcp_fast_open_waits_in_the_accept_queue(namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor) -> None:
    namespace.sysctl("net.ipv4.tcp_fastopen", 0x202)  # servers may use it, without a cookie
    with socket.create_server((lab.LOCAL[4], 0), backlog=16) as kernel:
        kernel.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
        port = kernel.getsockname()[1]
        monitor.step()
        early = [peer.half_open(port, data=b"early") for _ in range(3)]
        half_open = [peer.half_open(port) for _ in range(2)]
        view = monitor.step()
        one = listener_of(view, kernel)
        assert one.accept_queue == Queue(depth_in_ss(namespace, kernel), 16) == Queue(3, 16)
        assert one.syn_queue == Queue(2, 16)
        assert (one.waiting, view.half_open.count, view.counts[State.SYN_RCVD]) == (3, 2, 5)
        early[1].complete()
        view = monitor.step()
        assert listener_of(view, kernel).stalled_s, "the last ACK is no accept()"
        accepted, _ = kernel.accept()
        with closing(Monitor(LiveSource())) as later:
            rows = later.step().rows
            assert rows.role[rows.state == State.SYN_RCVD].tolist() == [Role.SERVER] * 4, "also the accepted one"
        view = monitor.step()
        one = listener_of(view, kernel)
        assert (one.waiting, one.stalled_s, view.half_open.count) == (2, None, 2)
        assert one.accepted_per_s, "accepted in SYN_RCVD"
        early[0].complete()
        lab.wait_until(lambda: state_of(early[0]) == "ESTABLISHED", "the last ACK")
        one = listener_of(monitor.step(), kernel)
        assert one.accepted_per_s == 0, "it was accepted before"
        accepted.close()
        for client in (*early, *half_open):
            client.rst()
    namespace.sysctl("net.ipv4.tcp_fastopen", 1)
