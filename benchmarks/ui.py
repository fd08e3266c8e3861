"""`python -m benchmarks.ui`: the program in a pseudo-terminal: start, keys during polls, idle cost, hang-up.

It makes its own sockets in a network namespace of its own. A Markdown table goes to stdout, progress to stderr. The
exit code is 0 whatever the verdicts are, and 2, with one line on stderr, if something needed is missing.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.support import keys, needs
from benchmarks.support.place import own_place, run_alone
from benchmarks.support.report import Line, Report, number
from benchmarks.support.sockets import Established, HalfOpen
from benchmarks.support.terminal import Replay, Terminal, wait_for
from benchmarks.support.timing import progress

PROGRAM = (sys.executable, "-m", "tcpwatch")
EMPTY_APP = (sys.executable, "-m", "benchmarks.support.empty_app")
NOTHING = (sys.executable, "-c", "print('ready')")
SIZES = ((80, 24), (160, 50))
FEW = 100
START_WITHIN_S = 10.0
END_WITHIN_S = 2.0
IDLE_S = 20.0
OPENINGS = 5

Seen = Callable[[list[str]], bool]


def real_rows(established: int) -> Seen:
    """Return a test for the Overview with the right count of established connections."""
    count = re.compile(rf"ESTAB\w*\b.*\b{number(established)}\b")
    return lambda text: any(count.search(line) for line in text)


def ready(text: list[str]) -> bool:
    """Return whether the screen of one of the other programs is complete."""
    return any("ready" in line for line in text)


def start_s(command: tuple[str, ...], seen: Seen) -> float:
    """Return the seconds from the start of the command to the expected screen."""
    with Terminal(command, *SIZES[0]) as terminal:
        wait_for(terminal, seen, START_WITHIN_S)
    shown = Replay(terminal).first(seen)
    assert shown is not None
    return shown - terminal.started_s


def start_lines(there: int, runs: int) -> list[Line]:
    """Measure start → first rows, beside an empty Textual app and a Python that prints one word."""
    programs: Mapping[str, tuple[tuple[str, ...], Seen]] = {
        "tcpwatch": (PROGRAM, real_rows(there)),
        "an empty Textual app": (EMPTY_APP, ready),
        "Python that prints one word": (NOTHING, ready),
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    for run in range(runs + 1):
        for name, program in programs.items():
            duration_s = start_s(*program)
            if run:  # the first start warms up the caches
                times[name].append(duration_s)
        progress(f"  start {run}: " + ", ".join(f"{name} {t[-1]:.2f} s" for name, t in times.items() if t))
    at, note = f"{there} established", f"median of {runs}"
    medians = {name: statistics.median(t) for name, t in times.items()}
    bars = {"tcpwatch": 0.8}
    return [
        Line(f"start → first rows, {name}", at, median, bars.get(name), "{:.2f} s", note)
        for name, median in medians.items()
    ]


def idle_lines(there: int) -> list[Line]:
    """Measure the share of one processor that the program takes without input."""
    lines = []
    for columns, rows in SIZES:
        progress(f"idle at {columns}×{rows}")
        with Terminal(PROGRAM, columns, rows) as terminal:
            wait_for(terminal, real_rows(there), START_WITHIN_S)
            time.sleep(3)
            before, begin = processor_s(terminal.process.pid), time.monotonic()
            time.sleep(IDLE_S)
            spent = processor_s(terminal.process.pid) - before
            share = 100 * spent / (time.monotonic() - begin)
        at = f"{there} established, {columns}×{rows}"
        note = f"over {IDLE_S:.0f} s, one poll a second"
        lines.append(Line("idle processor share", at, share, 1.5, "{:.2f} %", note))
    return lines


def processor_s(pid: int) -> float:
    """Return utime + stime of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def hang_up_line(at: str) -> Line:
    """Close the terminal and count the processes left in its session."""
    with Terminal(PROGRAM, *SIZES[0]) as terminal:
        wait_for(terminal, keys.is_overview, START_WITHIN_S)
        time.sleep(3)
        session, begin = terminal.process.pid, time.monotonic()
        terminal.hang_up()
        while (left := members(session)) and time.monotonic() - begin < END_WITHIN_S:
            terminal.process.poll()  # reap it: a zombie would count as left
            time.sleep(0.01)
        note = f"ended after {time.monotonic() - begin:.2f} s" if not left else f"left: {left}"
    return Line(f"processes left {END_WITHIN_S:.0f} s after a hang-up", at, len(left), 0, "{:.0f}", note)


