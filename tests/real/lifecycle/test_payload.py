"""Bytes shown are those that the application really sent and received, whatever SYNs and FINs the kernel counts."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import NamedTuple

import pytest

from tcpwatch.model.query.filter import Filter
from tcpwatch.model.query.timeline import timelines_at
from tcpwatch.model.query.timeline_arrangement import TimelineArranger
from tcpwatch.model.states import State
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.screens.flow.facts import FlowFacts, updated_facts
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.lab.machine.requirements import tracefs
from tests.lab.stage import Stage

SENT, RECEIVED = b"abcdef", b"xyz"


class Expected(NamedTuple):
    """What the application has received and sent, and the peer has acknowledged, when the socket is in this state."""

    state: str
    """Empty: closed and gone."""
    received: int
    acked: int


Script = Iterator[Expected]


def await_acks(kernel: socket.socket) -> None:
    def in_flight() -> int:
        found: tuple[int] = struct.unpack("i", fcntl.ioctl(kernel, termios.TIOCOUTQ, bytes(4)))
        return found[0]

    lab.wait_until(lambda: not in_flight(), "the ACK")


def talk(kernel: socket.socket, connection: lab.Connection) -> Expected:
    kernel.sendall(SENT)
    await_acks(kernel)
    connection.send(RECEIVED)
    assert kernel.recv(9) == RECEIVED
    return Expected("ESTABLISHED", 3, 6)


def _nothing_acknowledged(stage: Stage) -> Script:
    kernel, connection = stage.accept()
    connection.acknowledge(False)
    kernel.sendall(SENT)
    yield Expected("ESTABLISHED", 0, 0)
    connection.acknowledge()
    await_acks(kernel)
    yield Expected("ESTABLISHED", 0, 6)


def _passive(stage: Stage) -> Script:
    kernel, connection = stage.accept()
    yield Expected("ESTABLISHED", 0, 0)
    yield talk(kernel, connection)
    connection.acknowledge(False)
    connection.fin()
    yield Expected("CLOSE_WAIT", 3, 6)
    assert kernel.recv(1) == b""
    kernel.close()
    yield Expected("LAST_ACK", 3, 6)
    connection.acknowledge()
    yield Expected("", 3, 6)


def _passive_unread(stage: Stage) -> Script:
    kernel, connection = stage.accept()
    yield talk(kernel, connection)
    connection.fin()
    yield Expected("CLOSE_WAIT", 3, 6)
    kernel.close()
    yield Expected("", 3, 6)


def _active(stage: Stage) -> Script:
    kernel, connection = stage.accept()
    yield talk(kernel, connection)
    connection.acknowledge(False)
    kernel.shutdown(socket.SHUT_WR)
    yield Expected("FIN_WAIT_1", 3, 6)
    connection.acknowledge()
    yield Expected("FIN_WAIT_2", 3, 6)
    connection.send(RECEIVED)
    assert kernel.recv(9) == RECEIVED
    yield Expected("FIN_WAIT_2", 6, 6)
    connection.fin()
    lab.wait_until(lambda: lab.tcp_state(kernel) == "CLOSED", "the peer's FIN")
    kernel.close()
    yield Expected("TIME_WAIT", 6, 6)


def _orphan(stage: Stage) -> Script:
    kernel, connection = stage.accept()
    yield talk(kernel, connection)
    kernel.close()
    yield Expected("FIN_WAIT_2", 3, 6)
    connection.fin()
    yield Expected("TIME_WAIT", 3, 6)


def _orphan_at_once(stage: Stage) -> Script:
    """The peer's FIN acknowledges ours, and finds the full socket."""
    kernel, connection = stage.accept()
    yield talk(kernel, connection)
    connection.acknowledge(False)
    kernel.close()
    connection.wait_for(lambda it: it.fin_received, "the FIN")
    yield Expected("FIN_WAIT_1", 3, 6)
    connection.fin(acknowledging=True)
    yield Expected("TIME_WAIT", 3, 6)


