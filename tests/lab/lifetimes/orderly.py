"""Scenarios with an orderly end: a FIN from both sides (RFC 9293, section 3.6)."""

import socket
from collections.abc import Iterator, Mapping

from tests.lab.lifetimes.actor import NO_OPTIONS, Actor
from tests.lab.lifetimes.lifetimes import NO_SOCKET, after_open, call, scenario, serve
from tests.lab.wire.connection import Policy

BY_US = "FIN_WAIT_1 FIN_WAIT_2 TIME_WAIT"


@after_open("closed by us", BY_US, "BY_US")
def by_us(it: Actor) -> Iterator[str]:
    """Four segments; in FIN_WAIT_2 the socket is an orphan, and small."""
    it.close_unanswered()
    yield "FIN_WAIT_1"
    it.connection.acknowledge()
    yield "FIN_WAIT_2"
    it.connection.fin()
    yield "TIME_WAIT"


@after_open("closed by us in three segments", BY_US, "BY_US")
def _three_segments(it: Actor) -> Iterator[str]:
    """The peer's FIN acknowledges ours: FIN_WAIT_2 lasts no time."""
    it.close_unanswered()
    yield "FIN_WAIT_1"
    it.connection.fin(acknowledging=True)
    yield "TIME_WAIT"


@after_open("half-closed by us", BY_US, "BY_US")
def _half_closed_by_us(it: Actor) -> Iterator[str]:
    it.shut_unanswered()
    yield "FIN_WAIT_1"
    it.connection.acknowledge()
    yield "FIN_WAIT_2"
    it.connection.send(b"more")
    assert it.kernel.recv(10) == b"more"
    yield "FIN_WAIT_2"
    it.connection.fin()
    yield "TIME_WAIT"
    it.kernel.close()


@after_open("closed by us, a full orphan", BY_US, "BY_US")
def _full_orphan(it: Actor) -> Iterator[str]:
    """An orphan that may wait longer than 60 s in FIN_WAIT_2 stays a full socket at first."""
    it.set("TCP_LINGER2", 70)
    it.close_unanswered()
    yield "FIN_WAIT_1"
    it.connection.acknowledge()
    yield "FIN_WAIT_2"
    it.connection.fin()
    yield "TIME_WAIT"


@after_open("closed by us, the orphan is left alone", "FIN_WAIT_1 FIN_WAIT_2", "UNKNOWN BY_US")
def _orphan(it: Actor) -> Iterator[str]:
    """tcp_fin_timeout ends a small socket in FIN_WAIT_2; neither the peer nor the trace notices."""
    it.set("TCP_LINGER2", 1)
    it.close_unanswered()
    yield "FIN_WAIT_1"
    it.connection.acknowledge()
    yield "FIN_WAIT_2"
    yield NO_SOCKET


@after_open("closed by us, the orphan is reset", "FIN_WAIT_1 FIN_WAIT_2", "UNKNOWN BY_US")
def _orphan_reset(it: Actor) -> Iterator[str]:
    it.close_unanswered()
    yield "FIN_WAIT_1"
    it.connection.acknowledge()
    yield "FIN_WAIT_2"
    it.connection.rst()
    yield NO_SOCKET


@after_open("closed by us, the orphan stays", "FIN_WAIT_1 FIN_WAIT_2", "UNKNOWN BY_US")
def _orphan_alive(it: Actor) -> Iterator[str]:
    it.close_unanswered()
    yield "FIN_WAIT_1"
    it.connection.acknowledge()
    yield "FIN_WAIT_2"


@after_open("TIME_WAIT is reset", BY_US, "BY_US")
def _assassinated(it: Actor) -> Iterator[str]:
    """RFC 1337; tcp_rfc1337=0 allows it."""
    yield from by_us(it)
    it.connection.rst()
    yield NO_SOCKET


@scenario("TIME_WAIT is left for a new SYN", f"SYN_RCVD ESTABLISHED {BY_US}", "BY_US")
def _recycled(it: Actor) -> Iterator[str]:
    """The same port is used again: another connection with another cookie."""
    yield from serve(it)
    yield from by_us(it)
    it.knock_again()


@after_open("closed by the peer", "CLOSE_WAIT LAST_ACK", "BY_PEER")
def _by_peer(it: Actor) -> Iterator[str]:
    it.connection.fin()
    assert it.kernel.recv(1) == b""
    yield "CLOSE_WAIT"
    it.close_unanswered()
    yield "LAST_ACK"
    it.connection.acknowledge()
    yield NO_SOCKET


@after_open("half-closed by the peer", "CLOSE_WAIT LAST_ACK", "BY_PEER")
def _half_closed_by_peer(it: Actor) -> Iterator[str]:
    it.connection.fin()
    yield "CLOSE_WAIT"
    it.kernel.sendall(b"more")
    it.connection.wait_for(lambda peer: peer.received == b"more", "what the application sent")
    yield "CLOSE_WAIT"
    it.shut_unanswered()
    yield "LAST_ACK"
    it.connection.acknowledge()
    yield NO_SOCKET
    it.kernel.close()


@after_open("closed at once", "FIN_WAIT_1 CLOSING TIME_WAIT", "AT_ONCE")
def _at_once(it: Actor) -> Iterator[str]:
    it.close_unanswered(acknowledging=True)
    yield "FIN_WAIT_1"
    it.connection.fin()
    yield "CLOSING"
    it.connection.acknowledge()
    yield "TIME_WAIT"


