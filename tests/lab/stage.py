"""The stage of a scenario: sockets and connections that leave nothing behind."""

import socket
from dataclasses import dataclass, field

from tests.lab.diag import find_row
from tests.lab.waiting import DEADLINE_S, wait_until
from tests.lab.wire.connection import Connection, Policy
from tests.lab.wire.packets import Endpoint, Family
from tests.lab.wire.peer import LOCAL, REMOTE, Peer

_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
NO_PEER: dict[Family, Endpoint] = {4: Endpoint("0.0.0.0", 0), 6: Endpoint("::", 0)}

Ends = tuple[socket.socket | None, Connection | None]
"""The kernel's socket (None: held by no process) and the peer's end (None: there is none)."""


def local_end(kernel: socket.socket) -> Endpoint:
    return Endpoint.of(*kernel.getsockname()[:2])


@dataclass(slots=True)
class Stage:
    """Opens sockets and connections for one scenario, and removes all of them in `clear`.

    All sockets have a timeout of DEADLINE_S, so that a scenario that fails ends.
    """

    peer: Peer
    family: Family
    sockets: list[socket.socket] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    listener: socket.socket | None = None

    def bind(self) -> socket.socket:
        """Return a socket that is only bound."""
        kernel = self._keep(socket.socket(_AF[self.family], socket.SOCK_STREAM))
        kernel.bind((LOCAL[self.family], 0))
        return kernel

    def listen(self, backlog: int = 16) -> socket.socket:
        self.listener = self.bind()
        self.listener.listen(backlog)
        return self.listener

    def half_open(self, listener: socket.socket) -> Connection:
        """Return a client that has received its SYN+ACK and not answered it."""
        port = local_end(listener).port
        return self._note(self.peer.half_open(port, family=self.family))

    def open(self, listener: socket.socket) -> Connection:
        """Return a client that has completed the handshake; the application has not accepted it."""
        port = local_end(listener).port
        return self._note(self.peer.open(port, family=self.family))

    def accept(self) -> tuple[socket.socket, Connection]:
        """Return the socket that accept() returned, and its client."""
        listener = self.listen()
        connection = self.open(listener)
        return self._keep(listener.accept()[0]), connection

    def accept_mapped(self) -> tuple[socket.socket, Connection]:
        """Like accept, with an IPv4 client of an IPv6 socket (RFC 4038, section 4.2)."""
        listener = self._keep(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
        self.listener = listener
        connection = self._note(self.peer.open(local_end(listener).port, family=4))
        return self._keep(listener.accept()[0]), connection

    def connect(self, policy: Policy) -> tuple[socket.socket, Connection]:
        """Return a socket that is connecting, or connected, to a host of the peer, and the host's end."""
        kernel = self.bind()
        port = local_end(kernel).port
        self.peer.listen(port, policy)
        kernel.setblocking(False)
        kernel.connect_ex((REMOTE[self.family], port))  # EINPROGRESS
        kernel.settimeout(DEADLINE_S)
        return kernel, self._note(self.peer.connection_of(kernel))

    def clear(self) -> None:
        """Reset connections, close sockets, and wait until the kernel has removed them."""
        for connection in self.connections:
            connection.rst()
        for kernel in self.sockets:
            kernel.close()
        for connection in self.connections:
            self._await_end(connection)

    def _await_end(self, connection: Connection) -> None:
        ends = connection.local, connection.remote
        wait_until(lambda: not find_row(self.family, *ends), f"the end of {ends}")

    def _keep(self, kernel: socket.socket) -> socket.socket:
        kernel.settimeout(DEADLINE_S)
        self.sockets.append(kernel)
        return kernel

    def _note(self, connection: Connection) -> Connection:
        self.connections.append(connection)
        return connection
