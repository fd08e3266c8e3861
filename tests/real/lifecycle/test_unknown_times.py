"""Times that are not known: the age of a connection in a single look, and the last data of one that had none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tcpwatch.model.columns.columns import BY_KEY
from tcpwatch.monitor import Monitor
from tcpwatch.screens.flow.tcp_info import info_sections
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.lab.stage import Stage


@pytest.fixture
def stage(peer: lab.Peer) -> Iterator[Stage]:
    stage = Stage(peer, 4)
    yield stage
    stage.clear()


def test_ages(stage: Stage) -> None:
    def ages() -> dict[int, tuple[float | None, ...]]:
        rows = monitor.step().rows
        columns = [BY_KEY[key].values(rows) for key in ("age_s", "state_age_s")]
        return dict(zip(rows.table["idiag_dport"].tolist(), zip(*columns, strict=True), strict=True))

    _, older = stage.accept()
    with closing(Monitor(LiveSource())) as monitor:
        assert ages()[older.remote.port] == (None, None)
        younger = stage.accept()[1]
        found = ages()
        assert found[younger.remote.port] == (0.0, 0.0)
        since = found[older.remote.port][0]
        assert since is not None
        assert since > 0


def test_last_data(stage: Stage) -> None:
    def shown() -> list[bool]:
        """Whether data sent, data received and an ACK have an age."""
        rows = monitor.step().rows
        (at,) = (rows.table["idiag_dport"] == connection.remote.port).nonzero()[0]
        monitor.watched = frozenset([int(rows.cookie[at])])
        (info,) = monitor.step().sample.watched_tcp_info.values()
        values = {entry.note: entry.value for section in info_sections(info) for entry in section.entries}
        return [values[f"last_{name}"] != "none" for name in ("data_sent", "data_recv", "ack_recv")]

    kernel, connection = stage.connect(lab.Policy.SILENT)
    with closing(Monitor(LiveSource())) as monitor:
        assert shown() == [False, False, False]
        connection.answer(lab.Policy.ACCEPT)
        lab.wait_until(lambda: lab.tcp_state(kernel) == "ESTABLISHED", "the SYN+ACK")
        assert shown() == [False, False, True]
        connection.send(b"xyz")
        assert kernel.recv(9) == b"xyz"
        assert shown() == [False, True, True]
        kernel.sendall(b"abc")
        assert shown() == [True, True, True]
