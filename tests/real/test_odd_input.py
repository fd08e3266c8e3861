"""Bytes that no keyboard sends, and a working directory that was deleted: no traceback, and the monitor goes on."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
import termios
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from tests import lab
from tests.support.program import ROOT, make_terminal

_ODD = [
    b"\xe9", b"/\xffport\xc3\x28", b"\x1b", b"\x1b[M\x80\xff", b"\x1b[<0;99999999999;1M", b"\x1b]0;\xff\x07",
    b"\x1b[200~\xff\xfe\x1b[201~", b"\x1b", b"\x10", b"\x1b[5~", b"\x1b", b"\x10\x1b[5~", b"\x1b",
]  # fmt: skip
"""Characters of another charset, also in the filter; invalid mouse reports and pastes; ctrl+p with PgUp."""


def test_the_monitor_survives_odd_bytes_in_a_deleted_directory(namespace: lab.Namespace, tmp_path: Path) -> None:
    leader, follower = make_terminal(100)
    home, gone = tmp_path / "home", tmp_path / "gone"
    for folder in (home, gone):
        folder.mkdir()
    environ = {**os.environ, "TERM": "xterm-256color", "HOME": str(home), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tcpwatch"], stdin=follower, stdout=follower, stderr=follower, cwd=gone, env=environ,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(follower)
    written = bytearray()

    def shown(wanted: bytes, deadline_s: float = 60) -> None:
        begin, end = len(written), time.monotonic() + deadline_s
        while wanted not in written[begin:]:
            assert select.select([leader], [], [], max(0.0, end - time.monotonic()))[0], bytes(written[begin:])
            written.extend(os.read(leader, 65_536))

    with process, ExitStack() as stack:
        stack.callback(process.kill)  # after a failure
        shown(b"ESTABLISHED")
        gone.rmdir()
        for data in _ODD:
            os.write(leader, data)
            while select.select([leader], [], [], 0.15)[0]:  # Esc is a key only if nothing follows it
                written.extend(os.read(leader, 65_536))
        os.write(leader, b"2")
        shown(b"Local", 20)  # the title of a column
        os.write(leader, b"q")
        with suppress(OSError):  # the end of the terminal
            shown(b"never", 20)
        os.close(leader)
        assert process.wait(20) == 0, bytes(written[-3000:])
    assert b"Traceback" not in written


def test_headless_commands_in_a_deleted_directory(namespace: lab.Namespace, tmp_path: Path) -> None:
    for number, arguments in enumerate((["list"], ["summary", "--json"], ["--version"])):
        gone = tmp_path / str(number)
        gone.mkdir()
        done = subprocess.run(
            ["sh", "-c", 'rmdir "$0" && exec "$@"', str(gone), sys.executable, "-m", "tcpwatch", *arguments],
            cwd=gone, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
