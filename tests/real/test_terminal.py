"""The monitor on terminals that are slow, stopped or not read, and in the background."""

from __future__ import annotations

import io
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import lab
from tests.support.program import monitor, read_to_the_end, read_until

Running = tuple["subprocess.Popen[str]", io.FileIO]


@pytest.fixture
def environ(tmp_path: Path, namespace: lab.Namespace) -> dict[str, str]:
    return {**os.environ, "HOME": str(tmp_path)}


@pytest.fixture
def running(environ: dict[str, str]) -> Iterator[Running]:
    with monitor(environ) as it:
        yield it


def state(process: subprocess.Popen[str]) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def press(leader: io.FileIO, key: bytes) -> None:
    leader.write(key)


def quits(running: Running) -> bytes:
    """Press q; return what was written to the terminal until its end."""
    process, leader = running
    press(leader, b"q")
    written = read_to_the_end(leader.fileno())
    assert process.wait(20) == 0
    return written


def test_a_terminal_that_is_not_read(running: Running) -> None:
    process, leader = running
    for key in b"123456" * 20:
        press(leader, bytes([key]))
    lab.wait_until(lambda: len(select.select([leader], [], [], 0)[0]), "output that nobody reads")
    pressed = time.monotonic()
    press(leader, b"q")
    assert process.wait(20) == 0
    assert time.monotonic() - pressed < 10, "it waited for the terminal"
    assert process.returncode == 0


def test_frames_are_whole_after_some_were_dropped(running: Running) -> None:
    _, leader = running
    for key in b"123456" * 20 + b"2":
        press(leader, bytes([key]))
    written = b""
    while b"Remote" not in written:  # the titles of the columns
        assert select.select([leader], [], [], 60)[0], written
        written = (written + leader.read(200))[-20_000:]
    assert b"\x1b[?1049l" in quits(running)


def test_stopped_and_continued(running: Running) -> None:
    process, leader = running
    for _ in range(3):
        process.send_signal(signal.SIGSTOP)
        lab.wait_until(lambda: state(process) == "T", "the stop")
        process.send_signal(signal.SIGCONT)
        read_until(leader, b"\x1b[?1049h")
        read_until(leader, b"ESTABLISHED")
    assert b"\x1b[?1049l" in quits(running)


def test_suspended_by_a_key_and_back(running: Running) -> None:
    process, leader = running
    press(leader, b"\x1a")  # ctrl+z
    read_until(leader, b"\x1b[?1049l")
    lab.wait_until(lambda: state(process) == "T", "the stop")
    process.send_signal(signal.SIGCONT)
    read_until(leader, b"ESTABLISHED")
    press(leader, b"2")
    read_until(leader, b"Remote")
    assert b"\x1b[?1049l" in quits(running)


def test_stderr_may_be_a_file(environ: dict[str, str], tmp_path: Path) -> None:
    with (tmp_path / "err").open("w") as err, monitor(environ, stderr=err) as running:
        quits(running)
    assert (tmp_path / "err").read_text() == ""


def test_without_colour(environ: dict[str, str]) -> None:
    with monitor({**environ, "NO_COLOR": "1"}) as running:
        _, leader = running
        for key, shown in ((b"2", b"Remote"), (b"6", b"Timelines]"), (b"?", b"Keys")):
            press(leader, key)
            read_until(leader, shown)
        quits(running)


def test_a_charset_with_few_characters(environ: dict[str, str]) -> None:
    with monitor({**environ, "PYTHONIOENCODING": "iso8859-1"}) as running:
        _, leader = running
        press(leader, b"3")
        read_until(leader, b"Accept-Q")
        written = quits(running)
    assert all(byte < 0x80 or byte in "·×µ±".encode("iso8859-1") for byte in written), written
