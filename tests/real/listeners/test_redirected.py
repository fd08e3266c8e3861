"""Connections to addresses and ports that no listener has, as with TPROXY and BPF sk_lookup, on the real kernel."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import numpy as np
import pytest

from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.states import Role, State
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.lab.machine.sk_lookup import all_connections_to, bpf_sk_lookup

IP_TRANSPARENT = 19
PORT = 15_001
"""The proxy's port."""


_PORTS = itertools.count(8443)


@pytest.fixture
def other_port() -> int:
    """The port to which clients connect; another one in each test, as half-open connections remain."""
    return next(_PORTS)


@pytest.fixture
def stack(namespace: lab.Namespace) -> Iterator[ExitStack]:
    lab.require(bpf_sk_lookup)
    with ExitStack() as it:
        yield it


@pytest.fixture
def monitor(stack: ExitStack, namespace: lab.Namespace) -> Monitor:
    return stack.enter_context(closing(Monitor(LiveSource())))


def listen(stack: ExitStack, port: int, transparent: bool, backlog: int = 8) -> socket.socket:
    one = stack.enter_context(socket.socket())
    one.setsockopt(socket.SOL_IP, IP_TRANSPARENT, int(transparent))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", port))
    one.listen(backlog)
    return one


def listeners(view: View) -> dict[int, Listener]:
    return {one.local_port: one for one in view.listeners}


def selected(view: View, terms: str) -> int:
    return int(np.count_nonzero(Filter.parse(terms).mask(view.rows)))


def test_the_only_transparent_listener(peer: lab.Peer, other_port: int, stack: ExitStack, monitor: Monitor) -> None:
    proxy = listen(stack, PORT, transparent=True)
    listen(stack, PORT + 1, transparent=False)
    stack.enter_context(all_connections_to(proxy))
    monitor.step()
    for _ in range(2):
        peer.half_open(other_port)
    assert listeners(monitor.step())[PORT].syn_queue.depth == 2
    opened = [peer.open(other_port) for _ in range(3)]
    view = monitor.step()
    found = listeners(view)[PORT]
    assert (found.accept_queue.depth, found.waiting, found.syn_queue.depth) == (3, 3, 2)
    assert listeners(view)[PORT + 1].waiting == 0
    assert selected(view, f"state:established inode:0 {found.key.local_filter}") == 3
    assert selected(view, f"state:syn-rcvd {found.key.local_filter}") == 2
    accepted = [stack.enter_context(proxy.accept()[0]) for _ in opened]
    view = monitor.step()
    assert listeners(view)[PORT].accepted_per_s
    mine = view.rows.state == State.ESTABLISHED
    assert view.rows.role[mine].tolist() == [Role.SERVER] * len(accepted)


def test_a_listener_without_the_option(peer: lab.Peer, other_port: int, stack: ExitStack, monitor: Monitor) -> None:
    """Nothing but the accept queue shows which of two listeners a BPF program has chosen."""
    chosen = listen(stack, PORT, transparent=False)
    listen(stack, PORT + 1, transparent=False)
    stack.enter_context(all_connections_to(chosen))
    peer.half_open(other_port)
    for _ in range(3):
        peer.open(other_port)
    found = listeners(monitor.step())
    assert {port: (one.waiting, one.syn_queue.depth) for port, one in found.items()} == {PORT: (3, 1), PORT + 1: (0, 0)}


def test_two_transparent_listeners_are_one_too_many(
    peer: lab.Peer, other_port: int, stack: ExitStack, monitor: Monitor
) -> None:
    chosen = listen(stack, PORT, transparent=True)
    listen(stack, PORT + 1, transparent=True)
    stack.enter_context(all_connections_to(chosen))
    before = monitor.step().half_open_without_listener
    for _ in range(2):
        peer.half_open(other_port)
    view = monitor.step()
    assert [one.syn_queue.depth for one in listeners(view).values()] == [0, 0]
    assert view.half_open_without_listener == before + 2


def test_a_listener_of_the_same_port_is_not_blamed(
    peer: lab.Peer, other_port: int, stack: ExitStack, monitor: Monitor
) -> None:
    proxy = listen(stack, PORT, transparent=True)
    stack.enter_context(socket.create_server(("0.0.0.0", other_port)))
    stack.enter_context(all_connections_to(proxy))
    for _ in range(3):
        peer.open(other_port)
    found = listeners(monitor.step())
    assert {port: one.waiting for port, one in found.items()} == {PORT: 3, other_port: 0}


def test_half_open_connections_of_a_closed_listener_stay_without_one(
    peer: lab.Peer, stack: ExitStack, monitor: Monitor
) -> None:
    listen(stack, PORT, transparent=True)
    closed = stack.enter_context(socket.create_server((lab.LOCAL[4], 0)))
    monitor.step()
    for _ in range(2):
        peer.half_open(closed.getsockname()[1])
    assert listeners(monitor.step())[closed.getsockname()[1]].syn_queue.depth == 2
    closed.close()
    for _ in range(2):
        view = monitor.step()
        depth = int(np.count_nonzero(view.rows.state == State.SYN_RCVD))
        assert (listeners(view)[PORT].syn_queue.depth, view.half_open_without_listener) == (0, depth)
