"""A connect() that fails with EADDRNOTAVAIL."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.monitor import Monitor
from tcpwatch.report.events import EventReporter
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.lab.machine.requirements import tracefs

HOSTS = {4: "127.0.0.1", 6: "::1"}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@pytest.fixture(params=[4, 6])
def family(request: pytest.FixtureRequest) -> lab.Family:
    found: lab.Family = request.param
    return found


@pytest.fixture
def server(family: lab.Family) -> Iterator[tuple[str, int]]:
    """A listener in a namespace with two local ports, both of which have a connection to it."""
    lab.require(lab.namespaces, tracefs)
    with lab.Namespace() as namespace, ExitStack() as stack:
        namespace.sysctl("net.ipv4.ip_local_port_range", "40000 40001")
        listener = stack.enter_context(socket.create_server((HOSTS[family], 1080), family=_FAMILIES[family]))
        for _ in range(2):
            stack.enter_context(socket.create_connection(listener.getsockname()[:2]))
        yield listener.getsockname()[:2]


def test_it_is_shown_as_such(family: lab.Family, server: tuple[str, int]) -> None:
    with closing(Monitor(LiveSource(events=True, trace=True))) as monitor:
        monitor.step()
        with socket.socket(_FAMILIES[family]) as calling:
            assert calling.connect_ex(server) == errno.EADDRNOTAVAIL
        lab.wait_until(lambda: monitor.step().archive.ended_ever, "the end")
        view = monitor.step()
        (record,) = (one for chunk in view.archive.records for one in chunk)
        assert Ending(int(record["ending"])) is Ending.NO_PORT
        lines = [json.loads(line) for part in EventReporter(True).step(view)[0] for line in part.splitlines()]
        assert [(line["old"], line["new"], line["ending"]) for line in lines] == [
            (None, "SYN_SENT", None),
            ("SYN_SENT", "CLOSED", "no local port"),
        ]
        assert {(line["local_port"], line["remote_address"], line["remote_port"]) for line in lines} == {(0, *server)}
        text = "".join(EventReporter(False).step(view)[0])
        assert "no local port (EADDRNOTAVAIL)" in text
        assert "*:*" not in text


def test_the_same_socket_connects_later(family: lab.Family, server: tuple[str, int]) -> None:
    with closing(Monitor(LiveSource(events=True, trace=True))) as monitor:
        monitor.step()
        with socket.socket(_FAMILIES[family]) as calling, socket.create_server((HOSTS[family], 1081),
                family=_FAMILIES[family]) as other:  # fmt: skip
            assert calling.connect_ex(server) == errno.EADDRNOTAVAIL
            calling.connect(other.getsockname()[:2])
            with other.accept()[0]:
                calling.close()
        lab.wait_until(lambda: monitor.step().archive.ended_ever == 2, "the ends of both sockets")
        endings = {Ending(int(one["ending"])) for chunk in monitor.step().archive.records for one in chunk}
        assert endings == {Ending.BY_US, Ending.BY_PEER}


def test_a_port_that_was_bound_proves_nothing(family: lab.Family, server: tuple[str, int]) -> None:
    """connect() with a bound port looks like one that was disconnected before it had an answer."""
    with closing(Monitor(LiveSource(events=True, trace=True))) as monitor:
        monitor.step()
        with socket.socket(_FAMILIES[family]) as connected, socket.socket(_FAMILIES[family]) as calling:
            for one in (connected, calling):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.bind((HOSTS[family], 30_000))
            connected.connect(server)
            assert calling.connect_ex(server) == errno.EADDRNOTAVAIL
            calling.close()
            lab.wait_until(lambda: monitor.step().archive.ended_ever, "the end")
            (record,) = (one for chunk in monitor.step().archive.records for one in chunk)
            assert Ending(int(record["ending"])) is Ending.GIVEN_UP
