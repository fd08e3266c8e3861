"""`python -m benchmarks.load`: keys, memory and the end of the program under seven heavy loads.

It makes its own sockets in network namespaces of its own. A Markdown table goes to stdout, progress to stderr. The exit
code is 0 whatever the verdicts are, and 2, with one line on stderr, if something needed is missing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.flood import on_screen
from benchmarks.memory import PROMISED_MIB
from benchmarks.support import crowd, keys, needs
from benchmarks.support.listening import listening
from benchmarks.support.memory import status
from benchmarks.support.place import own_place, run_alone
from benchmarks.support.report import Line, Report
from benchmarks.support.sockets import Established, HalfOpen
from benchmarks.support.terminal import Terminal
from benchmarks.support.timing import progress
from benchmarks.ui import PROGRAM
from tests import lab
from tests.lab import storm

SIZE = (160, 50)
MEMORY_MIB = 64
"""The setting `memory`."""
_ROW_BYTES = 1_000
"""Of the table of sockets, for each of them."""
_END_WITHIN_S = 30.0
_STORM_RATE, _STORM_S = 20_000, 120


@contextmanager
def established(sockets: int, each: int = 8_000) -> Iterator[None]:
    with Established() as population:
        population.grow(sockets, each)
        yield


@contextmanager
def established_and_storm(sockets: int) -> Iterator[None]:
    with established(sockets):
        process = storm.start(_STORM_RATE, _STORM_S)
        try:
            yield
        finally:
            process.kill()
            process.communicate()


@contextmanager
def half_open(sockets: int, namespace: lab.Namespace) -> Iterator[None]:
    with HalfOpen(namespace, sockets) as flood:
        flood.grow(sockets)
        flood.settle(60)
        yield


@dataclass(frozen=True, slots=True)
class Load:
    """One situation."""

    name: str
    sockets: int
    make: Callable[[lab.Namespace], AbstractContextManager[object]]
    options: tuple[str, ...] = ()


LOADS = (
    Load("100,800 established, interval 0.1", 100_800, lambda _: established(100_800), ("-i", "0.1")),
    Load("the same + 20,000 short connections/s", 100_800, lambda _: established_and_storm(100_800), ("-i", "0.1")),
    Load("200,000 half-open", 200_000, lambda namespace: half_open(200_000, namespace)),
    Load("57,000 SYN_SENT to distinct destinations", 57_000, lambda namespace: crowd.calls(namespace, 57_000)),
    Load("2,000 processes", 2_000, lambda _: crowd.processes(2_000)),
    Load("one process with 15,000 sockets", 15_000, lambda _: established(15_000, 15_000)),
    Load("49,500 listeners", 49_500, lambda _: listening(49_500)),
)


def lines(load: Load, count: int) -> list[Line]:
    """Measure the program under one load."""
    progress(load.name)
    with own_place() as namespace, load.make(namespace):
        with Terminal((*PROGRAM, *load.options), *SIZE) as terminal:
            typed = keys.type_keys(terminal, count)
            pid = terminal.process.pid
            most, header = status("VmHWM", pid), " ".join(on_screen(terminal)[0].split())
            pressed = terminal.press(b"q")
            terminal.process.wait(_END_WITHIN_S)
            end_s = time.perf_counter() - pressed
        found = keys.latencies(terminal, typed)
    note = f"p50 {found.p50:.0f} ms, worst {found.worst:.0f} ms, {found.unanswered} of {count} unanswered"
    bar = PROMISED_MIB + MEMORY_MIB + load.sockets * _ROW_BYTES / 2**20
    return [
        Line("key → screen, p95", load.name, found.p95, 130, "{:.0f} ms", note),
        Line("largest resident memory", load.name, most / 2**20, bar, "{:.0f} MiB", header),
        Line("q → end", load.name, end_s, 1.0, "{:.2f} s"),
    ]


def arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description="The program under heavy loads.")
    parser.add_argument("--keys", type=int, default=60, metavar="K", help="keys to type in each situation")
    parser.add_argument("--only", type=int, metavar="N", help="the situation with this number alone, from 1 on")
    return parser.parse_args()


def main() -> int:
    """Run, print, return the exit code."""
    given = arguments()
    if lacking := needs.missing(100_800, 200_000, ("pyte", "textual", "tcpwatch.__main__"), ("ss", "ip")):
        print(f"load.py: {lacking}", file=sys.stderr)
        return 2
    if (code := run_alone()) is not None:
        return code
    report = Report(f"{needs.machine()}; {given.keys} keys, 160×50, memory = {MEMORY_MIB}")
    try:
        for number, load in enumerate(LOADS, 1):
            if given.only in (None, number):
                report.add(*lines(load, given.keys))
    except TimeoutError as error:
        progress(str(error))
        print("load.py: the program did not show the expected screen; see its screen above", file=sys.stderr)
        return 2
    finally:
        print(report.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
