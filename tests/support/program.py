"""The program in a process of its own, with pipes or on a terminal."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.lab.machine.requirements import tracefs
from tests.lab.machine.tracefs import tracefs_root

ROOT = Path(__file__).parents[2]


def start(
    args: Sequence[str], environ: dict[str, str], *, under: Sequence[str] = (), **extra: Any
) -> subprocess.Popen[str]:
    """Start the program, `under` another one such as strace; `extra` are arguments of Popen."""
    command = [*under, sys.executable, "-m", "tcpwatch", *args]
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environ = {**environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, text=True, env=environ, **{"cwd": ROOT, **streams, **extra})


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for the end; return the exit code and what was written to stdout and stderr."""
    with process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out or "", err or ""


def trace_instances_of(pid: int) -> list[Path]:
    """Return the trace instances of this process; none where it cannot have any."""
    return [] if tracefs() else list((tracefs_root() / "instances").glob(f"tcpwatch-{pid}*"))


def read_to_the_end(leader: int) -> bytes:
    """Read from a terminal until it is closed."""
    written = b""
    try:
        while piece := os.read(leader, 4096):
            written += piece
    except OSError as error:  # how a terminal's end looks on Linux
        assert error.errno == errno.EIO
    return written


def make_terminal(columns: int) -> tuple[int, int]:
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    return leader, follower


def has_socket(pid: int) -> bool:
    """Return whether the process has opened a socket."""
    descriptors = Path(f"/proc/{pid}/fd")
    try:
        return any(str(one.readlink()).startswith("socket:") for one in descriptors.iterdir())
    except FileNotFoundError:  # one was closed just now
        return False


def read_until(leader: io.FileIO, words: bytes) -> None:
    """Read from a terminal until these words have been written to it."""
    written = b""
    while words not in written:
        assert select.select([leader], [], [], 60)[0], written
        written += leader.read(4096)


@contextmanager
def monitor(environ: dict[str, str], **extra: Any) -> Iterator[tuple[subprocess.Popen[str], io.FileIO]]:
    """Start the monitor on a terminal and wait for its first screen; yield the process and the terminal's other end."""
    number, follower = make_terminal(80)

    def controlled() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it

    # A session of its own with this controlling terminal: closing the terminal sends SIGHUP.
    streams: dict[str, Any] = {**dict.fromkeys(("stdin", "stdout", "stderr"), follower), "start_new_session": True}
    process = start([], {"TERM": "xterm-256color", **environ}, **{**streams, **extra}, preexec_fn=controlled)
    os.close(follower)
    with io.FileIO(number, "r+") as leader:
        try:
            read_until(leader, b"ESTABLISHED")
            yield process, leader
        finally:
            process.kill()
            process.wait(60)
