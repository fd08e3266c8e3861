"""Processes that share a listener: the one that accepts is named, in findings, JSON and on screens alike."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tcpwatch.config.thresholds import Thresholds
from tcpwatch.kernel.proc.connect_callers import ConnectCallers
from tcpwatch.model.states import State
from tcpwatch.monitor import Monitor
from tcpwatch.report import list_json, summary_json
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.lab.machine.requirements import tracefs

BACKLOG = 3
OWN_NAME = Path("/proc/self/comm").read_text(encoding="utf-8").strip()
SERVER = """
import socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
open("/proc/self/comm", "w").write("server")
accepted = []
print(flush=True)
for line in sys.stdin:
    accepted.append(listener.accept()[0])
    if line == "close\\n":
        accepted.pop().close()
    print(flush=True)
"""
"""A program that inherits a listener, and accepts one connection for each line that it reads: `keep` or `close`."""


class Server:
    """A running SERVER."""

    def __init__(self, listener: socket.socket) -> None:
        fd = listener.fileno()
        command = [sys.executable, "-IS", "-c", SERVER, str(fd)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, pass_fds=(fd,), **pipes)  # type: ignore[call-overload]
        assert self.process.stdout.readline() == "\n"
        self.pid = self.process.pid

    def accept(self, then: str = "keep") -> None:
        self.process.stdin.write(f"{then}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "\n"


@pytest.fixture
def stack(namespace: lab.Namespace) -> Iterator[ExitStack]:
    with ExitStack() as it:
        yield it


@contextmanager
def served(listener: socket.socket) -> Iterator[Server]:
    server = Server(listener)
    with server.process:
        yield server
        server.process.stdin.close()


def held_by(names: dict[int, str]) -> str:
    """Return the words for these processes; a child has the smaller pid where the kernel began to count anew."""
    return "held by " + ", ".join(f"{names[pid]}[{pid}]" for pid in sorted(names))


def test_the_program_is_named_and_not_the_manager_that_started_it(stack: ExitStack) -> None:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=BACKLOG))
    server = stack.enter_context(served(listener))
    monitor = stack.enter_context(closing(Monitor(LiveSource(1.0))))
    both = held_by({os.getpid(): OWN_NAME, server.pid: "server"})
    lab.wait_until(lambda: [it.holders for it in monitor.step().listeners] == [both], "the holders")

    def connect() -> None:
        stack.enter_context(socket.create_connection(listener.getsockname()))

    def accepts() -> bool:
        """Let it accept another connection, as one proves nothing if it began before the last step."""
        connect()
        server.accept()
        monitor.step()
        return bool(monitor.step().listeners[0].accepted_by)

    lab.wait_until(accepts, "a proof")
    for _ in range(BACKLOG + 1):
        connect()
    lab.wait_until(lambda: bool(monitor.step().findings), "the finding")
    view = monitor.step()
    (finding,) = [it for it in view.findings if it.rule == "accept-queue-full"]
    assert finding.headline.startswith(f"server[{server.pid}], ")
    assert finding.headline.endswith(f"; {both}; accepted by server[{server.pid}]")
    assert finding.evidence["process"].value == f"server[{server.pid}]"
    assert all(str(os.getpid()) not in line for line in finding.advice)
    assert any("backlog that the program that opened the socket passed" in line for line in finding.advice)
    line, *_ = "".join(list_json.as_json(view, list_json.in_order(view.rows))).splitlines()
    row = json.loads(line)
    assert (row["state"], row["pid"], row["accepted_by"]) == ("LISTEN", server.pid, [server.pid])
    assert row["pids"] == sorted([os.getpid(), server.pid])
    (facts,) = summary_json.summary(view)["listeners"]
    assert (facts["pid"], [it["pid"] for it in facts["accepted_by"]]) == (server.pid, [server.pid])


def test_several_programs_that_accept(stack: ExitStack) -> None:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=BACKLOG))
    servers = [stack.enter_context(served(listener)) for _ in range(2)]
    address = listener.getsockname()
    listener.close()
    limits = Thresholds(accept_stalled_s=0.001)
    monitor = stack.enter_context(closing(Monitor(LiveSource(1.0, events=True), thresholds=limits)))

    def both_accept() -> bool:
        for server in servers:
            stack.enter_context(socket.create_connection(address))
            server.accept()
        return len(monitor.step().listeners[0].accepted_by) == 2

    lab.wait_until(both_accept, "a proof")
    for _ in range(BACKLOG + 1):
        stack.enter_context(socket.create_connection(address))
    names = ", ".join(f"server[{pid}]" for pid in sorted(server.pid for server in servers))

    def why(words: str) -> str:
        found = [one for one in monitor.step().findings if one.rule == "accept-queue-full"]
        return found[0].why if found and words in found[0].why else ""

    assert lab.wait_until(lambda: why("accepted nothing"), "a stall").startswith(f"{names} have accepted nothing for ")
    servers[0].accept()
    stack.enter_context(socket.create_connection(address))
    assert why("accept connections").startswith(f"{names} accept connections more slowly than clients open them.")


def first_pid_namespace() -> str:
    return "" if ConnectCallers().readable else "the trace has other process ids than this pid namespace"


def test_the_trace_shows_who_accepts_connections_that_no_poll_sees(stack: ExitStack) -> None:
    lab.require(tracefs, first_pid_namespace)
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=BACKLOG))
    server = stack.enter_context(served(listener))
    monitor = stack.enter_context(closing(Monitor(LiveSource(1.0, events=True, trace=True))))
    lab.wait_until(lambda: bool(monitor.step().listeners[0].holders), "the holders")

    def accepts() -> list[int]:
        with socket.create_connection(listener.getsockname()) as client:
            server.accept("close")
            assert client.recv(1) == b""
        found = monitor.step()
        assert found.counts[State.ESTABLISHED] == 0
        return [process.pid for process in found.listeners[0].accepted_by]

    lab.wait_until(lambda: accepts() == [server.pid], "the proof")


def test_a_helper_that_has_inherited_everything_is_not_named(stack: ExitStack) -> None:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    stack.enter_context(socket.create_connection(listener.getsockname()))
    accepted = stack.enter_context(listener.accept()[0])
    fds = (listener.fileno(), accepted.fileno())
    helper = stack.enter_context(subprocess.Popen(["sleep", "100"], pass_fds=fds))
    stack.callback(helper.kill)
    monitor = stack.enter_context(closing(Monitor(LiveSource(1.0))))
    me = f"{OWN_NAME}[{os.getpid()}]"
    expected = f"{held_by({os.getpid(): OWN_NAME, helper.pid: 'sleep'})}; connections held by {me}"
    lab.wait_until(
        lambda: [it.holders for it in monitor.step().listeners] == [expected], "the one that holds the connections"
    )


def test_nobody_is_blamed_while_it_is_not_known_who_accepts(stack: ExitStack) -> None:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=BACKLOG))
    servers = [stack.enter_context(served(listener)) for _ in range(2)]
    monitor = stack.enter_context(closing(Monitor(LiveSource(1.0))))
    for _ in range(BACKLOG + 1):
        stack.enter_context(socket.create_connection(listener.getsockname()))
    listener.close()
    lab.wait_until(lambda: bool(monitor.step().findings), "the finding")

    def headline() -> str:
        return monitor.step().findings[0].headline

    pids = sorted(server.pid for server in servers)
    both = f"; held by server[{pids[0]}], server[{pids[1]}]"
    lab.wait_until(lambda: headline().endswith(both), "both holders")
    (finding,) = monitor.step().findings
    assert finding.headline.startswith(f"{BACKLOG + 1} of {BACKLOG} waiting")
    assert finding.evidence["process"].value is None
    assert all("server[" not in line for line in finding.advice)
