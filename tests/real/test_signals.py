"""Signals: the program ends in order, and nothing stays behind, however many signals arrive."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from tests.lab.machine.requirements import tracefs
from tests.lab.waiting import wait_until
from tests.support.program import end, has_socket, make_terminal, monitor, read_to_the_end, start, trace_instances_of

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def default_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it


def signalled(process: subprocess.Popen[str], first: signal.Signals) -> None:
    """Send this signal, then others until the program has ended."""
    process.send_signal(first)
    chosen = random.Random(first)
    while process.poll() is None:
        time.sleep(0.001)
        process.send_signal(chosen.choice(SIGNALS))


def ended_by_a_signal(code: int) -> bool:
    return -code in SIGNALS or code - 128 in SIGNALS


@pytest.mark.parametrize("first", SIGNALS, ids=lambda number: number.name)
def test_headless(environ: dict[str, str], first: signal.Signals) -> None:
    """Signals that arrive while the trace instance is made, or later."""
    for args, begun in ((["events"], has_socket), (["check", "--for", "60"], is_tracing)):
        process = start(args, environ, preexec_fn=default_signals)
        wait_until(partial(begun, process.pid), "the program runs", 60)
        signalled(process, first)
        code, out, err = end(process)
        assert ended_by_a_signal(code) and out == ""
        assert not trace_instances_of(process.pid)
        assert all(line.startswith("tcpwatch: no trace (") for line in err.splitlines()), err


def is_tracing(pid: int) -> bool:
    """Return whether there is an instance; where there can be none, whether polling begins."""
    return bool(trace_instances_of(pid)) if not tracefs() else has_socket(pid)


@pytest.mark.parametrize("first", SIGNALS, ids=lambda number: number.name)
def test_the_monitor(environ: dict[str, str], first: signal.Signals) -> None:
    with monitor(environ) as (process, leader):
        flood = threading.Thread(target=signalled, args=(process, first))
        flood.start()
        written = read_to_the_end(leader.fileno())
        flood.join(60)
        assert ended_by_a_signal(process.wait(60))
        assert b"\x1b[?1049l" in written, "the terminal is as before"
        assert b"Traceback" not in written
        assert not trace_instances_of(process.pid)


def test_the_terminal_is_closed(environ: dict[str, str]) -> None:
    with monitor(environ) as (process, leader):
        leader.close()
        assert process.wait(60) == 128 + signal.SIGHUP
        assert not trace_instances_of(process.pid)


def test_sigterm_during_the_start_of_the_monitor(environ: dict[str, str]) -> None:
    leader, follower = make_terminal(80)
    process = start([], environ, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    wait_until(partial(is_tracing, process.pid), "the program runs", 60)
    process.send_signal(signal.SIGTERM)
    written = read_to_the_end(leader)
    os.close(leader)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert b"Traceback" not in written
    assert not trace_instances_of(process.pid)


def test_ignored_signals_stay_ignored(environ: dict[str, str]) -> None:
    """As nohup makes it."""
    process = start(["events"], environ, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    wait_until(partial(has_socket, process.pid), "the program runs", 60)
    status = Path(f"/proc/{process.pid}/status").read_text()
    ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 128 + signal.SIGTERM
    assert ignored >> (signal.SIGHUP - 1) & 1 and not ignored >> (signal.SIGTERM - 1) & 1
