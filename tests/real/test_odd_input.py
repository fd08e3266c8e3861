"""Odd bytes from the terminal and in names, a deleted working directory: no traceback, no control byte is shown."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import lab
from tests.lab.machine.syscalls import CLONE_NEWUTS, unshare
from tests.support.program import end, make_terminal, monitor, read_to_the_end, start

_ODD = [
    b"\xe9", b"/\xffport\xc3\x28", b"\x1b", b"\x1b[M\x80\xff", b"\x1b[<0;99999999999;1M", b"\x1b]0;\xff\x07",
    b"\x1b[200~\xff\xfe\x1b[201~", b"\x1b", b"\x10", b"\x1b[5~", b"\x1b", b"\x10\x1b[5~", b"\x1b",
]  # fmt: skip
"""Characters of another charset, also in the filter; invalid mouse reports and pastes; ctrl+p with PgUp."""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8"}


def test_the_monitor_survives_odd_bytes_in_a_deleted_directory(
    namespace: lab.Namespace, environ: dict[str, str], tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    with monitor(environ, cwd=gone) as (process, leader):
        gone.rmdir()
        for data in _ODD:
            leader.write(data)
            while select.select([leader], [], [], 0.15)[0]:  # Esc is a key only if nothing follows it
                assert b"Traceback" not in leader.read(65_536)
        written = b""
        while b"Local" not in written:  # the title of a column
            for key in (b"\x1b", b"2"):  # what is still open on a busy machine is closed first
                leader.write(key)
                while select.select([leader], [], [], 0.5)[0]:
                    written += leader.read(65_536)
        leader.write(b"q")
        with suppress(OSError):  # the end of the terminal
            while rest := leader.read(65_536):
                assert b"Traceback" not in rest
        assert process.wait(20) == 0


def test_headless_commands_in_a_deleted_directory(
    namespace: lab.Namespace, environ: dict[str, str], tmp_path: Path
) -> None:
    for number, arguments in enumerate((["list"], ["summary", "--json"], ["--version"])):
        gone = tmp_path / str(number)
        gone.mkdir()
        process = start(arguments, environ, cwd=gone, preexec_fn=gone.rmdir)
        assert end(process)[::2] == (0, "")


# Names --------------------------------------------------------------------------------------------

_EVIL = "\x1b[31m=\u202e\n\t\x9b"
_DEVICE = "\x1b[31m\x7f=d"
_HOLDER = r"""
import ctypes, os, socket, sys
ctypes.CDLL(None).prctl(15, sys.argv[1].encode()[:15], 0, 0, 0)  # PR_SET_NAME
device = socket.create_server(("0.0.0.0", 0))
device.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, sys.argv[2].encode())
listener = socket.create_server(("127.0.0.1", 0), backlog=1)
client = socket.create_connection(listener.getsockname())
server = listener.accept()[0]
client.close()  # a server in CLOSE_WAIT
more = [socket.create_connection(listener.getsockname()) for _ in range(2)]  # over the limit of the queue
print("ready", flush=True)
sys.stdin.read()
"""
_COMMANDS = (
    ["list"], ["list", "--json"], ["list", "--csv"], ["summary", "--for", "0.5"], ["check", "--for", "0.5"],
    ["events", "--for", "0.5"],
)  # fmt: skip


@pytest.fixture
def odd_names(namespace: lab.Namespace) -> Iterator[None]:
    """A process and an interface with control characters in their names; the process holds sockets."""
    namespace.ip(f"link add {_DEVICE} type veth peer odd1")
    command = [sys.executable, "-c", _HOLDER, _EVIL, _DEVICE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
    namespace.ip("link delete odd1")


@pytest.mark.usefixtures("odd_names")
def test_no_control_byte_of_a_name_is_written(environ: dict[str, str]) -> None:
    started = [start(arguments, environ) for arguments in _COMMANDS]
    on_terminals = []
    for arguments in ("list", "summary"):
        leader, follower = make_terminal(200)
        process = start([arguments], {**environ, "TERM": "xterm-256color"}, stdout=follower, stderr=follower)
        os.close(follower)
        on_terminals.append((process, leader))
    for process in started:
        code, out, err = end(process)
        assert code in (0, 1, 3) and _only_text(out) and _only_text(err), process.args
    for process, leader in on_terminals:
        shown = read_to_the_end(leader).decode()
        os.close(leader)
        end(process)
        assert _only_text(re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r\n", "\n")), process.args


def _only_text(words: str) -> bool:
    return all(line.isprintable() for line in words.split("\n"))


@pytest.mark.usefixtures("odd_names")
def test_names_are_shown_with_escapes(environ: dict[str, str]) -> None:
    rows = [json.loads(line) for line in end(start(["list", "--json"], environ))[1].splitlines()]
    assert {row["process"] for row in rows if row["process"]} == {"\\x1b[31m=\\u202e\\x0a\\x09\\x9b"}
    assert {row["interface"] for row in rows if row["interface"]} == {"\\x1b[31m\\x7f=d"}
    lines = list(csv.DictReader(io.StringIO(end(start(["list", "--csv"], environ))[1])))
    assert [line["process"] for line in lines] == [row["process"] or "" for row in rows]


def test_a_host_name_with_control_characters(namespace: lab.Namespace, environ: dict[str, str]) -> None:
    def rename() -> None:
        unshare(CLONE_NEWUTS)
        socket.sethostname("\x1b[31m\nweb")

    out = end(start(["summary"], environ, preexec_fn=rename))[1]
    assert _only_text(out)
    assert "\\x1b[31m\\x0aweb" in out
