"""2,000 connections that open and close within milliseconds between two polls: all are known, also without a trace."""

from __future__ import annotations

import itertools
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from tcpwatch.model.lifecycle.archive import Archive
from tcpwatch.model.lifecycle.history import build_history
from tcpwatch.model.lifecycle.transitions import Origin
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.query.timeline_arrangement import TimelineArranger, TimelineSort
from tcpwatch.model.states import Role, State
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.lab.machine.requirements import tracefs

CONNECTIONS = 2_000
POLL_S = 1.0
EXACT_S = 0.001
FIRST_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO
S = State
CLIENT = (S.SYN_SENT, S.ESTABLISHED, S.FIN_WAIT_1, S.FIN_WAIT_2, S.TIME_WAIT)
SERVER = (S.SYN_RCVD, S.ESTABLISHED, S.CLOSE_WAIT, S.LAST_ACK)


@dataclass(frozen=True, slots=True)
class Called:
    """One connection: the times (time.monotonic()) just before and after each call of the client."""

    port: int
    connect: tuple[float, float]
    close: tuple[float, float]


SERVER_PROCESS = """
import socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    with listener.accept()[0] as accepted:
        while accepted.recv(4096):
            pass
"""
"""Reads until the client has closed, then closes. It is a process, as a thread would wait for the client's thread."""


def call(address: tuple[str, int], count: int, generator: random.Random) -> Iterator[Called]:
    for _ in range(count):
        with socket.socket() as sock:
            times = [time.monotonic()]
            sock.connect(address)
            times.append(time.monotonic())
            port = sock.getsockname()[1]
            sock.send(b"hello")
            until = times[1] + generator.uniform(0.0005, 0.004)
            while time.monotonic() < until:  # a sleep would be longer than the connection
                pass
            times.append(time.monotonic())
        yield Called(port, (times[0], times[1]), (times[2], time.monotonic()))


@contextmanager
def watched(trace: bool) -> Iterator[tuple[Monitor, tuple[str, int]]]:
    """A Monitor in a namespace of its own, and the address of a server there."""
    lab.require(lab.namespaces)
    if trace:
        lab.require(tracefs)
    with ExitStack() as stack:
        namespace = stack.enter_context(lab.Namespace())
        namespace.sysctl("net.ipv4.ip_local_port_range", "2000 60000")
        namespace.sysctl("net.ipv4.tcp_tw_reuse", "0")  # no port is used twice: over loopback it could be, after 1 s
        # A late server receives the client's FIN twice, and its answer to the second would end a TIME_WAIT.
        namespace.sysctl("net.ipv4.tcp_rfc1337", "1")
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 1080), backlog=128))
        monitor = stack.enter_context(closing(Monitor(LiveSource(events=True, trace=trace))))
        monitor.step()
        command = [sys.executable, "-c", SERVER_PROCESS, str(listener.fileno())]
        server = stack.enter_context(subprocess.Popen(command, pass_fds=[listener.fileno()]))
        stack.callback(server.kill)
        yield monitor, listener.getsockname()


@dataclass(frozen=True, slots=True)
class Seen:
    """The connections made, and the last View."""

    called: list[Called]
    view: View
    opened: int
    ended: int

    @property
    def archive(self) -> Archive:
        return self.view.archive


@pytest.fixture(scope="module", params=[True, False], ids=["trace", "no trace"])
def seen(request: pytest.FixtureRequest) -> Iterator[Seen]:
    with watched(request.param) as (monitor, address):
        done, due = [], time.monotonic() + POLL_S
        for one in call(address, CONNECTIONS, random.Random(1)):
            done.append(one)
            if time.monotonic() >= due:
                monitor.step()
                due += POLL_S
        lab.wait_until(lambda: monitor.step().archive.ended_ever >= 2 * CONNECTIONS, "the ends")
        last = monitor.step()
        totals = last.flow_totals
        assert totals is not None
        seconds = totals.window_s
        yield Seen(done, last, round(totals.all.opened_per_s * seconds), round(totals.all.ended_per_s * seconds))


def test_each_is_counted_once(seen: Seen) -> None:
    assert (seen.opened, seen.ended) == (2 * CONNECTIONS, 2 * CONNECTIONS)
    assert (seen.view.trace.events_lost, seen.view.trace.destroy_events_lost) == (0, 0)
    closed = np.concatenate(seen.archive.records)
    assert len(closed) == 2 * CONNECTIONS
    for role, port in ((Role.CLIENT, "idiag_sport"), (Role.SERVER, "idiag_dport")):
        ports = closed["row"][closed["role"] == role][port]
        assert sorted(ports.tolist()) == sorted(one.port for one in seen.called)


def test_each_is_in_timelines(seen: Seen) -> None:
    chosen = TimelineArranger().arrange(seen.view, Filter.parse(""), TimelineSort("begin"), reverse=True)
    assert len(chosen) == 2 * CONNECTIONS


@pytest.mark.parametrize("seen", [True], ids=["trace"], indirect=True)
def test_with_the_trace_each_has_all_its_states(seen: Seen) -> None:
    closed = np.concatenate(seen.archive.records)
    called = {one.port: one for one in seen.called}
    reported = seen.archive.transitions_of(closed["cookie"].tolist())
    offset = seen.view.sample.time - seen.view.sample.monotonic
    for record in closed:
        is_client, cookie = record["role"] == Role.CLIENT, int(record["cookie"])
        at = seen.view.rows.find(cookie)
        now = State(int(seen.view.rows.state[at])) if at is not None else None
        periods = build_history(reported[cookie], None, now).periods
        assert tuple(one.state for one in periods) == (CLIENT if is_client else SERVER)
        # A poll may see a client's orphan in FIN_WAIT_2: the trace has no later states of it.
        met = is_client and record["row"]["idiag_state"] == State.FIN_WAIT_2 and record["row"]["idiag_inode"] == 0
        traced = periods[:-1] if met else periods
        assert all(one.begin.origin is Origin.TRACE for one in traced)
        if is_client:
            check_times(called[int(record["row"]["idiag_sport"])], [one.begin.time - offset for one in periods])


@pytest.mark.parametrize("seen", [True], ids=["trace"], indirect=True)
def test_with_the_trace_the_client_s_owner_is_known(seen: Seen) -> None:
    closed = np.concatenate(seen.archive.records)
    clients = closed[closed["role"] == Role.CLIENT]
    owners = {seen.archive.owner(code) for code in np.unique(clients["owner"]).tolist()}
    if os.stat("/proc/self/ns/pid").st_ino == FIRST_PID_NAMESPACE:
        (owner,) = owners
        assert owner is not None
        assert owner.processes[0].pid == os.getpid()
    else:  # the kernel's pid is not the one in this PID namespace
        assert owners == {None}


def check_times(one: Called, begins: list[float]) -> None:
    """Check that every state began during the call that leads to it."""
    syn_sent, established, fin_wait_1 = begins[:3]
    for begin, (earliest, latest) in ((syn_sent, one.connect), (established, one.connect), (fin_wait_1, one.close)):
        assert earliest - EXACT_S <= begin <= latest + EXACT_S
    assert all(before <= after for before, after in itertools.pairwise(begins))
