"""Scenarios with ICMP errors, fatal or not: a firewall that rejects, a host that does not exist."""

import errno
from collections.abc import Iterator

from tests.lab.lifetimes.actor import Actor
from tests.lab.lifetimes.lifetimes import NO_SOCKET, after_open, scenario
from tests.lab.lifetimes.orderly import by_us, cross
from tests.lab.lifetimes.silent import PATIENCE_MS
from tests.lab.wire.connection import Policy
from tests.lab.wire.icmp import Unreachable


def call_fails(it: Actor, why: Unreachable, code: int) -> Iterator[str]:
    """The application reads the error; then the kernel resets the socket to its initial state."""
    it.call()
    yield "SYN_SENT"
    it.unreachable(why)
    yield NO_SOCKET
    assert it.kernel.connect_ex((it.host, it.connection.remote.port)) == code


@scenario("port unreachable", "SYN_SENT", "UNREACHABLE")
def _port(it: Actor) -> Iterator[str]:
    """The application closes at once."""
    it.call()
    yield "SYN_SENT"
    it.unreachable(Unreachable.PORT)
    it.kernel.close()
    yield NO_SOCKET


@scenario("prohibited", "SYN_SENT", "UNREACHABLE", family=6)
def _prohibited(it: Actor) -> Iterator[str]:
    yield from call_fails(it, Unreachable.PROHIBITED, errno.EACCES)
    it.kernel.close()


@scenario("host unreachable", "SYN_SENT", "UNREACHABLE")
def _host(it: Actor) -> Iterator[str]:
    yield from call_fails(it, Unreachable.HOST, errno.EHOSTUNREACH)
    it.kernel.close()


@scenario("host unreachable after the second SYN", "SYN_SENT", "UNREACHABLE", family=6)
def _host_late(it: Actor) -> Iterator[str]:
    it.call()
    yield "SYN_SENT"
    it.connection.unreachable = Unreachable.HOST
    yield NO_SOCKET
    it.kernel.close()


@scenario("crossed, then host unreachable", "SYN_SENT SYN_RCVD", "UNREACHABLE")
def _crossed(it: Actor) -> Iterator[str]:
    yield from cross(it, {})
    it.unreachable(Unreachable.HOST)
    yield NO_SOCKET
    it.kernel.close()


@scenario("half-open, then host unreachable", "SYN_RCVD", "UNKNOWN", full=False)
def _half_open(it: Actor) -> Iterator[str]:
    """The kernel drops the request socket."""
    it.knock()
    yield "SYN_RCVD"
    it.unreachable(Unreachable.HOST)
    yield NO_SOCKET


@scenario("unreachable, then called again", "SYN_SENT SYN_SENT ESTABLISHED FIN_WAIT_1 FIN_WAIT_2 TIME_WAIT", "BY_US")
def _called_again(it: Actor) -> Iterator[str]:
    """The same socket connects twice: one cookie, two connections."""
    yield from call_fails(it, Unreachable.HOST, errno.EHOSTUNREACH)
    it.call_again(Policy.SILENT)
    yield "SYN_SENT"
    it.answer()
    yield "ESTABLISHED"
    yield from by_us(it)


@after_open("host unreachable, and no answer to data", "", "TIMED_OUT")
def _data(it: Actor) -> Iterator[str]:
    """An established connection stays; the application gets the error when the connection ends."""
    it.set("TCP_USER_TIMEOUT", PATIENCE_MS)
    it.connection.acknowledge(False)
    it.kernel.sendall(b"data")
    it.unreachable(Unreachable.HOST)
    yield NO_SOCKET
    it.kernel.close()
