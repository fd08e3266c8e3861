"""`python -m benchmarks.soak`: the program for an hour under steady load, through all screens.

It makes its own connections in a network namespace of its own. A Markdown table goes to stdout, progress to stderr. The
exit code is 0 whatever the verdicts are, and 2, with one line on stderr, if something needed is missing or the program
ended.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.support import keys, needs
from benchmarks.support.callers import callers
from benchmarks.support.memory import status
from benchmarks.support.place import own_place, run_alone
from benchmarks.support.report import Line, Report
from benchmarks.support.terminal import Terminal, wait_for
from benchmarks.support.timing import progress

PROGRAM = (sys.executable, "-m", "tcpwatch")
SIZE = (160, 50)
KEY_EVERY_S = 0.7
LOOK_EVERY_S = 5.0
END_WITHIN_S = 5.0

_ESC, _DOWN, _PAGE, _ENTER = b"\x1b", b"\x1b[B", b"\x1b[6~", b"\r"
_TOUR = (
    b"1", _DOWN, _DOWN, _ENTER, _DOWN, _ENTER, _DOWN, _ESC, _ESC,  # the sockets of a state, a flow
    b"2", _PAGE, _DOWN, _ENTER, _ESC, b"s", _ENTER, b"n", b"n", b"/", *(bytes([char]) for char in b"port:8080"), _ENTER,
    _ESC,
    b"3", _DOWN, _ENTER, _ESC, b"4", _DOWN, _ENTER, _ESC, b"5", _DOWN, _DOWN, _ENTER, _ESC,
    b"6", _DOWN, _PAGE, _ENTER, _ESC, b"w", _DOWN, _ESC, b"?", _PAGE, b"?", b" ", b" ",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Look:
    """What the program takes at one moment."""

    rss: int
    """VmRSS in bytes."""
    descriptors: int
    threads: int


def look(pid: int) -> Look:
    """Read /proc/PID. Raises FileNotFoundError if the process has ended."""
    return Look(status("VmRSS", pid), len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task")))


def soak(minutes: float, rate: float) -> tuple[list[Look], float]:
    """Go through all screens for so long; return the looks, and the seconds that `q` took."""
    looks: list[Look] = []
    with Terminal(PROGRAM, *SIZE) as terminal:
        wait_for(terminal, keys.is_overview, 30)
        begin = looked = time.monotonic()
        for key in itertools.cycle(_TOUR):
            now = time.monotonic()
            if now - begin > 60 * minutes:
                break
            if now - looked > LOOK_EVERY_S:
                looked = now
                looks.append(look(terminal.process.pid))
                terminal.chunks.clear()
                if len(looks) % 60 == 0:
                    progress(f"  {(now - begin) / 60:.0f} min: {looks[-1]}")
            terminal.press(key)
            time.sleep(KEY_EVERY_S)
        terminal.press(_ESC)
        time.sleep(KEY_EVERY_S)
        pressed = terminal.press(b"q")
        terminal.process.wait(END_WITHIN_S)
        return looks, time.perf_counter() - pressed


def thirds(values: Sequence[int]) -> tuple[float, float]:
    """Return the means of the first and of the last third."""
    third = max(1, len(values) // 3)
    return sum(values[:third]) / third, sum(values[-third:]) / third


def lines(looks: Sequence[Look], quit_s: float, at: str) -> list[Line]:
    """Compare the last third with the first."""
    first, last = thirds([it.rss for it in looks])
    note = f"{first / 2**20:.0f} → {last / 2**20:.0f} MiB, at most {max(it.rss for it in looks) / 2**20:.0f} MiB"
    made = [Line("VmRSS, last third against first", at, last / first, 1.05, "{:.3f} ×", note)]
    for what, values in {
        "descriptors": [it.descriptors for it in looks], "threads": [it.threads for it in looks],
    }.items():  # fmt: skip
        third = max(1, len(values) // 3)
        grown = max(values[-third:]) - max(values[:third])
        made.append(Line(f"more {what} in the last third", at, grown, 0, "{:.0f}", f"at most {max(values)}"))
    return [*made, Line("q → end", at, quit_s, 1.0, "{:.2f} s")]


def arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description="The program under steady load, through all screens.")
    parser.add_argument("--minutes", type=float, default=60, metavar="M", help="duration")
    parser.add_argument("--rate", type=float, default=200, metavar="N", help="connections a second")
    return parser.parse_args()


def main() -> int:
    """Run, print, return the exit code."""
    given = arguments()
    if lacking := needs.missing(0, 0, ("pyte", "textual", "tcpwatch.__main__"), ("ip",)):
        print(f"soak.py: {lacking}", file=sys.stderr)
        return 2
    if (code := run_alone()) is not None:
        return code
    report = Report(needs.machine())
    try:
        with own_place(), callers(given.rate, 60 * given.minutes + 60):
            looks, quit_s = soak(given.minutes, given.rate)
            report.add(*lines(looks, quit_s, f"{given.minutes:g} min at {given.rate:g} connections a second"))
    except (OSError, TimeoutError) as error:
        print(f"soak.py: the program ended, or did not: {error}", file=sys.stderr)
        return 2
    print(report.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
