"""The real program in a process of its own: exit codes, broken outputs, signals, terminals, this host's own sockets."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.program import (
    ROOT,
    end,
    has_socket,
    make_terminal,
    monitor,
    read_to_the_end,
    read_until,
    start,
    trace_instances_of,
)


@pytest.fixture
def connection() -> Iterator[tuple[int, int]]:
    """Port of a listener, and port of a client connected to it."""
    with (
        closing(socket.create_server(("127.0.0.1", 0), backlog=7)) as server,
        closing(socket.create_connection(server.getsockname())) as client,
    ):
        yield server.getsockname()[1], client.getsockname()[1]


def test_list(connection: tuple[int, int], environ: dict[str, str]) -> None:
    port, client = connection
    code, out, err = end(start(["list", "--json", f"port:{port}"], environ))
    assert (code, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    listener, *ends = rows
    assert (listener["state"], listener["local_port"], listener["send_queue"]) == ("LISTEN", port, 7)
    assert (listener["pid"], listener["role"], listener["recv_queue"]) == (os.getpid(), "listener", 1)
    assert sorted((e["state"], e["local_port"], e["remote_port"], e["role"]) for e in ends) == sorted(
        [("ESTABLISHED", client, port, "client"), ("ESTABLISHED", port, client, "server")]
    )


def test_summary(connection: tuple[int, int], environ: dict[str, str]) -> None:
    port, _ = connection
    code, out, err = end(start(["summary", "--json", "--for", "0.5", "--interval", "0.1"], environ))
    assert (code, err) == (0, "")
    facts = json.loads(out)
    mine = [one for one in facts["listeners"] if one["local_port"] == port]
    assert [one["accept_queue"] for one in mine] == [{"depth": 1, "limit": 7}]
    assert facts["states"]["LISTEN"] >= 1 and facts["sockets"] == sum(facts["states"].values())
    assert set(facts["rates"]) <= set(facts["counters"]) and "CurrEstab" not in facts["rates"]
    assert set(facts["flows"]) == set(
        "opened_per_s ended_per_s lifetime_ms bytes exact window_s by_service by_process".split()
    )


def test_events(environ: dict[str, str]) -> None:
    """All transitions of a connection are printed, with a trace or without."""
    process = start(["events", "--json", "addr:127.0.0.1"], environ, bufsize=1)
    assert process.stdout is not None
    try:
        events = _events_of_a_connection(process)
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert err == "" or err.startswith("tcpwatch: no trace ("), err
    assert not trace_instances_of(process.pid), "nothing is left behind"
    assert {one["what"] for one in events} == {"state"}
    assert {one["origin"] for one in events} <= {"poll", "event", "trace"}


def _events_of_a_connection(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Make connections until the end of one is printed; return the printed events about them."""
    assert process.stdout is not None
    events: list[dict[str, Any]] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        while not any(one["ending"] == "closed by us" for one in events):
            with closing(socket.create_connection(("127.0.0.1", port))) as client:
                server.accept()[0].close()
                client.recv(1)
            while select.select([process.stdout], [], [], 0.3)[0]:
                one = json.loads(process.stdout.readline())
                events += [one] * (port in (one["local_port"], one["remote_port"]))
    return events


def test_events_end_quietly_when_the_pipe_is_closed(environ: dict[str, str]) -> None:
    reader, writer = os.pipe()
    process = start(["events"], environ, stdout=writer)
    os.close(writer)
    os.close(reader)
    code, err = end_by_events(process)
    assert code == 0 and (err == "" or err.startswith("tcpwatch: no trace (")), err


def test_events_on_a_full_disk(environ: dict[str, str], tmp_path: Path) -> None:
    with open(tmp_path / "small", "w") as small:
        args, unbuffered = ["events", "--json", "--no-trace"], {**environ, "PYTHONUNBUFFERED": "1"}
        code, err = end_by_events(start(args, unbuffered, stdout=small, preexec_fn=small_files))
    assert (code, err) == (2, "tcpwatch: cannot write to standard output: File too large\n")


