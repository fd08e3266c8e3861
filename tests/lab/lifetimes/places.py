"""Plays that lead a connection from ESTABLISHED to one later state, where something else then ends it."""

from collections.abc import Iterator

from tests.lab.lifetimes.actor import Actor


def fin_wait_1(it: Actor) -> Iterator[str]:
    it.shut_unanswered()
    yield "FIN_WAIT_1"


def fin_wait_1_orphan(it: Actor) -> Iterator[str]:
    it.close_unanswered()
    yield "FIN_WAIT_1"


def fin_wait_2(it: Actor) -> Iterator[str]:
    it.shut_unanswered()
    yield "FIN_WAIT_1"
    it.connection.acknowledge()
    yield "FIN_WAIT_2"


def close_wait(it: Actor) -> Iterator[str]:
    it.connection.fin()
    yield "CLOSE_WAIT"


def last_ack(it: Actor) -> Iterator[str]:
    yield from close_wait(it)
    it.shut_unanswered()
    yield "LAST_ACK"


def last_ack_orphan(it: Actor) -> Iterator[str]:
    yield from close_wait(it)
    assert it.kernel.recv(1) == b""
    it.close_unanswered()
    yield "LAST_ACK"


def closing(it: Actor) -> Iterator[str]:
    it.shut_unanswered(acknowledging=True)
    yield "FIN_WAIT_1"
    it.connection.fin()
    yield "CLOSING"


def closing_orphan(it: Actor) -> Iterator[str]:
    it.close_unanswered(acknowledging=True)
    yield "FIN_WAIT_1"
    it.connection.fin()
    yield "CLOSING"


def small(it: Actor) -> Iterator[str]:
    """An orphan in FIN_WAIT_2."""
    it.close_unanswered()
    yield "FIN_WAIT_1"
    it.connection.acknowledge()
    yield "FIN_WAIT_2"