def _crossed(stage: Stage) -> Script:
    kernel, connection = stage.accept()
    yield talk(kernel, connection)
    connection.acknowledge(fin=False)
    kernel.close()
    connection.wait_for(lambda it: it.fin_received, "the FIN")
    connection.fin()
    yield Expected("CLOSING", 3, 6)
    connection.acknowledge()
    yield Expected("TIME_WAIT", 3, 6)


def _client(stage: Stage) -> Script:
    kernel, connection = stage.connect(lab.Policy.SILENT)
    yield Expected("SYN_SENT", 0, 0)
    connection.answer(lab.Policy.ACCEPT)
    yield Expected("ESTABLISHED", 0, 0)
    connection.acknowledge(False)
    kernel.sendall(SENT)
    yield Expected("ESTABLISHED", 0, 0)
    connection.acknowledge()
    await_acks(kernel)
    yield Expected("ESTABLISHED", 0, 6)
    yield talk(kernel, connection)._replace(acked=12)
    kernel.close()
    connection.wait_for(lambda it: it.fin_received, "the FIN")
    yield Expected("FIN_WAIT_2", 3, 12)
    connection.fin()
    yield Expected("TIME_WAIT", 3, 12)


def _client_left(stage: Stage) -> Script:
    kernel, connection = stage.connect(lab.Policy.ACCEPT)
    yield talk(kernel, connection)
    connection.fin()
    assert kernel.recv(1) == b""
    yield Expected("CLOSE_WAIT", 3, 6)
    kernel.close()
    yield Expected("", 3, 6)


def _both_called(stage: Stage) -> Script:
    kernel, connection = stage.connect(lab.Policy.SIMULTANEOUS_HALF_OPEN)
    yield Expected("SYN_RCVD", 0, 0)
    connection.complete()
    yield Expected("ESTABLISHED", 0, 0)
    yield talk(kernel, connection)


def _reset(stage: Stage) -> Script:
    kernel, connection = stage.accept()
    yield talk(kernel, connection)
    connection.acknowledge(False)
    kernel.sendall(SENT)
    connection.rst()
    lab.wait_until(lambda: lab.tcp_state(kernel) == "CLOSED", "the reset")
    kernel.close()
    yield Expected("", 3, 6)


def _unread_data_and_fin(stage: Stage) -> Script:
    """Received in order, as the counter says, and not read: close() sends a reset."""
    kernel, connection = stage.accept()
    yield talk(kernel, connection)
    connection.send(RECEIVED)
    connection.fin()
    yield Expected("CLOSE_WAIT", 6, 6)
    kernel.close()
    yield Expected("", 6, 6)


def _retransmitted(stage: Stage) -> Script:
    kernel, connection = stage.connect(lab.Policy.ACCEPT)
    yield talk(kernel, connection)
    connection.acknowledge(False)
    kernel.sendall(SENT)
    resent = slice(100, 104)  # tcpi_total_retrans
    lab.wait_until(lambda: any(kernel.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[resent]), "a retransmission")
    yield Expected("ESTABLISHED", 3, 6)
    connection.acknowledge()
    await_acks(kernel)
    yield Expected("ESTABLISHED", 3, 12)
    connection.fin()
    yield Expected("CLOSE_WAIT", 3, 12)
    kernel.close()
    yield Expected("", 3, 12)


SCRIPTS: dict[str, Callable[[Stage], Script]] = {
    "nothing acknowledged": _nothing_acknowledged,
    "passive close": _passive,
    "passive close, EOF not read": _passive_unread,
    "active close": _active,
    "active close, orphan": _orphan,
    "active close, both FINs at once": _orphan_at_once,
    "FINs crossed": _crossed,
    "client": _client,
    "client, closed by the peer": _client_left,
    "simultaneous open": _both_called,
    "reset received": _reset,
    "data and FIN not read": _unread_data_and_fin,
    "retransmitted": _retransmitted,
}


