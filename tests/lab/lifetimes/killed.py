"""Scenarios that SOCK_DESTROY (ss -K) ends, in each state."""

from collections.abc import Iterator

from tests.lab.lifetimes.actor import Actor
from tests.lab.lifetimes.lifetimes import NO_SOCKET, after_open, scenario
from tests.lab.lifetimes.orderly import cross
from tests.lab.lifetimes.places import close_wait, closing, fin_wait_1, fin_wait_1_orphan, fin_wait_2, last_ack, small


def kill(it: Actor) -> Iterator[str]:
    """The kernel resets the socket, and frees it when the application closes it."""
    it.kill()
    yield NO_SOCKET
    it.kernel.close()


@after_open("killed", "", "KILLED")
def _kill_open(it: Actor) -> Iterator[str]:
    yield from kill(it)


@after_open("killed in FIN_WAIT_1", "FIN_WAIT_1", "KILLED")
def _kill_fin_wait_1(it: Actor) -> Iterator[str]:
    yield from fin_wait_1(it)
    yield from kill(it)


@after_open("an orphan killed in FIN_WAIT_1", "FIN_WAIT_1", "KILLED")
def _kill_fin_wait_1_orphan(it: Actor) -> Iterator[str]:
    yield from fin_wait_1_orphan(it)
    yield from kill(it)


@after_open("killed in FIN_WAIT_2", "FIN_WAIT_1 FIN_WAIT_2", "KILLED")
def _kill_fin_wait_2(it: Actor) -> Iterator[str]:
    yield from fin_wait_2(it)
    yield from kill(it)


@after_open("a small orphan killed", "FIN_WAIT_1 FIN_WAIT_2", "UNKNOWN BY_US")
def _kill_small(it: Actor) -> Iterator[str]:
    yield from small(it)
    yield from kill(it)


@after_open("killed in CLOSE_WAIT", "CLOSE_WAIT", "KILLED")
def _kill_close_wait(it: Actor) -> Iterator[str]:
    yield from close_wait(it)
    yield from kill(it)


@after_open("killed in LAST_ACK", "CLOSE_WAIT LAST_ACK", "KILLED", less="BY_PEER")
def _kill_last_ack(it: Actor) -> Iterator[str]:
    """No reset is sent, as if the last ACK had arrived."""
    yield from last_ack(it)
    yield from kill(it)


@after_open("killed in CLOSING", "FIN_WAIT_1 CLOSING", "KILLED", less="AT_ONCE")
def _kill_closing(it: Actor) -> Iterator[str]:
    yield from closing(it)
    yield from kill(it)


@after_open("killed in TIME_WAIT", "FIN_WAIT_1 FIN_WAIT_2 TIME_WAIT", "BY_US")
def _kill_time_wait(it: Actor) -> Iterator[str]:
    it.close_unanswered()
    yield "FIN_WAIT_1"
    it.connection.fin(acknowledging=True)
    yield "TIME_WAIT"
    yield from kill(it)


@scenario("crossed, then killed", "SYN_SENT SYN_RCVD", "KILLED")
def _kill_crossed(it: Actor) -> Iterator[str]:
    yield from cross(it)
    yield from kill(it)
