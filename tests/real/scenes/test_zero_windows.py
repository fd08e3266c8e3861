"""Zero windows on the real kernel: one cause is one finding, with the number of peers and the first names."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Finding
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import open_source
from tests import lab
from tests.lab.diag import dump
from tests.lab.waiting import wait_until

LIMITS = Thresholds(zero_window_age_s=0.3)
MUCH = bytes(9_000_000)
CLIENTS = 30


@pytest.fixture
def namespace() -> Iterator[lab.Namespace]:
    lab.require(lab.namespaces, lab.tun, lab.ipv6)
    with lab.Namespace() as namespace:
        yield namespace


@pytest.fixture
def stack(namespace: lab.Namespace) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def paused_downloads(stack: ExitStack) -> int:
    """Open connections of clients at addresses of their own that read nothing; return the listener's port."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    for number in range(1, CLIENTS + 1):
        client = stack.enter_context(socket.socket())
        client.bind((f"127.0.1.{number}", 0))
        client.connect(listener.getsockname())
        server = stack.enter_context(listener.accept()[0])
        server.setblocking(False)
        server.send(MUCH)
    return int(listener.getsockname()[1])


def wait_for_probes(count: int) -> None:
    wait_until(lambda: sum(row.timer == "persist" for row in dump(4, "ESTABLISHED")) == count, "window probes", 15)


def wait_until_they_are_old() -> None:
    """All connections that wait now have waited for the threshold afterwards."""
    now = time.monotonic()
    wait_until(lambda: time.monotonic() > now + LIMITS.zero_window_age_s, "old zero windows")


def until_found(monitor: Monitor, count: int = 1) -> list[Finding]:
    """Poll until there are findings, and return them; there are never more."""

    def found() -> list[Finding]:
        said = [one for one in monitor.step().findings if one.rule == "zero-window"]
        assert len(said) <= count, said
        return said if len(said) == count else []

    return wait_until(found, "findings", 15)


def test_clients_that_do_not_read(stack: ExitStack) -> None:
    port = paused_downloads(stack)
    wait_for_probes(CLIENTS)
    wait_until_they_are_old()
    with closing(Monitor(open_source("sock_diag", events=True), thresholds=LIMITS)) as monitor:
        (finding,) = until_found(monitor)
    assert str(finding.subject) == f"listener 127.0.0.1:{port}"
    assert finding.headline.startswith("30 connections to 30 clients blocked by their receive windows, longest ")
    assert finding.headline.endswith("127.0.1.1, 127.0.1.2, 127.0.1.3 and 27 more")
    unsent = sum(row.transmit_queue for row in dump(4, "ESTABLISHED") if row.timer == "persist")
    assert finding.evidence["unsent"].value == unsent


def test_the_program_that_does_not_read_is_the_one_finding(stack: ExitStack) -> None:
    """The window closes while tcpwatch runs: the kernel's counter shows that it is this host's."""
    with closing(Monitor(open_source("sock_diag", events=True), thresholds=LIMITS)) as monitor:
        monitor.step()
        paused_downloads(stack)
        monitor.step()
        wait_for_probes(CLIENTS)
        (finding,) = until_found(monitor)
        for _ in range(5):
            (finding,) = until_found(monitor)
    assert finding.subject.name.endswith(f"[{os.getpid()}]")
    assert "is not reading 30 connections" in finding.headline
    assert finding.headline.endswith("zero window) from 127.0.0.1")


def test_a_window_that_is_too_small(namespace: lab.Namespace, stack: ExitStack) -> None:
    """The peer takes 100 bytes at a time: its window is not zero, and the timer is the same."""
    monitor = stack.enter_context(closing(Monitor(open_source("sock_diag", events=True), thresholds=LIMITS)))
    with lab.Peer(namespace) as peer, stack:
        peer.listen(80)
        kernel = stack.enter_context(socket.create_connection((lab.REMOTE[4], 80)))
        connection = peer.connection_of(kernel)
        connection.window(100)
        kernel.setblocking(False)
        kernel.send(bytes(100_000))
        wait_for_probes(1)
        monitor.step()
        wait_until_they_are_old()
        (finding,) = until_found(monitor)
        assert len(connection.received) > 0
    assert finding.headline.startswith("1 connection blocked by the peer's receive window, longest ")
    assert finding.why.startswith("The peer's receive window is zero, or too small for the next segment")


def test_several_processes_that_do_not_read(stack: ExitStack) -> None:
    with closing(Monitor(open_source("sock_diag", events=True), thresholds=LIMITS)) as monitor:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for _ in range(2):
            client = stack.enter_context(socket.create_connection(listener.getsockname()))
            accepted = listener.accept()[0]
            process = stack.enter_context(subprocess.Popen(["sleep", "60"], stdin=accepted.fileno()))
            stack.callback(process.kill)
            accepted.close()
            client.setblocking(False)
            monitor.step()
            client.send(MUCH)
        wait_for_probes(2)
        (finding,) = until_found(monitor)
    assert finding.subject.name.startswith("sleep of ")
    assert finding.headline.startswith("2 processes are not reading 2 connections (")


def test_a_process_whose_window_is_open_is_not_blamed(stack: ExitStack) -> None:
    """It has more than 32 KiB to read as well, but this host advertises the zero window of another process."""
    with closing(Monitor(open_source("sock_diag", events=True), thresholds=LIMITS)) as monitor:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.create_connection(listener.getsockname()))
        other = stack.enter_context(listener.accept()[0])
        process = stack.enter_context(subprocess.Popen(["sleep", "60"], stdin=other.fileno()))
        stack.callback(process.kill)
        other.close()
        client.send(bytes(40_000))
        monitor.step()
        paused_downloads(stack)
        monitor.step()
        wait_for_probes(CLIENTS)
        found = [until_found(monitor) for _ in range(4)]
    name = Path("/proc/self/comm").read_text().strip()
    assert {str(one.subject) for (one,) in found} == {f"process {name}[{os.getpid()}]"}


@pytest.mark.parametrize(("hosts", "subject"), [(2, "destination 198.18.7.{}:80"), (6, "process {}")])
def test_destinations_that_do_not_read(hosts: int, subject: str, namespace: lab.Namespace, stack: ExitStack) -> None:
    """Few destinations have a finding each; many have one, of the program that sends to them."""
    with lab.Peer(namespace) as peer:
        peer.listen(80)
        for number in range(1, hosts + 1):
            kernel = stack.enter_context(socket.create_connection((f"198.18.7.{number}", 80), 5))
            peer.connection_of(kernel).window(0)
            kernel.send(b"waits")
        wait_for_probes(hosts)
        wait_until_they_are_old()
        with closing(Monitor(open_source("sock_diag", events=True), thresholds=LIMITS)) as monitor:
            found = until_found(monitor, 2 if hosts == 2 else 1)
        stack.close()
    expected = [subject.format(at) for at in (1, 2)] if hosts == 2 else [found[0].subject.name]
    assert [str(one.subject).removeprefix("process ") for one in found] == expected
    if hosts == 6:
        assert found[0].subject.name.endswith(f"[{os.getpid()}]")
        assert "6 connections to 6 destinations" in found[0].headline
        assert found[0].headline.endswith("198.18.7.1:80, 198.18.7.2:80, 198.18.7.3:80 and 3 more")