class Watch:
    """Looks at one connection in Timelines and on the flow screen."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._arranger = TimelineArranger()
        self._facts: FlowFacts | None = None
        self._cookie = 0

    def check(self, port: int, remote: int, expected: Expected) -> None:
        found = lab.wait_until(lambda: self._view_in(port, remote, expected.state), expected.state or "the end")
        (view,) = found
        for _ in range(2):  # the second one has the tcp_info that the first one asked for
            arrangement = self._arranger.arrange(view, Filter.parse(""))
            place = arrangement.place(self._cookie)
            assert place is not None
            (shown,) = timelines_at(arrangement, place, place + 1)
            assert (shown.received_bytes, shown.sent_bytes) == expected[1:], (expected, "in Timelines")
            self._facts = updated_facts(self._facts, view, self._cookie)
            view = self._monitor.step()
        assert self._facts is not None
        info = self._facts.tcp_info
        assert info is not None
        assert (info["bytes_received"], info["bytes_acked"]) == expected[1:], (expected, "flow screen")

    def _view_in(self, port: int, remote: int, state: str) -> tuple[View, ...]:
        view = self._monitor.step()
        ends = view.rows.table["idiag_sport"], view.rows.table["idiag_dport"]
        at = ((ends[0] == port) & (ends[1] == remote)).nonzero()[0]
        if not state:
            return (view,) if not len(at) and self._has_destroy_event(view) else ()
        if [State(int(view.rows.state[one])).name for one in at] != [state]:
            return ()
        self._cookie = int(view.rows.cookie[at[0]])
        self._monitor.watched = frozenset([self._cookie])
        is_small = state in ("TIME_WAIT", "FIN_WAIT_2") and not view.sample.inode[at[0]]
        return (view,) if not is_small or self._has_destroy_event(view) else ()

    def _has_destroy_event(self, view: View) -> bool:
        """It comes some milliseconds late."""
        record = view.archive.last_record(self._cookie)
        return record is not None and bool(record["info_bytes"])


@contextmanager
def watching(trace: bool) -> Iterator[Watch]:
    if trace:
        lab.require(tracefs)
    with closing(Monitor(LiveSource(ask_infos=True, events=True, trace=trace))) as monitor:
        monitor.step()
        yield Watch(monitor)


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("trace", [True, False], ids=["trace", "no trace"])
def test_what_the_application_sent_and_received(peer: lab.Peer, name: str, trace: bool) -> None:
    stage = Stage(peer, 4)
    with ExitStack() as stack:
        stack.callback(stage.clear)
        watch = stack.enter_context(watching(trace))
        for expected in SCRIPTS[name](stage):
            (connection,) = stage.connections
            watch.check(connection.local.port, connection.remote.port, expected)


@pytest.mark.parametrize("fast", [True, False], ids=["Fast Open", "usual handshake"])
@pytest.mark.parametrize("trace", [True, False], ids=["trace", "no trace"])
def test_both_ends_over_loopback(namespace: lab.Namespace, fast: bool, trace: bool) -> None:
    """Fast Open: the client's SYN has data, and the server answers it before the handshake is complete."""
    namespace.sysctl("net.ipv4.tcp_fastopen", 0x607 if fast else 0)  # without cookies
    with ExitStack() as stack:
        watches = [stack.enter_context(watching(trace)) for _ in range(2)]
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.socket())
        if fast:
            client.sendto(SENT, socket.MSG_FASTOPEN, listener.getsockname())
        else:
            client.connect(listener.getsockname())
            client.sendall(SENT)
        server = stack.enter_context(listener.accept()[0])
        assert server.recv(9) == SENT
        server.sendall(RECEIVED)
        assert client.recv(9) == RECEIVED
        await_acks(client)
        await_acks(server)
        at_client, at_server = client.getsockname()[1], listener.getsockname()[1]
        watches[0].check(at_client, at_server, Expected("ESTABLISHED", 3, 6))
        watches[1].check(at_server, at_client, Expected("ESTABLISHED", 6, 3))
        client.close()
        watches[1].check(at_server, at_client, Expected("CLOSE_WAIT", 6, 3))
        assert server.recv(1) == b""
        server.close()
        watches[0].check(at_client, at_server, Expected("TIME_WAIT", 3, 6))
        watches[1].check(at_server, at_client, Expected("", 6, 3))
