"""Signals that end the program, in a process of its own: pytest has handlers, too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

START = """
import os, signal, sys, time
from tcpwatch import signals

def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)

INT, TERM, HUP, QUIT = signals.NUMBERS
for number in (INT, QUIT):  # a shell ignores them in its background
    signal.signal(number, signal.SIG_DFL)
signals.install()
"""


def run(program: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", START + program],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == "", done.stderr
    return done.returncode, done.stdout


def test_later_signals_do_not_interrupt_the_end() -> None:
    code, out = run("""
try:
    send(TERM)
finally:
    send(INT, TERM, HUP, QUIT)
    print("whole")
""")
    assert (code, out) == (143, "whole\n")


def test_what_is_held_is_whole() -> None:
    code, out = run("""
try:
    with signals.held():
        with signals.held():
            send(HUP, TERM)
        print("whole", flush=True)
    print("not reached")
except SystemExit:
    with signals.held():
        print("closed", flush=True)
    print("not reached, either")
""")
    assert (code, out) == (129, "whole\nclosed\n")


@pytest.mark.parametrize("early", [False, True])
def test_the_first_signal_is_asked_for(early: bool) -> None:
    """Also one that arrived before; the program ends as it likes."""
    before, after = ("send(QUIT)", "") if early else ("", "send(QUIT)")
    code, out = run(f"""
with signals.held():
    {before or "pass"}
    signals.ask(lambda number: print("asked", number))
    {after}
    send(TERM)
    os._exit(sys.stdout.flush() or 7)
""")
    assert (code, out) == (7, "asked 3\n")


def test_an_end_that_hangs_is_cut_short() -> None:
    code, out = run("""
import atexit
signals.LIMIT_S = 0.1
atexit.register(lambda: print("removed", flush=True))
with signals.held():
    send(TERM)
    time.sleep(60)
""")
    assert (code, out) == (143, "removed\n")


def test_an_interrupt_is_an_exception() -> None:
    assert run("""
try:
    send(INT)
except KeyboardInterrupt:
    print("interrupted")
""") == (0, "interrupted\n")


def test_ignored_signals() -> None:
    code, out = run("""
signal.signal(TERM, signal.SIG_IGN)
signal.signal(HUP, signal.SIG_IGN)
signals.install(HUP)
print(signal.getsignal(TERM) == signal.SIG_IGN, signal.getsignal(HUP) == signal.SIG_IGN)
""")
    assert (code, out) == (0, "True False\n")


def test_a_limit() -> None:
    code, out = run("""
for seconds in (0.05, 60, float("inf")):
    try:
        with signals.limited(seconds, ValueError("late")):
            time.sleep(0.06 if seconds > 1 else 60)
        time.sleep(0.06)
        print("in time")
    except ValueError as error:
        print(error)
try:
    with signals.limited(0.05, ValueError("late")):
        send(TERM)
finally:
    print(signal.getitimer(signal.ITIMER_REAL)[0] > 0.5)
""")
    assert (code, out) == (143, "late\nin time\nin time\nTrue\n")
