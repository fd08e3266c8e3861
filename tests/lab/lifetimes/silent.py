"""Scenarios that a timeout ends, in each state, and connection attempts that fail."""

import errno
import socket
from collections.abc import Iterator

from tests.lab.lifetimes.actor import Actor
from tests.lab.lifetimes.lifetimes import NO_SOCKET, after_open, scenario
from tests.lab.lifetimes.orderly import by_us, cross
from tests.lab.lifetimes.places import close_wait, closing_orphan, fin_wait_1, fin_wait_2, last_ack_orphan
from tests.lab.wire.connection import Policy

PATIENCE_MS = 1000
"""Long enough for all looks before the end."""


def _hurry(it: Actor) -> None:
    it.set("TCP_USER_TIMEOUT", PATIENCE_MS)


def _keep_alive(it: Actor) -> None:
    """Send one probe after a second; another second later the kernel resets the connection."""
    it.kernel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"):
        it.set(name, 1)


@after_open("no answer to a keepalive", "", "TIMED_OUT", less="RESET_SENT RESET")
def _keepalive(it: Actor) -> Iterator[str]:
    it.connection.acknowledge(False)
    _keep_alive(it)
    yield NO_SOCKET
    it.kernel.close()


@after_open("no answer to a keepalive in FIN_WAIT_2", "FIN_WAIT_1 FIN_WAIT_2", "TIMED_OUT", less="RESET_SENT RESET")
def _keepalive_fin_wait_2(it: Actor) -> Iterator[str]:
    yield from fin_wait_2(it)
    it.connection.acknowledge(False)
    _keep_alive(it)
    yield NO_SOCKET
    it.kernel.close()


@after_open("no answer to data", "", "TIMED_OUT")
def _data(it: Actor) -> Iterator[str]:
    _hurry(it)
    it.connection.acknowledge(False)
    it.kernel.sendall(b"data")
    yield NO_SOCKET
    it.kernel.close()


@after_open("no answer to window probes", "", "TIMED_OUT")
def _probes(it: Actor) -> Iterator[str]:
    _hurry(it)
    it.connection.window(0)
    it.connection.acknowledge(False)
    it.kernel.sendall(b"data")
    yield NO_SOCKET
    it.kernel.close()


@after_open("no answer to data in CLOSE_WAIT", "CLOSE_WAIT", "TIMED_OUT")
def _data_close_wait(it: Actor) -> Iterator[str]:
    yield from close_wait(it)
    _hurry(it)
    it.connection.acknowledge(False)
    it.kernel.sendall(b"data")
    yield NO_SOCKET
    it.kernel.close()


@after_open("no answer to the FIN", "FIN_WAIT_1", "TIMED_OUT")
def _fin_wait_1(it: Actor) -> Iterator[str]:
    _hurry(it)
    yield from fin_wait_1(it)
    yield NO_SOCKET
    it.kernel.close()


@after_open("no answer to an orphan's FIN", "FIN_WAIT_1", "TIMED_OUT")
def _fin_wait_1_orphan(it: Actor) -> Iterator[str]:
    _hurry(it)
    it.close_unanswered()
    yield "FIN_WAIT_1"
    yield NO_SOCKET


@after_open("no last ACK", "CLOSE_WAIT LAST_ACK", "TIMED_OUT")
def _last_ack(it: Actor) -> Iterator[str]:
    _hurry(it)
    yield from last_ack_orphan(it)
    yield NO_SOCKET


@after_open("no last ACK after both closed", "FIN_WAIT_1 CLOSING", "TIMED_OUT")
def _closing(it: Actor) -> Iterator[str]:
    _hurry(it)
    yield from closing_orphan(it)
    yield NO_SOCKET


# The handshake ----------------------------------------------------------------------------------


@scenario("no answer to the SYN", "SYN_SENT", "TIMED_OUT")
def _syn(it: Actor) -> Iterator[str]:
    it.call(options={"TCP_SYNCNT": 1})
    yield "SYN_SENT"
    yield NO_SOCKET
    it.kernel.close()