@after_open("closed at once by shutdown", "FIN_WAIT_1 CLOSING TIME_WAIT", "AT_ONCE")
def _at_once_held(it: Actor) -> Iterator[str]:
    it.shut_unanswered(acknowledging=True)
    yield "FIN_WAIT_1"
    it.connection.fin()
    yield "CLOSING"
    it.connection.acknowledge()
    yield "TIME_WAIT"
    it.kernel.close()


@scenario("the last ACK has a FIN", "SYN_RCVD ESTABLISHED CLOSE_WAIT LAST_ACK", "BY_PEER")
def _ack_with_fin(it: Actor) -> Iterator[str]:
    it.knock()
    yield "SYN_RCVD"
    it.connection.fin()
    it.take()
    yield "CLOSE_WAIT"
    it.close_unanswered()
    yield "LAST_ACK"
    it.connection.acknowledge()
    yield NO_SOCKET


@scenario("opened at once", f"SYN_SENT SYN_RCVD ESTABLISHED {BY_US}", "BY_US")
def _opened_at_once(it: Actor) -> Iterator[str]:
    yield from open_at_once(it)
    yield from by_us(it)


@scenario(
    "opened at once, closed by the peer", "SYN_SENT SYN_RCVD ESTABLISHED CLOSE_WAIT LAST_ACK", "BY_PEER", family=6
)
def _opened_at_once_by_peer(it: Actor) -> Iterator[str]:
    yield from open_at_once(it)
    yield from _by_peer(it)


def open_at_once(it: Actor) -> Iterator[str]:
    """Simultaneous open (RFC 9293, section 3.5, figure 7)."""
    yield from cross(it)
    it.connection.complete()
    yield "ESTABLISHED"


def cross(it: Actor, options: Mapping[str, int] = NO_OPTIONS) -> Iterator[str]:
    """Simultaneous open; the peer does not acknowledge our SYN+ACK."""
    it.call(options=options)
    yield "SYN_SENT"
    it.connection.answer(Policy.SIMULTANEOUS_HALF_OPEN)
    it.connection.wait_for(lambda peer: peer.answered, "the kernel's SYN+ACK")
    yield "SYN_RCVD"


@scenario("closed by us in SYN_RCVD", f"SYN_SENT SYN_RCVD {BY_US}", "BY_US")
def _closed_half_open(it: Actor) -> Iterator[str]:
    """The arrow from SYN_RCVD to FIN_WAIT_1: only a simultaneous open has a socket to close there."""
    yield from cross(it)
    it.close_unanswered()
    yield "FIN_WAIT_1"
    it.connection.acknowledge()
    yield "FIN_WAIT_2"
    it.connection.fin()
    yield "TIME_WAIT"


@scenario("a deferred accept", f"SYN_RCVD ESTABLISHED {BY_US}", "BY_US")
def _deferred(it: Actor) -> Iterator[str]:
    """TCP_DEFER_ACCEPT: SYN_RCVD until the first data arrives."""
    listener = it.listen()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)
    it.knock(listener)
    it.connection.complete()
    yield "SYN_RCVD"
    it.connection.send(b"first")
    it.take()
    assert it.kernel.recv(10) == b"first"
    yield "ESTABLISHED"
    yield from by_us(it)


def serve_fast(it: Actor) -> Iterator[str]:
    """TCP Fast Open: the application accepts and reads the first data before the last ACK of the handshake."""
    it.namespace.sysctl("net.ipv4.tcp_fastopen", 0x202)  # servers may use it, without a cookie
    listener = it.listen()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    it.knock(listener, data=b"first")
    it.take()
    assert it.kernel.recv(10) == b"first"
    yield "SYN_RCVD"


@scenario("a fast open", f"SYN_RCVD ESTABLISHED {BY_US}", "BY_US")
def _fast(it: Actor) -> Iterator[str]:
    yield from serve_fast(it)
    it.connection.complete()
    yield "ESTABLISHED"
    yield from by_us(it)


@scenario("a fast open, closed before the last ACK", f"SYN_RCVD {BY_US}", "BY_US", family=6)
def _fast_closed(it: Actor) -> Iterator[str]:
    yield from serve_fast(it)
    yield from by_us(it)


@scenario("a fast open, reset by the peer", "SYN_RCVD", "RESET_RECEIVED")
def _fast_reset(it: Actor) -> Iterator[str]:
    yield from serve_fast(it)
    it.connection.rst()
    yield NO_SOCKET
    it.kernel.close()


def serve_mapped(it: Actor) -> Iterator[str]:
    """An IPv4 client connects to an IPv6 socket."""
    it.knock_mapped()
    yield "SYN_RCVD"
    it.connection.complete()
    it.take()
    yield "ESTABLISHED"


@scenario("v4-mapped", f"SYN_RCVD ESTABLISHED {BY_US}", "BY_US", family=6)
def _mapped(it: Actor) -> Iterator[str]:
    yield from serve_mapped(it)
    yield from by_us(it)


@scenario("v4-mapped, closed by the peer", "SYN_RCVD ESTABLISHED CLOSE_WAIT LAST_ACK", "BY_PEER", family=6)
def _mapped_by_peer(it: Actor) -> Iterator[str]:
    yield from serve_mapped(it)
    yield from _by_peer(it)


@scenario("closed by us, server of IPv6", f"SYN_RCVD ESTABLISHED {BY_US}", "BY_US", family=6)
def _server_6(it: Actor) -> Iterator[str]:
    yield from serve(it)
    yield from by_us(it)


@scenario("closed by the peer, client of IPv4", "SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK", "BY_PEER")
def _client_4(it: Actor) -> Iterator[str]:
    yield from call(it)
    yield from _by_peer(it)


@scenario("it goes on", "SYN_RCVD ESTABLISHED", "")
def _goes_on(it: Actor) -> Iterator[str]:
    yield from serve(it)
