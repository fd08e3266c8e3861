"""The program answers whatever other processes do, and ends when it is asked to."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from tcpwatch.cli import commands
from tcpwatch.kernel import user_names
from tcpwatch.kernel.proc.owner_finder import OwnerFinder
from tcpwatch.kernel.proc.process import command_lines_block
from tests import lab
from tests.lab.machine.faults import run_with
from tests.lab.machine.stuck_processes import Stuck, fuse, stuck_processes
from tests.lab.waiting import wait_until
from tests.support.program import end, monitor, read_to_the_end, read_until, start

NOTE = "some command lines not read: blocked"
UIDS = (1001, 1001, 1001, 1002)
WORKING = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(flush=True)
sys.stdin.read()
"""
FOR_EVER_S = 30.0
"""The program would need as long, or for ever, if it waited."""


@pytest.fixture(scope="module")
def stuck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Stuck]]:
    lab.require(fuse)
    with stuck_processes(tmp_path_factory.mktemp("stuck"), UIDS) as processes:
        yield processes


def test_names_without_command_lines(stuck: list[Stuck]) -> None:
    """The processes have their name from comm, all others everything; few threads block; names come later."""
    finder = OwnerFinder()
    with subprocess.Popen([sys.executable, "-c", WORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdin
        process.stdout.readline()
        inodes = np.array([inode(pid) for pid in (*(one.pid for one in stuck), process.pid)], np.uint32)
        begin = monotonic()
        for _ in range(3):
            codes = finder.find(inodes, 10.0).tolist()
        assert monotonic() - begin < FOR_EVER_S
        processes = [finder.owners[code].processes[0] for code in codes]
        process.stdin.close()
    assert [one.pid for one in processes] == [*(one.pid for one in stuck), process.pid]
    *blocked, working = processes
    assert {(one.name.startswith("python"), one.command, one.pending) for one in blocked} == {(True, "", True)}
    assert sorted(one.uid for one in blocked) == sorted(UIDS)
    assert "create_server" in working.command and not working.pending
    assert command_lines_block()


def inode(pid: int) -> int:
    """Return the inode of the only socket of a process."""
    links = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    (number,) = [link for link in links if link.startswith("socket:")]
    return int(number[8:-1])


def test_the_commands(stuck: list[Stuck], environ: dict[str, str]) -> None:
    ports = " ".join(f"port:{one.port}" for one in stuck[:1])
    begin = monotonic()
    code, out, err = end(start(["list", "--json", ports], environ))
    assert code == 0 and f"tcpwatch: note: {NOTE}\n" in err
    assert [json.loads(line)["pid"] for line in out.splitlines()] == [stuck[0].pid]
    code, out, err = end(start(["summary"], environ))
    assert (code, err) == (0, "") and NOTE in out
    assert monotonic() - begin < FOR_EVER_S


def test_a_name_service_that_does_not_answer() -> None:
    """Names of users come later or not at all; everything else is there, and the program ends."""

    def silent() -> None:
        user_names._known.clear()
        pwd.getpwuid = lambda uid: time.sleep(1_000)  # type: ignore[assignment, return-value]

    begin = monotonic()
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        outcome = run_with(silent, partial(commands.root.main, ["list", "--json", f"port:{port}"]), FOR_EVER_S)
    assert outcome.code == 0 and "tcpwatch: note: some user names not read: blocked\n" in outcome.stderr
    (row,) = map(json.loads, outcome.stdout.splitlines())
    assert (row["pid"] is not None, row["uid"], row["user"]) == (True, os.getuid(), None)
    assert monotonic() - begin < FOR_EVER_S


def test_a_home_directory_that_does_not_answer(stuck: list[Stuck], environ: dict[str, str]) -> None:
    begin = monotonic()
    code, out, err = end(start(["list"], {**environ, "HOME": stuck[0].folder}))
    reason = "cannot be read: no answer within 1 s; make it a readable file, or name another with --config"
    assert (code, out, err) == (2, "", f"tcpwatch: {stuck[0].folder}/.config/tcpwatch/config.toml: {reason}\n")
    assert monotonic() - begin < FOR_EVER_S


def test_the_monitor(stuck: list[Stuck], environ: dict[str, str]) -> None:
    """It draws its first screen, and ends at a key or a signal."""
    for by_key in (True, False):
        with monitor(environ) as (process, leader):
            begin = monotonic()
            if by_key:
                leader.write(b"q")
            else:
                process.terminate()
            read_to_the_end(leader.fileno())
            assert process.wait(FOR_EVER_S) == (0 if by_key else 128 + signal.SIGTERM)
            assert monotonic() - begin < FOR_EVER_S


def test_events_that_nobody_reads(environ: dict[str, str]) -> None:
    """`--for` ends, with an error: the output is not whole."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, b"-" * 4096)
    begin = monotonic()
    process = start(["events", "--no-trace", "--for", "1"], environ, stdout=writer)
    while process.poll() is None:
        with closing(socket.create_server(("127.0.0.1", 0))) as server:
            socket.create_connection(server.getsockname()).close()
        assert monotonic() - begin < FOR_EVER_S
    code, _, err = end(process)
    assert (code, err) == (2, "tcpwatch: standard output is not read\n")
    for fd in (reader, writer):
        os.close(fd)


def test_a_signal_while_nobody_reads(environ: dict[str, str]) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, b"-" * 4096)
    with closing(socket.create_server(("127.0.0.1", 0))):
        process = start(["list"], environ, stdout=writer)
        wait_until(lambda: "pipe" in Path(f"/proc/{process.pid}/wchan").read_text(), "a blocked write", FOR_EVER_S)
    process.terminate()
    assert end(process)[0] == 128 + signal.SIGTERM
    for fd in (reader, writer):
        os.close(fd)


def test_an_export_where_nothing_answers(stuck: list[Stuck], environ: dict[str, str], tmp_path: Path) -> None:
    """It goes to the first directory that answers, and the monitor can be left."""
    lab.require(lab.program("nsenter"))
    folder = stuck[0].folder.partition("/root")[2]
    variables = {"PYTHONSAFEPATH": "1", "TMPDIR": str(tmp_path), "TCPWATCH_CONFIG": "/dev/null", "HOME": folder}
    inside = ["nsenter", "-m", "-t", str(stuck[0].pid), "sh", "-c", 'cd "$0" && exec "$@"', folder]
    with monitor({**environ, **variables}, under=inside) as (process, leader):
        leader.write(b"2")
        read_until(leader, b"Remote")
        leader.write(b"x")
        read_until(leader, b"written to")
        leader.write(b"q")
        read_to_the_end(leader.fileno())
        assert process.wait(FOR_EVER_S) == 0
    assert len(list(tmp_path.glob("tcpwatch-*.csv"))) == 1