@scenario("no answer to the SYN in time", "SYN_SENT", "TIMED_OUT", family=6)
def _syn_user_timeout(it: Actor) -> Iterator[str]:
    it.call(options={"TCP_USER_TIMEOUT": PATIENCE_MS})
    yield "SYN_SENT"
    yield NO_SOCKET
    it.kernel.close()


@scenario("crossed, then no answer", "SYN_SENT SYN_RCVD", "TIMED_OUT")
def _crossed(it: Actor) -> Iterator[str]:
    yield from cross(it, {"TCP_SYNCNT": 1})
    yield NO_SOCKET
    it.kernel.close()


@scenario("no answer to the SYN+ACK", "SYN_RCVD", "TIMED_OUT UNKNOWN", full=False)
def _syn_ack(it: Actor) -> Iterator[str]:
    listener = it.listen()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
    it.knock(listener)
    yield "SYN_RCVD"
    yield NO_SOCKET


@scenario("refused", "SYN_SENT", "REFUSED")
def _refused(it: Actor) -> Iterator[str]:
    it.call()
    yield "SYN_SENT"
    it.connection.answer(Policy.REFUSE)
    yield NO_SOCKET
    it.kernel.close()


@scenario("refused at once, bound", "SYN_SENT", "REFUSED", family=6)
def _refused_bound(it: Actor) -> Iterator[str]:
    it.call(Policy.REFUSE, bound=True)
    yield NO_SOCKET
    it.kernel.close()


@scenario("given up", "SYN_SENT", "GIVEN_UP")
def _given_up(it: Actor) -> Iterator[str]:
    it.call()
    yield "SYN_SENT"
    it.kernel.close()
    yield NO_SOCKET


@scenario("given up at once", "SYN_SENT", "GIVEN_UP", family=6)
def _aborted(it: Actor) -> Iterator[str]:
    """In SYN_SENT, SO_LINGER 0 sends nothing."""
    it.call()
    yield "SYN_SENT"
    it.abort()
    yield NO_SOCKET


@scenario("disconnected in SYN_SENT", "SYN_SENT", "GIVEN_UP")
def _disconnected(it: Actor) -> Iterator[str]:
    it.call()
    yield "SYN_SENT"
    it.disconnect()
    yield NO_SOCKET
    it.kernel.close()


@scenario("killed in SYN_SENT", "SYN_SENT", "KILLED", less="GIVEN_UP", without="RESET_SENT RESET")
def _killed(it: Actor) -> Iterator[str]:
    """No reset is sent."""
    it.call()
    yield "SYN_SENT"
    it.kill()
    yield NO_SOCKET
    it.kernel.close()


@scenario("refused, then called again", "SYN_SENT SYN_SENT ESTABLISHED FIN_WAIT_1 FIN_WAIT_2 TIME_WAIT", "BY_US")
def _called_again(it: Actor) -> Iterator[str]:
    """The same socket connects twice: one cookie, two connections."""
    it.call(Policy.SILENT)
    yield "SYN_SENT"
    it.connection.answer(Policy.REFUSE)
    yield NO_SOCKET
    assert it.kernel.connect_ex((it.host, it.connection.remote.port)) == errno.ECONNREFUSED
    it.call_again(Policy.SILENT)
    yield "SYN_SENT"
    it.answer()
    yield "ESTABLISHED"
    yield from by_us(it)


@scenario("disconnected, then called again", "SYN_SENT ESTABLISHED SYN_SENT ESTABLISHED", "RESET_RECEIVED", family=6)
def _reconnected(it: Actor) -> Iterator[str]:
    it.call()
    yield "SYN_SENT"
    it.answer()
    yield "ESTABLISHED"
    it.disconnect()
    yield NO_SOCKET
    it.call_again(Policy.SILENT)
    yield "SYN_SENT"
    it.answer()
    yield "ESTABLISHED"
    it.connection.rst()
    yield NO_SOCKET
    it.kernel.close()
