"""Connections that no process closes, spread over many processes, and seen by a user who may not see these."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import lab
from tests.lab.machine.requirements import other_users
from tests.sentences.recorder import note_texts

ROOT = Path(__file__).parents[3]
WORKERS = 24

LEAK = f"""
import os, signal, socket, sys
listener = socket.create_server(("127.0.0.1", 0), backlog=64)
clients = [socket.create_connection(listener.getsockname()) for _ in range({WORKERS})]
workers = []
for _ in clients:
    connection, _ = listener.accept()
    pid = os.fork()
    if not pid:
        listener.close()
        for client in clients:
            client.close()
        sys.stdout.close()
        signal.pause()
    workers.append(pid)
    connection.close()
for client in clients:
    client.HALF()
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
for pid in workers:
    os.kill(pid, signal.SIGKILL)
"""
"""A server with one connection in each of its workers; HALF is how the clients end their side."""

WATCH = f"""
import json, os, sys, time
sys.path[:0] = {[str(ROOT), *sys.path]!r}
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
rule, uid = sys.argv[1], int(sys.argv[2])
if uid:
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
monitor = Monitor(LiveSource(0.5), thresholds=Thresholds(close_wait_age_s=0.2, half_closed_age_s=0.2))
deadline, found = time.monotonic() + 20, []
while not found and time.monotonic() < deadline:
    found = [finding for finding in monitor.step().findings if finding.rule == rule]
    time.sleep(0.1)
for finding in found:
    print(json.dumps([str(finding.subject), finding.headline, finding.why, *finding.advice]))
"""


@contextmanager
def leak(end: str) -> Iterator[int]:
    """Run the server until the block ends; yields the port of its listener."""
    command = [sys.executable, "-IS", "-c", LEAK.replace("HALF()", end)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.stdin.close()


PID_NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc")


def findings(rule: str, uid: int = 0, prefix: Sequence[str] = ()) -> list[str]:
    """Return the first findings of this rule, as a user sees them; `prefix` is a command that starts the program."""
    command = [*prefix, sys.executable, "-c", WATCH, rule, str(uid)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd="/")
    assert done.stderr == ""
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for _, *texts in found:
        note_texts("teardown", texts)
    return [f"{subject}: {headline}" for subject, headline, *_ in found]


def test_one_connection_in_each_worker_is_a_leak_of_their_program(namespace: lab.Namespace) -> None:
    with leak("close()"):
        (finding,) = findings("close-wait-leak")
    program = os.path.basename(sys.executable)
    assert finding.startswith(f"program {program} of ")
    assert f"{WORKERS} CLOSE_WAIT in {WORKERS} processes" in finding


def test_a_leak_of_processes_that_are_not_visible(namespace: lab.Namespace) -> None:
    lab.require(other_users)
    with leak("close()") as port:
        (finding,) = findings("close-wait-leak", uid=65534)
    assert finding.startswith(f"listener 127.0.0.1:{port}: {WORKERS} CLOSE_WAIT")
    assert "owner unknown: not all processes can be read" in finding


def test_a_leak_of_processes_in_another_pid_namespace(namespace: lab.Namespace) -> None:
    lab.require(other_users, lab.program("unshare"))
    with leak("close()") as port:
        (finding,) = findings("close-wait-leak", prefix=PID_NAMESPACE)
    assert finding.startswith(f"listener 127.0.0.1:{port}: {WORKERS} CLOSE_WAIT")
    assert "owner unknown: no visible process holds it (another pid namespace, or the kernel)" in finding


@pytest.mark.parametrize("uid", [0, 65534])
def test_half_closed_ones_are_one_finding(namespace: lab.Namespace, uid: int) -> None:
    lab.require(other_users)
    # The server's side is in CLOSE_WAIT, and the clients' in FIN_WAIT_2, of one process.
    with leak("shutdown(socket.SHUT_WR)"):
        (finding,) = findings("half-closed", uid)
    assert f"{WORKERS} half-closed in FIN_WAIT_2" in finding
    assert finding.startswith("user root" if uid else "process ")
    assert ("owner unknown" in finding) == bool(uid)
