"""With the trace, polls report only what it does not see: half-open connections, and small sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import pytest

from tcpwatch.model.states import State
from tcpwatch.monitor import Monitor
from tcpwatch.report.events import EventReporter
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.lab.machine.requirements import tracefs
from tests.lab.stage import Stage

Lines = list[tuple[str | None, str | None, str]]


class Watch:
    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._reporter = EventReporter(True)

    def until(self, connection: lab.Connection, state: str) -> Lines:
        """Poll until the connection is in this state; return the changes of state that `events` prints."""
        changes: Lines = []

        def look() -> bool:
            view = self._monitor.step()
            lines = [json.loads(line) for part in self._reporter.step(view)[0] for line in part.splitlines()]
            changes.extend(
                (line["old"], line["new"], line["origin"])
                for line in lines
                if line["remote_port"] == connection.remote.port
            )
            at = view.rows.table["idiag_dport"] == connection.remote.port
            return [State(one).name for one in view.rows.state[at]] == [state]

        lab.wait_until(look, state)
        return changes


@pytest.fixture
def watch() -> Iterator[Watch]:
    lab.require(tracefs)
    with closing(Monitor(LiveSource(events=True, trace=True))) as monitor:
        yield Watch(monitor)


@pytest.fixture
def stage(peer: lab.Peer) -> Iterator[Stage]:
    stage = Stage(peer, 4)
    yield stage
    stage.clear()


def test_a_time_wait_that_the_trace_saw_begin(watch: Watch, stage: Stage) -> None:
    kernel, connection = stage.accept()
    watch.until(connection, "ESTABLISHED")
    kernel.close()
    connection.wait_for(lambda it: it.fin_received, "the FIN")
    connection.close()
    assert watch.until(connection, "TIME_WAIT") == [
        ("ESTABLISHED", "FIN_WAIT_1", "trace"),
        ("FIN_WAIT_1", "FIN_WAIT_2", "trace"),
        ("FIN_WAIT_2", "CLOSED", "trace"),
    ]


def test_the_end_of_a_small_socket_is_polled(watch: Watch, stage: Stage) -> None:
    """An orphan in FIN_WAIT_2 is a small socket, and so is TIME_WAIT: the trace sees neither of them change."""
    kernel, connection = stage.accept()
    watch.until(connection, "ESTABLISHED")
    kernel.close()
    assert watch.until(connection, "FIN_WAIT_2") == [
        ("ESTABLISHED", "FIN_WAIT_1", "trace"),
        ("FIN_WAIT_1", "FIN_WAIT_2", "trace"),
        ("FIN_WAIT_2", "CLOSED", "trace"),
    ]
    assert watch.until(connection, "FIN_WAIT_2") == []  # this poll began after the full socket had closed
    connection.close()
    assert watch.until(connection, "TIME_WAIT") == [("FIN_WAIT_2", "TIME_WAIT", "poll")]


def test_connecting_for_some_polls(watch: Watch, stage: Stage) -> None:
    kernel, connection = stage.connect(lab.Policy.SILENT)
    changes = watch.until(connection, "SYN_SENT")
    connection.answer(lab.Policy.ACCEPT)
    changes += watch.until(connection, "ESTABLISHED")
    assert changes == [(None, "SYN_SENT", "trace"), ("SYN_SENT", "ESTABLISHED", "trace")]
    assert kernel.getpeername()[1] == connection.remote.port