def end_by_events(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Make connections until the program ends; return its exit code and its errors."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        while process.poll() is None:
            socket.create_connection(server.getsockname()).close()
            server.accept()[0].close()
    return end(process)[::2]


def small_files() -> None:
    """Let the kernel write the first 7 bytes of a file only. Python ignores SIGXFSZ."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (7, 7))


COMMANDS = [
    ["list"],
    ["list", "--json"],
    ["list", "--csv"],
    ["summary"],
    ["summary", "--json"],
    ["--help"],
    ["--version"],
]
CHECK = ["check", "--source", "psutil", "--for", "0.1", "--interval", "0.1"]
"""It reports data-incomplete: psutil has no queues."""


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_a_closed_pipe_ends_the_program_quietly(args: list[str], environ: dict[str, str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = start(args, environ, stdout=writer)
    os.close(writer)
    assert end(process) == (0, "", "")


def test_the_exit_code_of_check_does_not_depend_on_the_reader(environ: dict[str, str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = start(CHECK, environ, stdout=writer)
    os.close(writer)
    code, _, err = end(process)
    assert code == 1 and all(line.startswith("tcpwatch: note: ") for line in err.splitlines())


@pytest.mark.parametrize("args", [*COMMANDS, CHECK], ids=" ".join)
def test_a_full_disk_is_an_error(args: list[str], environ: dict[str, str], tmp_path: Path) -> None:
    """Whether it is full at once or takes a part of a write, with Python's buffer or without."""
    with open("/dev/full", "w") as full, open(tmp_path / "small", "w") as small:
        started = [
            (start(args, {**environ, "PYTHONUNBUFFERED": unbuffered}, stdout=stdout, preexec_fn=limit), reason)
            for unbuffered in ("", "1")
            for stdout, limit, reason in (
                (full, None, "No space left on device"),
                (small, small_files, "File too large"),
            )
        ]
        for process, reason in started:
            code, _, err = end(process)
            *notes, error = err.splitlines()
            assert code == 2 and error.startswith("tcpwatch: ") and error.endswith(reason), err
            assert all(note.startswith("tcpwatch: note: ") for note in notes)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("args", [["--help"], ["list", "--json"], CHECK], ids=" ".join)
def test_a_non_blocking_pipe_takes_everything(args: list[str], unbuffered: str, environ: dict[str, str]) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filled = os.write(writer, b"-" * 1_000_000)  # as much as it takes
    process = start(args, {**environ, "PYTHONUNBUFFERED": unbuffered}, stdout=writer)
    os.close(writer)
    wait_until(lambda: process.poll() is not None or waits_for_room(process.pid))
    with open(reader, encoding="utf-8") as pipe:
        out = pipe.read()[filled:]
    code, _, _ = end(process)
    assert code == (1 if args is CHECK else 0)
    assert out.endswith("\n") and len(out) > 20
    if args is not CHECK and "--json" in args:
        assert all(json.loads(line) for line in out.splitlines())


def waits_for_room(pid: int) -> bool:
    """Return whether the program sleeps in poll(2)."""
    return "poll" in Path(f"/proc/{pid}/wchan").read_text()


def test_no_stdout_and_no_stderr(environ: dict[str, str]) -> None:
    command = f"{sys.executable} -m tcpwatch"
    for redirected, code, error in (
        ("list >&-", 2, "tcpwatch: there is no standard output to write to\n"),
        ("list prt:1 2>/dev/full", 2, ""),
        ("list prt:1 2>&-", 2, ""),
        ("list --json 2>&-", 0, ""),
    ):
        done = subprocess.run(
            f"{command} {redirected}", shell=True, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (code, error), redirected


def test_the_monitor_without_a_terminal(environ: dict[str, str]) -> None:
    code, out, err = end(start([], environ))
    assert (code, out) == (2, "")
    assert err.startswith("tcpwatch: the monitor needs a terminal") and err.count("\n") == 1


@pytest.mark.parametrize("args", [["summary", "--for", "60"], ["events", "addr:192.0.2.1"]], ids=" ".join)
def test_interrupted(args: list[str], environ: dict[str, str]) -> None:
    def default_interrupt() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it

    process = start([*args, "--no-trace"], environ, preexec_fn=default_interrupt)
    try:
        wait_until(lambda: has_socket(process.pid))
        process.send_signal(signal.SIGINT)
        assert end(process) == (130, "", "")
    finally:
        process.kill()


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.02)


def on_a_terminal(args: list[str], environ: dict[str, str], columns: int) -> str:
    """Return what the program writes to a terminal with this number of columns."""
    leader, follower = make_terminal(columns)
    process = start(args, environ, stdout=follower)
    os.close(follower)
    written = read_to_the_end(leader)
    os.close(leader)
    assert end(process)[::2] == (0, "")
    return written.decode()


def test_a_terminal_has_colour_and_a_width(connection: tuple[int, int], environ: dict[str, str]) -> None:
    terminal = {**environ, "TERM": "xterm"}
    shown = on_a_terminal(["list", f"port:{connection[0]}"], terminal, 50)
    assert "\x1b[36mLISTEN" in shown
    plain = on_a_terminal(["list", f"port:{connection[0]}"], {**terminal, "NO_COLOR": "1"}, 50)
    assert "\x1b" not in plain and len(plain.splitlines()) == 4
    assert max(map(len, plain.splitlines())) <= 50


def test_another_locale(connection: tuple[int, int], environ: dict[str, str]) -> None:
    ascii_only = {**environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    for args in (["list"], ["summary"], ["list", "--json"]):
        code, out, err = end(start(args, ascii_only))
        assert (code, err) == (0, "") and out.isascii()


def test_an_export_that_is_left_at_the_end(
    connection: tuple[int, int], environ: dict[str, str], tmp_path: Path
) -> None:
    with monitor(environ, cwd=tmp_path) as (process, leader):
        leader.write(b"2")
        read_until(leader, str(connection[1]).encode())
        leader.write(b"xq")
        written = read_to_the_end(leader.fileno()).decode()
        assert process.wait(60) == 0
    (path,) = tmp_path.glob("tcpwatch-*")
    with path.open() as file:
        lines = sum(1 for _ in file)
    assert path.suffix == ".csv" and lines > 3
    assert written.endswith(f"tcpwatch: {lines - 1:,} sockets written to {path}\r\n")