def members(session: int) -> list[int]:
    """Return the processes of a session."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdecimal() and os.getsid(int(entry)) == session:
                found.append(int(entry))
        except ProcessLookupError:
            pass
    return found


def key_lines(population: Established | HalfOpen, at: str, count: int, budget: str) -> list[Line]:
    """Measure key → changed screen, and whether a long poll delays the end of the program."""
    lines = []
    for columns, rows in SIZES:
        progress(f"{count} keys at {columns}×{rows}, {at}")
        population.settle(60)
        with Terminal((*PROGRAM, "--budget", budget), columns, rows) as terminal:
            typed = keys.type_keys(terminal, count)
        found = keys.latencies(terminal, typed)
        note = f"p50 {found.p50:.0f} ms, worst {found.worst:.0f} ms, {found.unanswered} of {count} unanswered"
        lines.append(Line("key → screen, p95", f"{at}, {columns}×{rows}", found.p95, 50, "{:.0f} ms", note))
    return [*lines, hang_up_line(at)]


def open_line(population: HalfOpen, at: str) -> Line:
    """Measure key 4 → Half-open screen, which is made and drawn for the first time."""
    population.settle(30)
    times = []
    for _ in range(OPENINGS):
        with Terminal((*PROGRAM, "--budget", "1"), *SIZES[1]) as terminal:
            wait_for(terminal, keys.is_overview, 60)
            time.sleep(3)
            pressed = terminal.press(b"4")
            wait_for(terminal, is_half_open, 60)
        replay = Replay(terminal)
        replay.feed(pressed)
        shown = replay.first(is_half_open)
        assert shown is not None
        times.append(1e3 * (shown - pressed))
    note = f"median of {OPENINGS}, worst {max(times):.0f} ms, polling without a pause"
    return Line("key 4 → Half-open screen", at, statistics.median(times), 100, "{:.0f} ms", note)


def is_half_open(text: list[str]) -> bool:
    """Return whether the Half-open screen is shown, with sources."""
    return any("[4 Half-open]" in line for line in text) and any("198.19." in line for line in text)


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description="The program in a pseudo-terminal.")
    parser.add_argument("--established", type=int, default=200_000, metavar="N", help="sockets; 0: none")
    parser.add_argument("--half-open", type=int, default=1_000_000, metavar="N", help="sockets; 0: none")
    parser.add_argument("--runs", type=_positive, default=5, metavar="R", help="number of starts; the median counts")
    parser.add_argument("--keys", type=_positive, default=204, metavar="K", help="keys to type in each run")
    parser.add_argument("--budget", default="0.25", metavar="SHARE", help="polling budget as a share of a core")
    return parser.parse_args()


def measure(given: argparse.Namespace, report: Report) -> None:
    """Measure everything and add it to the report, line by line."""
    with own_place(), Established() as population:
        there = population.grow(FEW)
        report.add(*start_lines(there, given.runs), *idle_lines(there), hang_up_line(f"{there} established"))
        if given.established:
            there = population.grow(given.established)
            report.add(*key_lines(population, f"{number(there)} established", given.keys, given.budget))
    if given.half_open:
        with own_place() as namespace, HalfOpen(namespace, given.half_open) as flood:
            there = flood.grow(given.half_open)
            at = f"{number(there)} half-open"
            report.add(open_line(flood, at), *key_lines(flood, at, given.keys, given.budget))


def main() -> int:
    """Run, print, return the exit code."""
    given = arguments()
    modules = ("pyte", "textual", "tcpwatch.__main__")
    if lacking := needs.missing(given.established, given.half_open, modules, ("ss", "ip")):
        print(f"ui.py: {lacking}", file=sys.stderr)
        return 2
    if (code := run_alone()) is not None:
        return code
    report = Report(f"{needs.machine()}; {given.keys} keys, polling budget {given.budget}")
    try:
        measure(given, report)
    except TimeoutError as error:
        progress(str(error))
        print("ui.py: the program did not show the expected screen; see its screen above", file=sys.stderr)
        return 2
    finally:
        print(report.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
