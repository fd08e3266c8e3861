"""Produce a socket in each state of RFC 9293, section 3.3.2, and leave nothing behind."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.lab.diag import find_row
from tests.lab.observe import Row, tcp_state
from tests.lab.stage import NO_PEER, Ends, Stage, local_end
from tests.lab.waiting import wait_until
from tests.lab.wire.connection import Connection, Policy
from tests.lab.wire.packets import Endpoint, Family
from tests.lab.wire.peer import Peer

Play = Callable[[Stage], Ends]
Sign = Callable[[Row], bool]


@dataclass(frozen=True, slots=True)
class Scenario:
    """How a state is reached, and the sign in the row, besides the state, that it has been reached."""

    name: str  # STATE, or STATE/variant
    play: Play
    sign: Sign
    families: tuple[Family, ...]

    @property
    def state(self) -> str:
        return self.name.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Produced:
    """A socket of the kernel in the requested state; v4-mapped ends are written as IPv4."""

    state: str  # as RFC 9293 spells it
    family: Family  # of the socket: 6 even where the ends are v4-mapped
    local: Endpoint  # the kernel's end
    remote: Endpoint  # the peer's; LISTEN and CLOSED: address and port zero
    kernel: socket.socket | None  # None: held by no process, or not yet accepted
    connection: Connection | None  # the peer's end, to continue from here
    listener: socket.socket | None

    def row(self) -> Row | None:
        """Return the socket as the kernel shows it now; None for CLOSED sockets, see bound_inactive."""
        return find_row(self.family, self.local, self.remote)


SCENARIOS: dict[str, Scenario] = {}


def scenario(name: str, sign: Sign = lambda row: True, families: tuple[Family, ...] = (4, 6)) -> Callable[[Play], Play]:
    """Register a function in SCENARIOS under a name."""

    def register(play: Play) -> Play:
        SCENARIOS[name] = Scenario(name, play, sign, families)
        return play

    return register


@contextmanager
def produce(peer: Peer, name: str, family: Family) -> Iterator[Produced]:
    """Bring a socket into a state and wait until the kernel shows it; reset it at the end.

    `name` is a key of SCENARIOS: one of the eleven states, or a variant such as
    "CLOSE_WAIT/eof-read".
    """
    plan = SCENARIOS[name]
    stage = Stage(peer, family)
    try:
        produced = _finish(plan, stage, plan.play(stage))
        wait_until(lambda: _is_reached(plan, produced), f"{name}, IPv{family}")
        yield produced
    finally:
        stage.clear()


def _finish(plan: Scenario, stage: Stage, ends: Ends) -> Produced:
    kernel, connection = ends
    if connection:
        local, remote = connection.local, connection.remote
    else:
        assert kernel, "a scenario has to give at least one end"
        local, remote = local_end(kernel), NO_PEER[stage.family]
    return Produced(plan.state, stage.family, local, remote, kernel, connection, stage.listener)


def _is_reached(plan: Scenario, produced: Produced) -> bool:
    if plan.state == "CLOSED":
        return produced.kernel is not None and tcp_state(produced.kernel) == "CLOSED"
    row = produced.row()
    return row is not None and row.state == plan.state and plan.sign(row)


@scenario("LISTEN")
def _listen(stage: Stage) -> Ends:
    return stage.listen(), None


@scenario("SYN_SENT")
def _syn_sent(stage: Stage) -> Ends:
    return stage.connect(Policy.SILENT)


@scenario("SYN_RCVD")
def _syn_rcvd(stage: Stage) -> Ends:
    return None, stage.half_open(stage.listen())


@scenario("ESTABLISHED")
def _established(stage: Stage) -> Ends:
    return stage.accept()


@scenario("FIN_WAIT_1")
def _fin_wait_1(stage: Stage) -> Ends:
    kernel, connection = stage.accept()
    connection.acknowledge(False)
    kernel.shutdown(socket.SHUT_WR)
    return kernel, connection


@scenario("FIN_WAIT_2")
def _fin_wait_2(stage: Stage) -> Ends:
    kernel, connection = stage.accept()
    kernel.shutdown(socket.SHUT_WR)
    return kernel, connection


@scenario("CLOSE_WAIT")
def _close_wait(stage: Stage) -> Ends:
    kernel, connection = stage.accept()
    connection.fin()
    return kernel, connection


@scenario("CLOSING")
def _closing(stage: Stage) -> Ends:
    kernel, connection = stage.accept()
    connection.acknowledge(fin=False)
    kernel.shutdown(socket.SHUT_WR)
    connection.wait_for(lambda it: it.fin_received, "the kernel's FIN")
    connection.fin()  # does not acknowledge the kernel's FIN: the two have crossed
    return kernel, connection


@scenario("LAST_ACK")
def _last_ack(stage: Stage) -> Ends:
    kernel, connection = stage.accept()
    connection.acknowledge(False)
    connection.fin()
    kernel.close()
    return None, connection


@scenario("TIME_WAIT")
def _time_wait(stage: Stage) -> Ends:
    kernel, connection = stage.accept()
    kernel.close()
    connection.wait_for(lambda it: it.fin_received, "the kernel's FIN")
    connection.close()
    return None, connection


@scenario("CLOSED")
def _closed(stage: Stage) -> Ends:
    return stage.bind(), None


STATES = tuple(SCENARIOS)
"""The eleven states; tests.lab.variants adds variants of them to SCENARIOS."""
