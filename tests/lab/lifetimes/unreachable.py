"""Lives that an ICMP error ends, or does not: a firewall that rejects, a host that is not there."""

import errno
from collections.abc import Iterator

from tests.lab.lifetimes.actor import Actor
from tests.lab.lifetimes.lifetimes import GONE, after_open, life
from tests.lab.lifetimes.orderly import by_us, cross
from tests.lab.lifetimes.silent import PATIENCE_MS
from tests.lab.wire.connection import Policy
from tests.lab.wire.icmp import Unreachable


def call_in_vain(it: Actor, why: Unreachable, code: int) -> Iterator[str]:
    """The application learns why; with that the kernel sets the socket back."""
    it.call()
    yield "SYN_SENT"
    it.unreachable(why)
    yield GONE
    assert it.kernel.connect_ex((it.host, it.connection.remote.port)) == code


@life("port unreachable", "SYN_SENT", "UNREACHABLE")
def _port(it: Actor) -> Iterator[str]:
    """The application closes at once."""
    it.call()
    yield "SYN_SENT"
    it.unreachable(Unreachable.PORT)
    it.kernel.close()
    yield GONE


@life("prohibited", "SYN_SENT", "UNREACHABLE", family=6)
def _prohibited(it: Actor) -> Iterator[str]:
    yield from call_in_vain(it, Unreachable.PROHIBITED, errno.EACCES)
    it.kernel.close()


@life("host unreachable", "SYN_SENT", "UNREACHABLE")
def _host(it: Actor) -> Iterator[str]:
    yield from call_in_vain(it, Unreachable.HOST, errno.EHOSTUNREACH)
    it.kernel.close()


@life("host unreachable after the second SYN", "SYN_SENT", "UNREACHABLE", family=6)
def _host_late(it: Actor) -> Iterator[str]:
    it.call()
    yield "SYN_SENT"
    it.connection.unreachable = Unreachable.HOST
    yield GONE
    it.kernel.close()


@life("crossed, then host unreachable", "SYN_SENT SYN_RCVD", "UNREACHABLE")
def _crossed(it: Actor) -> Iterator[str]:
    yield from cross(it, {})
    it.unreachable(Unreachable.HOST)
    yield GONE
    it.kernel.close()


@life("half-open, then host unreachable", "SYN_RCVD", "UNKNOWN", full=False)
def _half_open(it: Actor) -> Iterator[str]:
    """The kernel drops the request socket."""
    it.knock()
    yield "SYN_RCVD"
    it.unreachable(Unreachable.HOST)
    yield GONE


@life("unreachable, then called again", "SYN_SENT SYN_SENT ESTABLISHED FIN_WAIT_1 FIN_WAIT_2 TIME_WAIT", "BY_US")
def _called_again(it: Actor) -> Iterator[str]:
    """With the same socket: one cookie, two lives."""
    yield from call_in_vain(it, Unreachable.HOST, errno.EHOSTUNREACH)
    it.call_again(Policy.SILENT)
    yield "SYN_SENT"
    it.answer()
    yield "ESTABLISHED"
    yield from by_us(it)


@after_open("host unreachable, and no answer to data", "", "TIMED_OUT")
def _data(it: Actor) -> Iterator[str]:
    """An open connection lives on; the error is what the application is told in the end."""
    it.set("TCP_USER_TIMEOUT", PATIENCE_MS)
    it.connection.acknowledge(False)
    it.kernel.sendall(b"data")
    it.unreachable(Unreachable.HOST)
    yield GONE
    it.kernel.close()
