"""Every host of the range behind a TUN device, played by the test."""

import itertools
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.lab.machine.namespace import Namespace, await_route
from tests.lab.waiting import DEADLINE_S
from tests.lab.wire.connection import Connection, Offer, Policy
from tests.lab.wire.flood import Flood, FloodReport
from tests.lab.wire.icmp import Unreachable, unreachable
from tests.lab.wire.packets import Endpoint, Family, Flag, Segment
from tests.lab.wire.tun import make_tun
from tests.lab.wire.wire import Logged, Wire

# 198.18.0.0/15 is reserved for such tests (RFC 2544, appendix C.2.2), fd00::/8 for private use
# (RFC 4193).
LOCAL: dict[Family, str] = {4: "198.18.0.1", 6: "fd00:198:18::1"}
REMOTE: dict[Family, str] = {4: "198.18.0.2", 6: "fd00:198:18::2"}

_FIRST_PORT = 20_000
_USUAL = Offer()


def make_device(namespace: Namespace, device: str) -> int:
    """Make a TUN device with LOCAL on the kernel's side and their networks behind it; return its file descriptor."""
    # nodad: duplicate address detection would hold an IPv6 address back for a second or more.
    addresses = (
        f"address add {LOCAL[4]}/15 dev {device}",
        f"address add {LOCAL[6]}/64 dev {device} nodad",
    )
    fd = make_tun(namespace, device, *addresses, f"link set {device} up")
    await_route(LOCAL[6])
    return fd


class Peer:
    """Opens a TUN device in the namespace and answers for all addresses behind it.

    The kernel's side has LOCAL[4] and LOCAL[6]; everything else of their networks is the peer,
    usually REMOTE[4] and REMOTE[6]. A port without `listen` refuses connections.
    A segment of no known connection is not answered.
    """

    def __init__(self, namespace: Namespace, device: str = "peer0") -> None:
        self.device = device
        self._namespace = namespace
        self._policies: dict[int, tuple[Policy, Offer]] = {}
        self._connections: dict[tuple[Endpoint, Endpoint], Connection] = {}  # by local, remote
        self._ports = itertools.cycle(range(_FIRST_PORT, 65_536))
        self._flood: Flood | None = None

    def __enter__(self) -> Self:
        fd = make_device(self._namespace, self.device)
        self._wire = Wire(fd, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._flood:
            self._flood.close()
        self._wire.close()

    # The peer is the client -----------------------------------------------------------------

    def open(
        self,
        port: int,
        *,
        family: Family = 4,
        remote: Endpoint | None = None,
        offer: Offer = _USUAL,
        deadline_s: float = DEADLINE_S,
    ) -> Connection:
        """Connect to a port of the kernel with a whole handshake: SYN, SYN+ACK, ACK."""
        connection = self._start(port, family, remote, offer)
        connection.syn()
        connection.wait_for(lambda it: it.established, "the SYN+ACK", deadline_s)
        return connection

    def half_open(
        self,
        port: int,
        *,
        family: Family = 4,
        remote: Endpoint | None = None,
        offer: Offer = _USUAL,
        data: bytes = b"",
        deadline_s: float = DEADLINE_S,
    ) -> Connection:
        """Send the SYN and receive the SYN+ACK; `complete()` may follow."""
        connection = self.knock(port, family=family, remote=remote, offer=offer, data=data)
        connection.wait_for(lambda it: it.answered, "the SYN+ACK", deadline_s)
        return connection

    def knock(
        self,
        port: int,
        *,
        family: Family = 4,
        remote: Endpoint | None = None,
        offer: Offer = _USUAL,
        data: bytes = b"",
    ) -> Connection:
        """Send the SYN without waiting for an answer: the kernel may drop or refuse it."""
        connection = self._start(port, family, remote, offer)
        connection.completes = False
        connection.syn(data)
        return connection

    def _start(self, port: int, family: Family, remote: Endpoint | None, offer: Offer) -> Connection:
        local = Endpoint.of(LOCAL[family], port)
        remote = Endpoint.of(*(remote or (REMOTE[family], next(self._ports))))
        connection = Connection(self._wire, local, remote, offer)
        with self._wire.changed:
            self._connections[local, remote] = connection
        return connection

    # The peer is the server -----------------------------------------------------------------

    def listen(self, port: int, policy: Policy = Policy.ACCEPT, offer: Offer = _USUAL) -> None:
        """Set the answer to the kernel's SYNs to this port, at any address of the peer."""
        with self._wire.changed:
            self._policies[port] = policy, offer

    def connection_of(self, kernel: socket.socket) -> Connection:
        """Return the peer's end of a socket that is connected or connecting to it."""
        local = Endpoint.of(*kernel.getsockname()[:2])
        return self.connection(lambda it: it.local == local, f"a SYN from {local}")

    def connection(self, predicate: Callable[[Connection], bool], what: str) -> Connection:
        """Wait for a connection for which the predicate is true; return the newest."""
        found: list[Connection] = []

        def look() -> bool:
            found.extend(filter(predicate, reversed(self._connections.values())))
            return bool(found)

        self._wire.wait_for(look, what)
        return found[0]

    def unreachable(self, connection: Connection, why: Unreachable) -> None:
        """Answer the kernel's last segment on this connection with an ICMP error."""
        last = next(it.segment for it in reversed(self.log(connection)) if it.from_kernel)
        self._wire.send_packet(unreachable(last, why))

    # The peer is a crowd --------------------------------------------------------------------

    @property
    def crowd(self) -> Flood:
        """The second device, for floods; it is made at the first use."""
        if self._flood is None:
            self._flood = Flood(self._namespace)
        return self._flood

    def flood(
        self,
        port: int,
        count: int,
        *,
        family: Family = 4,
        rate: float | None = None,
        addresses: int = 256,
    ) -> FloodReport:
        """Send `count` SYNs of distinct spoofed endpoints to a port; see Flood.send."""
        target = Endpoint.of(LOCAL[family], port)
        return self.crowd.send(target, count, rate=rate, addresses=addresses)

    # The log --------------------------------------------------------------------------------

    def log(self, connection: Connection | None = None) -> list[Logged]:
        """Return every segment on the wire except floods, or those of one connection."""
        entries = self._wire.log()
        if connection is None:
            return entries
        ends = {connection.local, connection.remote}
        return [it for it in entries if {it.segment.source, it.segment.destination} == ends]

    def _receive(self, segment: Segment) -> None:
        local, remote = segment.source, segment.destination
        connection = self._connections.get((local, remote))
        if not segment.flags & Flag.SYN:
            if connection:
                connection.receive(segment)
        elif segment.flags & Flag.ACK:
            if connection:
                connection.receive_syn(segment)
        else:
            self._receive_open(segment, connection)

    def _receive_open(self, syn: Segment, connection: Connection | None) -> None:
        policy, offer = self._policies.get(syn.destination.port, (Policy.REFUSE, _USUAL))
        if connection is None or not connection.belongs_to(syn):
            connection = Connection(self._wire, syn.source, syn.destination, offer)
            self._connections[syn.source, syn.destination] = connection
        connection.receive_syn(syn)
        connection.answer(policy)
        if connection.unreachable:
            self._wire.send_packet(unreachable(syn, connection.unreachable))
