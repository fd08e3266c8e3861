"""Roles of connections at the first look, on the real kernel."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tcpwatch.model.states import Role, State
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tests import lab

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def stack(namespace: lab.Namespace) -> Iterator[ExitStack]:
    with ExitStack() as it:
        yield it


@pytest.fixture
def monitor(stack: ExitStack, namespace: lab.Namespace) -> Monitor:
    return stack.enter_context(closing(Monitor(LiveSource())))


def pair(stack: ExitStack, host: str = "127.0.0.1") -> Ends:
    """Return both ends of a connection, client first; its listener is closed again."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        client = stack.enter_context(socket.create_connection(listener.getsockname()[:2]))
        return client, stack.enter_context(listener.accept()[0])


def role(view: View, end: socket.socket) -> Role:
    return row(view, end)[0]


def row(view: View, end: socket.socket) -> tuple[Role, State]:
    cookie = int.from_bytes(end.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), "little")
    (at,) = (view.rows.cookie == cookie).nonzero()[0]
    return Role(int(view.rows.role[at])), State(int(view.rows.state[at]))


_SO_COOKIE = 57


def untouched(client: socket.socket, server: socket.socket) -> None:
    pass


def client_sent(client: socket.socket, server: socket.socket) -> None:
    client.sendall(b"x" * 5000)
    server.recv(5000, socket.MSG_WAITALL)


def server_sent(client: socket.socket, server: socket.socket) -> None:
    client_sent(server, client)


def both_sent(client: socket.socket, server: socket.socket) -> None:
    client_sent(client, server)
    server_sent(client, server)


def nothing_is_read(client: socket.socket, server: socket.socket) -> None:
    for one in (client, server):
        one.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                one.send(b"x" * 100_000)


def client_closed(client: socket.socket, server: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)
    server.recv(1)


def server_closed(client: socket.socket, server: socket.socket) -> None:
    client_closed(server, client)


def closed_and_unsent(client: socket.socket, server: socket.socket) -> None:
    nothing_is_read(client, server)
    client_closed(client, server)
    server.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(
    "traffic",
    [untouched, client_sent, server_sent, both_sent, nothing_is_read, client_closed, server_closed, closed_and_unsent],
)
def test_both_ends_after_their_listener_was_closed(
    stack: ExitStack, monitor: Monitor, host: str, traffic: object
) -> None:
    client, server = pair(stack, host)
    assert callable(traffic)
    traffic(client, server)
    view = monitor.step()
    assert (role(view, client), role(view, server)) == (Role.CLIENT, Role.SERVER)


def test_a_retransmitting_client(namespace: lab.Namespace, peer: lab.Peer, stack: ExitStack, monitor: Monitor) -> None:
    peer.listen(80)
    client = stack.enter_context(socket.create_connection((lab.REMOTE[4], 80)))
    connection = peer.connection_of(client)
    client.sendall(b"x" * 100)
    lab.wait_until(lambda: namespace.counters()["RetransSegs"] > 0, "a retransmit")
    assert role(monitor.step(), client) is Role.CLIENT
    assert connection


def test_a_small_socket_at_the_first_look_shows_no_role(stack: ExitStack, monitor: Monitor) -> None:
    client, server = pair(stack)
    port = client.getsockname()[1]
    client.close()
    server.close()
    view = monitor.step()
    at = (view.rows.table["idiag_sport"] == port).nonzero()[0]
    assert [State(int(state)) for state in view.rows.state[at]] == [State.TIME_WAIT]
    assert [Role(int(one)) for one in view.rows.role[at]] == [Role.UNKNOWN]


def test_a_passive_data_connection_between_two_polls(stack: ExitStack, monitor: Monitor) -> None:
    """The listener opens, accepts one connection and closes between two polls, as an FTP server's does."""
    monitor.step()
    client, server = pair(stack)
    monitor.step()
    view = monitor.step()  # tcp_info of new connections without a listener is asked for in the next poll
    assert (role(view, client), role(view, server)) == (Role.CLIENT, Role.SERVER)
