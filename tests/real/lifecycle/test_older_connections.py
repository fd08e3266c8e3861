"""Trace events of connections that are older than tcpwatch, which no poll saw change."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.transitions import Transition, TransitionKind
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.lab.machine.requirements import tracefs
from tests.lab.stage import Stage

SEGMENT = 1_000
UNACKED, TOTAL_RETRANS = slice(24, 28), slice(100, 104)
"""Bytes of tcpi_unacked and tcpi_total_retrans in struct tcp_info."""


@contextmanager
def started() -> Iterator[Monitor]:
    lab.require(tracefs)
    with closing(Monitor(LiveSource(ask_infos=True, events=True, trace=True))) as monitor:
        monitor.step()
        yield monitor


@pytest.fixture
def stage(peer: lab.Peer, request: pytest.FixtureRequest) -> Iterator[Stage]:
    stage = Stage(peer, getattr(request, "param", 4))
    yield stage
    stage.clear()


def info(kernel: socket.socket, field: slice) -> int:
    return int.from_bytes(kernel.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[field], "little")


def retransmitted(kernel: socket.socket) -> int:
    return info(kernel, TOTAL_RETRANS)


def unacknowledged(kernel: socket.socket) -> int:
    return info(kernel, UNACKED)


def stream(kernel: socket.socket, connection: lab.Connection) -> None:
    """Send data, and acknowledge it after it has been retransmitted."""
    before = retransmitted(kernel)
    connection.acknowledge(False)
    kernel.sendall(bytes(SEGMENT))
    lab.wait_until(lambda: retransmitted(kernel) > before, "a retransmission")
    connection.acknowledge()
    lab.wait_until(lambda: not unacknowledged(kernel), "the ACK")


def cookie_of(monitor: Monitor, connection: lab.Connection) -> int:
    rows = monitor.step().rows
    (at,) = (i for i, port in enumerate(rows.table["idiag_dport"].tolist()) if port == connection.remote.port)
    return int(rows.cookie[at])


def incidents(monitor: Monitor, cookie: int, kind: TransitionKind) -> list[Transition]:
    transitions = monitor.step().archive.transitions_of([cookie])[cookie]
    return [it for it in transitions if it.kind is kind]


@pytest.mark.parametrize(("stage", "mapped"), [(4, False), (6, False), (6, True)], indirect=["stage"])
def test_every_retransmission_is_attributed(stage: Stage, mapped: bool) -> None:
    kernel, connection = stage.accept_mapped() if mapped else stage.accept()
    stream(kernel, connection)
    with started() as monitor:
        before = retransmitted(kernel)
        for _ in range(2):
            stream(kernel, connection)
            found = incidents(monitor, cookie_of(monitor, connection), TransitionKind.RETRANSMITTED)
            assert len(found) == retransmitted(kernel) - before > 0


def test_retransmissions_between_the_start_of_the_trace_and_the_first_poll(stage: Stage) -> None:
    lab.require(tracefs)
    kernel, connection = stage.accept()
    with closing(Monitor(LiveSource(events=True, trace=True))) as monitor:
        stream(kernel, connection)
        found = incidents(monitor, cookie_of(monitor, connection), TransitionKind.RETRANSMITTED)
        assert len(found) == retransmitted(kernel) > 0


@pytest.mark.parametrize("polled", [False, True], ids=["in the first step", "later"])
def test_a_reset_is_attributed(stage: Stage, polled: bool) -> None:
    """The application holds the socket, so that no destroy event names it."""
    _, connection = stage.accept()
    with started() as monitor:
        cookie = cookie_of(monitor, connection)
        if polled:
            for _ in range(3):
                monitor.step()
        connection.rst()
        lab.wait_until(lambda: incidents(monitor, cookie, TransitionKind.RESET_RECEIVED), "the reset")
        record = monitor.step().archive.last_record(cookie)
        assert record is not None
        assert Ending(int(record["ending"])) is Ending.RESET_RECEIVED


@pytest.mark.parametrize("ours_retransmits", [False, True])
def test_a_connection_with_the_same_endpoints_in_another_network_namespace(
    stage: Stage, ours_retransmits: bool
) -> None:
    """That one retransmits. If both do, the trace does not show which event is whose."""
    foreign, theirs = stage.accept()
    with lab.Namespace() as namespace, lab.Peer(namespace) as peer:
        with socket.create_server((theirs.local.address, theirs.local.port)) as listener:
            ours = peer.open(theirs.local.port, remote=theirs.remote)
            kernel = listener.accept()[0]
        with kernel, started() as monitor:
            stream(foreign, theirs)
            if ours_retransmits:
                stream(kernel, ours)
            assert retransmitted(foreign)
            assert bool(retransmitted(kernel)) is ours_retransmits
            assert not incidents(monitor, cookie_of(monitor, ours), TransitionKind.RETRANSMITTED)
