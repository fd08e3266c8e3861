"""The stage of one scenario: the ends of its connection and the actions a play needs."""

import ctypes
import itertools
import socket
import struct
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from tests.lab.diag import destroy
from tests.lab.machine.namespace import Namespace
from tests.lab.stage import Stage, local_end
from tests.lab.waiting import DEADLINE_S
from tests.lab.wire.connection import Connection, Policy
from tests.lab.wire.icmp import Unreachable
from tests.lab.wire.packets import Endpoint, Family
from tests.lab.wire.peer import LOCAL, Peer

_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_NOWHERE = struct.pack("=H14x", socket.AF_UNSPEC)
_ports = itertools.cycle(range(2_000, 20_000))  # below those that the kernel and the peer choose
_hosts: dict[Family, Iterator[str]] = {
    4: itertools.cycle(f"198.18.{high}.{low}" for high in range(1, 100) for low in range(1, 255)),
    6: itertools.cycle(f"fd00:198:18::1:{low:x}" for low in range(1, 25_000)),
}
NO_OPTIONS: Mapping[str, int] = MappingProxyType({})


class Actor(Stage):
    """The stage of one scenario."""

    def __init__(self, namespace: Namespace, peer: Peer, family: Family) -> None:
        super().__init__(peer, family)
        self.namespace = namespace
        self.host = next(_hosts[family])
        """The peer's address, used by this scenario only."""
        self._kernel: socket.socket | None = None
        self._connection: Connection | None = None
        self.earlier: list[Connection] = []

    @property
    def kernel(self) -> socket.socket:
        """The application's end."""
        assert self._kernel
        return self._kernel

    @property
    def connection(self) -> Connection:
        """The peer's end."""
        assert self._connection
        return self._connection

    @property
    def ends(self) -> tuple[Endpoint, Endpoint] | None:
        """The local and the remote end, once there is a connection."""
        return (self._connection.local, self._connection.remote) if self._connection else None

    # Handshakes -----------------------------------------------------------------------------

    def knock(self, listener: socket.socket | None = None, data: bytes = b"") -> None:
        """Let a client send its SYN, perhaps with data, and receive the SYN+ACK."""
        port = local_end(listener or self.listen()).port
        remote = Endpoint(self.host, next(_ports))
        self._connection = self._note(self.peer.half_open(port, family=self.family, remote=remote, data=data))

    def knock_again(self) -> None:
        """Let the same client send a SYN again, from the same port."""
        old = self.connection
        self.earlier.append(old)
        self._connection = self._note(self.peer.half_open(old.local.port, family=self.family, remote=old.remote))

    def knock_mapped(self) -> None:
        """Let an IPv4 client send its SYN to an IPv6 socket (RFC 4038, section 4.2)."""
        listener = self._keep(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
        self.listener = listener
        self.host = next(_hosts[4])
        remote = Endpoint(self.host, next(_ports))
        self._connection = self._note(self.peer.half_open(local_end(listener).port, family=4, remote=remote))

    def take(self) -> None:
        """Let the application accept the connection."""
        assert self.listener
        self._kernel = self._keep(self.listener.accept()[0])

    def call(
        self, policy: Policy = Policy.SILENT, *, bound: bool = False, options: Mapping[str, int] = NO_OPTIONS
    ) -> None:
        """Let the application connect to a host of the peer; `bound` chooses the local port before."""
        kernel = self._keep(socket.socket(_AF[self.family], socket.SOCK_STREAM))
        self._kernel = kernel
        for name, value in options.items():
            self.set(name, value)
        if bound:
            kernel.bind((LOCAL[self.family], next(_ports)))
        self.call_again(policy)

    def call_again(self, policy: Policy) -> None:
        """Connect the same socket to another port."""
        remote = next(_ports)
        self.peer.listen(remote, policy)
        self.kernel.setblocking(False)
        self.kernel.connect_ex((self.host, remote))
        self.kernel.settimeout(DEADLINE_S)
        if self._connection:
            self.earlier.append(self._connection)
        found = self.peer.connection(lambda it: it.remote == (self.host, remote), f"a SYN to {self.host}:{remote}")
        self._connection = self._note(found)

    def answer(self) -> None:
        """Let the host answer the SYN."""
        self.connection.answer(Policy.ACCEPT)
        self.connection.wait_for(lambda it: it.established, "the last ACK of the handshake")

    def unreachable(self, why: Unreachable) -> None:
        """Answer the last segment with an ICMP error, as a router, a firewall or the host does."""
        self.peer.unreachable(self.connection, why)

    # Teardown -------------------------------------------------------------------------------

    def close_unanswered(self, acknowledging: bool = False) -> None:
        """Close the application's end; the peer acknowledges nothing, or (`acknowledging`) everything but the FIN."""
        self.connection.acknowledge(acknowledging, fin=False)
        self.kernel.close()
        self.connection.wait_for(lambda it: it.fin_received, "the kernel's FIN")

    def shut_unanswered(self, acknowledging: bool = False) -> None:
        """Like close_unanswered, but by shutdown(): the socket still has its owner."""
        self.connection.acknowledge(acknowledging, fin=False)
        self.kernel.shutdown(socket.SHUT_WR)
        self.connection.wait_for(lambda it: it.fin_received, "the kernel's FIN")

    def leave(self) -> None:
        """Close the listener."""
        assert self.listener
        self.listener.close()

    def kill(self) -> None:
        """Destroy the socket from outside (SOCK_DESTROY)."""
        destroy(self.family, self.connection.local, self.connection.remote)

    def disconnect(self) -> None:
        """Call connect(2) with AF_UNSPEC, which the socket module does not offer."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.connect(self.kernel.fileno(), _NOWHERE, len(_NOWHERE)):
            raise OSError(ctypes.get_errno(), "connect(AF_UNSPEC)")

    def set(self, name: str, value: int) -> None:
        """Set an option of tcp(7) on the application's socket."""
        self.kernel.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def abort(self) -> None:
        """Close with SO_LINGER 0 (socket(7))."""
        self.kernel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.kernel.close()
