"""Scenarios that end in one of a listener's two queues, or leave it late."""

from collections.abc import Iterator

from tests.lab.lifetimes.actor import Actor
from tests.lab.lifetimes.lifetimes import NO_SOCKET, scenario


def queued(it: Actor) -> Iterator[str]:
    """The handshake is complete; the application does not accept."""
    it.knock()
    yield "SYN_RCVD"
    it.connection.complete()
    yield "ESTABLISHED"


@scenario("reset by the peer in SYN_RCVD", "SYN_RCVD", "RESET_RECEIVED RESET UNKNOWN", full=False)
def _reset_half_open(it: Actor) -> Iterator[str]:
    it.knock()
    yield "SYN_RCVD"
    it.connection.rst()
    yield NO_SOCKET


@scenario("killed in SYN_RCVD", "SYN_RCVD", "KILLED RESET UNKNOWN", full=False)
def _kill_half_open(it: Actor) -> Iterator[str]:
    it.knock()
    yield "SYN_RCVD"
    it.kill()
    yield NO_SOCKET


@scenario("its listener closed in SYN_RCVD", "SYN_RCVD", "NOT_ACCEPTED RESET_SENT RESET UNKNOWN", full=False)
def _listener_closed(it: Actor) -> Iterator[str]:
    """The half-open connection stays; the last ACK of the handshake is answered with a reset."""
    it.knock()
    yield "SYN_RCVD"
    it.leave()
    yield "SYN_RCVD"
    it.connection.complete()
    yield NO_SOCKET


@scenario("the accept queue is full", "SYN_RCVD", "NOT_ACCEPTED RESET_SENT RESET UNKNOWN", full=False)
def _overflow(it: Actor) -> Iterator[str]:
    """tcp_abort_on_overflow: the last ACK of the handshake is answered with a reset."""
    listener = it.listen(backlog=0)
    it.knock(listener)
    it.open(listener)  # another client takes the only place
    yield "SYN_RCVD"
    it.namespace.sysctl("net.ipv4.tcp_abort_on_overflow", 1)
    it.connection.complete()
    it.namespace.sysctl("net.ipv4.tcp_abort_on_overflow", 0)
    yield NO_SOCKET


@scenario("not accepted, reset by the peer", "SYN_RCVD ESTABLISHED", "RESET_RECEIVED", freed=False)
def _queued_reset(it: Actor) -> Iterator[str]:
    yield from queued(it)
    it.connection.rst()
    yield NO_SOCKET


@scenario("not accepted, then accepted dead", "SYN_RCVD ESTABLISHED", "RESET_RECEIVED", family=6)
def _queued_dead(it: Actor) -> Iterator[str]:
    """A socket that was reset stays in the accept queue."""
    yield from queued(it)
    it.connection.rst()
    yield NO_SOCKET
    it.take()
    it.kernel.close()


@scenario("not accepted, its listener closed", "SYN_RCVD ESTABLISHED", "NOT_ACCEPTED")
def _queued_listener_closed(it: Actor) -> Iterator[str]:
    yield from queued(it)
    it.leave()
    yield NO_SOCKET


@scenario("not accepted, closed by the peer, its listener closed", "SYN_RCVD ESTABLISHED CLOSE_WAIT", "NOT_ACCEPTED")
def _queued_closed(it: Actor) -> Iterator[str]:
    yield from queued(it)
    it.connection.fin()
    yield "CLOSE_WAIT"
    it.leave()
    yield NO_SOCKET


@scenario("not accepted, killed", "SYN_RCVD ESTABLISHED", "KILLED")
def _queued_killed(it: Actor) -> Iterator[str]:
    yield from queued(it)
    it.kill()
    yield NO_SOCKET
    it.leave()


@scenario("accepted late", "SYN_RCVD ESTABLISHED CLOSE_WAIT LAST_ACK", "BY_PEER", family=6)
def _accepted_late(it: Actor) -> Iterator[str]:
    """The application accepts when the peer has already closed."""
    yield from queued(it)
    it.connection.fin()
    yield "CLOSE_WAIT"
    it.take()
    yield "CLOSE_WAIT"
    it.close_unanswered()
    yield "LAST_ACK"
    it.connection.acknowledge()
    yield NO_SOCKET


@scenario("its last ACK was dropped", "SYN_RCVD ESTABLISHED", "RESET_SENT")
def _dropped(it: Actor) -> Iterator[str]:
    """The accept queue was full; later the kernel retransmits its SYN+ACK."""
    listener = it.listen(backlog=0)
    it.knock(listener)
    it.open(listener)  # another client takes the only place
    it.connection.complete()
    yield "SYN_RCVD"
    it.take()
    yield "ESTABLISHED"
    it.take()
    it.abort()
    yield NO_SOCKET
