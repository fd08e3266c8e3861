"""Scenarios that a reset ends, received or sent, in each state."""

from collections.abc import Iterator

from tests.lab.lifetimes.actor import Actor
from tests.lab.lifetimes.lifetimes import NO_SOCKET, after_open, scenario
from tests.lab.lifetimes.orderly import cross
from tests.lab.lifetimes.places import (
    close_wait,
    closing,
    closing_orphan,
    fin_wait_1,
    fin_wait_1_orphan,
    fin_wait_2,
    last_ack,
    last_ack_orphan,
    small,
)

# Reset received ---------------------------------------------------------------------------------


def _reset(it: Actor) -> Iterator[str]:
    """The kernel removes the socket before the application closes it."""
    it.connection.rst()
    yield NO_SOCKET
    it.kernel.close()


@after_open("reset by the peer", "", "RESET_RECEIVED")
def _reset_open(it: Actor) -> Iterator[str]:
    yield from _reset(it)


@after_open("reset by the peer in FIN_WAIT_1", "FIN_WAIT_1", "RESET_RECEIVED")
def _reset_fin_wait_1(it: Actor) -> Iterator[str]:
    yield from fin_wait_1(it)
    yield from _reset(it)


@after_open("an orphan reset by the peer in FIN_WAIT_1", "FIN_WAIT_1", "RESET_RECEIVED")
def _reset_fin_wait_1_orphan(it: Actor) -> Iterator[str]:
    yield from fin_wait_1_orphan(it)
    yield from _reset(it)


@after_open("reset by the peer in FIN_WAIT_2", "FIN_WAIT_1 FIN_WAIT_2", "RESET_RECEIVED")
def _reset_fin_wait_2(it: Actor) -> Iterator[str]:
    yield from fin_wait_2(it)
    yield from _reset(it)


@after_open("reset by the peer in CLOSE_WAIT", "CLOSE_WAIT", "RESET_RECEIVED")
def _reset_close_wait(it: Actor) -> Iterator[str]:
    yield from close_wait(it)
    yield from _reset(it)


@after_open("reset by the peer in LAST_ACK", "CLOSE_WAIT LAST_ACK", "RESET_RECEIVED")
def _reset_last_ack(it: Actor) -> Iterator[str]:
    yield from last_ack_orphan(it)
    yield from _reset(it)


@after_open("reset by the peer in CLOSING", "FIN_WAIT_1 CLOSING", "RESET_RECEIVED")
def _reset_closing(it: Actor) -> Iterator[str]:
    yield from closing_orphan(it)
    yield from _reset(it)


@scenario("reset by the peer, a bound client", "SYN_SENT ESTABLISHED", "RESET_RECEIVED")
def _reset_bound(it: Actor) -> Iterator[str]:
    """A socket that was bound to a port keeps it, and is shown as CLOSED, until its application closes it."""
    it.call(bound=True)
    yield "SYN_SENT"
    it.answer()
    yield "ESTABLISHED"
    yield from _reset(it)


@scenario("crossed, then reset by the peer", "SYN_SENT SYN_RCVD", "RESET_RECEIVED")
def _reset_crossed(it: Actor) -> Iterator[str]:
    yield from cross(it)
    yield from _reset(it)


# Reset sent -------------------------------------------------------------------------------------


def _abort(it: Actor) -> Iterator[str]:
    it.abort()
    yield NO_SOCKET


@after_open("aborted", "", "RESET_SENT")
def _abort_open(it: Actor) -> Iterator[str]:
    """SO_LINGER 0."""
    yield from _abort(it)


@after_open("aborted in FIN_WAIT_1", "FIN_WAIT_1", "RESET_SENT")
def _abort_fin_wait_1(it: Actor) -> Iterator[str]:
    yield from fin_wait_1(it)
    yield from _abort(it)


@after_open("aborted in FIN_WAIT_2", "FIN_WAIT_1 FIN_WAIT_2", "RESET_SENT")
def _abort_fin_wait_2(it: Actor) -> Iterator[str]:
    yield from fin_wait_2(it)
    yield from _abort(it)


@after_open("aborted in CLOSE_WAIT", "CLOSE_WAIT", "RESET_SENT")
def _abort_close_wait(it: Actor) -> Iterator[str]:
    yield from close_wait(it)
    yield from _abort(it)


@after_open("aborted in LAST_ACK", "CLOSE_WAIT LAST_ACK", "BY_PEER UNKNOWN", less="RESET RESET_SENT")
def _abort_last_ack(it: Actor) -> Iterator[str]:
    """No reset is sent (tcp_need_reset): this cannot be distinguished from the last ACK."""
    yield from last_ack(it)
    yield from _abort(it)


@after_open("aborted in CLOSING", "FIN_WAIT_1 CLOSING", "AT_ONCE UNKNOWN", less="RESET RESET_SENT")
def _abort_closing(it: Actor) -> Iterator[str]:
    """Nothing is sent here either, and there is no TIME_WAIT."""
    yield from closing(it)
    yield from _abort(it)


@after_open("closed with data unread", "", "RESET_SENT")
def _unread(it: Actor) -> Iterator[str]:
    """RFC 2525, section 2.17: TCP_ABORT_ON_CLOSE."""
    it.connection.send(b"unread")
    it.kernel.close()
    yield NO_SOCKET


@after_open("closed with data unread in CLOSE_WAIT", "CLOSE_WAIT", "RESET_SENT")
def _unread_close_wait(it: Actor) -> Iterator[str]:
    it.connection.send(b"unread")
    yield from close_wait(it)
    it.kernel.close()
    yield NO_SOCKET


@after_open("data came after close", "FIN_WAIT_1", "RESET_SENT")
def _data_after_close(it: Actor) -> Iterator[str]:
    """TCP_ABORT_ON_DATA: the trace reports a received reset at first."""
    yield from fin_wait_1_orphan(it)
    it.connection.send(b"late")
    yield NO_SOCKET


@after_open("data came to a small orphan", "FIN_WAIT_1 FIN_WAIT_2", "RESET_SENT BY_US")
def _data_to_orphan(it: Actor) -> Iterator[str]:
    yield from small(it)
    it.connection.send(b"late")
    yield NO_SOCKET


@after_open("no patience for the peer's FIN", "FIN_WAIT_1 FIN_WAIT_2", "RESET_SENT")
def _no_linger(it: Actor) -> Iterator[str]:
    """TCP_LINGER2 < 0: tcp(7)."""
    yield from fin_wait_2(it)
    it.set("TCP_LINGER2", -1)
    it.kernel.close()
    yield NO_SOCKET


@after_open("disconnected", "", "RESET_SENT")
def _disconnected(it: Actor) -> Iterator[str]:
    """connect() with AF_UNSPEC (connect(2)); the application still holds the socket."""
    it.disconnect()
    yield NO_SOCKET
    it.kernel.close()


@after_open("disconnected in CLOSE_WAIT", "CLOSE_WAIT", "RESET_SENT")
def _disconnected_close_wait(it: Actor) -> Iterator[str]:
    yield from close_wait(it)
    it.disconnect()
    yield NO_SOCKET
    it.kernel.close()


@scenario("crossed, then aborted", "SYN_SENT SYN_RCVD", "RESET_SENT", less="GIVEN_UP")
def _abort_crossed(it: Actor) -> Iterator[str]:
    yield from cross(it)
    yield from _abort(it)
