"""`python -m benchmarks.flood`: the program in a pseudo-terminal during a SYN flood.

Listener and flood are in a network namespace of their own; the sender of the flood takes one processor. A Markdown
table goes to stdout, progress to stderr. The exit code is 0 whatever the verdicts are, and 2, with one line on stderr,
if something needed is missing.
"""

from __future__ import annotations

import argparse
import random
import re
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.support import keys, needs
from benchmarks.support.keys import Latencies
from benchmarks.support.memory import status
from benchmarks.support.place import own_place, run_alone
from benchmarks.support.report import Line, Report, number
from benchmarks.support.terminal import Replay, Terminal, wait_for
from benchmarks.support.timing import progress
from benchmarks.ui import PROGRAM, SIZES, processor_s
from tests import lab

_PORT, _BACKLOG = 443, 4096
_BEFORE_S = 5.0
"""The program polls for this time before the flood, so that memory it needs anyway is not counted as growth."""
_SCRIPT = (b"4", b"1", b"j", b"k", b"3", b"1", b"k", b"j", b"2")
"""Each changes the tab or the cursor's line on the Overview, which no poll moves."""
_PAUSES_S = 0.12, 0.40
_TAB = re.compile(r"\[(\d [^\]]+)\]")
_COST = re.compile(r"poll +[\d,]+ ms +([\d.]+) %")


@dataclass(slots=True)
class Run:
    """The figures of one flood."""

    typed: list[float] = field(default_factory=list)
    memory_kb: list[int] = field(default_factory=list)
    processor_s: float = 0.0
    duration_s: float = 0.0


def observe(replay: Replay) -> tuple[str, int]:
    """Return the tab and, on the Overview, the cursor's line."""
    text = replay.text()
    tab = _TAB.search(text[1])
    cursor = next((at for at, line in enumerate(text) if "▸" in line[:4]), -1)
    return tab[1] if tab else "", cursor if keys.is_overview(text) else -1


def type_and_measure(terminal: Terminal, seconds: float) -> Run:
    """Type keys for `seconds` and measure processor time and memory of the program."""
    run, generator, pid = Run(), random.Random(1), terminal.process.pid
    begin, spent = time.monotonic(), processor_s(pid)
    while time.monotonic() - begin < seconds:
        run.typed.append(terminal.press(_SCRIPT[len(run.typed) % len(_SCRIPT)]))
        time.sleep(generator.uniform(*_PAUSES_S))
        run.memory_kb.append(status("VmRSS", pid) // 1024)
    run.processor_s, run.duration_s = processor_s(pid) - spent, time.monotonic() - begin
    return run


def latencies(terminal: Terminal, typed: list[float]) -> Latencies:
    """Return the time from each key to its effect on the screen."""
    replay, found = Replay(terminal), []
    for at, following in zip(typed, [*typed[1:], typed[-1] + 1], strict=True):
        replay.feed(at)
        before = observe(replay)
        shown = next((moment for moment in replay.frames(following) if observe(replay) != before), None)
        if shown is not None:
            found.append(1e3 * (shown - at))
    return Latencies(tuple(found), len(typed) - len(found))


def on_screen(terminal: Terminal) -> list[str]:
    """Return the lines on the screen now."""
    replay = Replay(terminal)
    replay.feed()
    return replay.text()


def flood_lines(namespace: lab.Namespace, given: argparse.Namespace, columns: int, rows: int) -> list[Line]:
    """Measure one flood at one size of the terminal."""
    progress(f"{number(given.rate)} SYNs/s for {given.seconds} s at {columns}×{rows}")
    flood = lab.Flood(namespace, f"flood{columns}")
    target = lab.Endpoint(lab.LOCAL[4], _PORT)
    with Terminal(PROGRAM, columns, rows) as terminal:
        wait_for(terminal, keys.is_overview, 20)
        for key in (b"4", b"3", b"2", b"1"):  # each page is made when it is first opened
            terminal.press(key)
            time.sleep(0.5)
        time.sleep(_BEFORE_S)
        process = flood.start(target, given.rate * given.seconds, rate=given.rate, addresses=given.addresses)
        run = type_and_measure(terminal, given.seconds)
        report = lab.finish(process)
        time.sleep(1)
        polling = _COST.search(on_screen(terminal)[0])
    flood.close()
    found, at = latencies(terminal, run.typed), f"{report.rate:,.0f} SYNs/s, {columns}×{rows}"
    third = len(run.memory_kb) // 3
    growth = max(run.memory_kb[-third:]) / max(run.memory_kb[:third])
    keys_note = f"p50 {found.p50:.0f} ms, worst {found.worst:.0f} ms, {found.unanswered} of {len(run.typed)} unanswered"
    share = float(polling[1]) if polling else float("inf")
    whole = f"the whole program {100 * run.processor_s / run.duration_s:.1f} %"
    return [
        Line("key → screen, p95", at, found.p95, 50, "{:.0f} ms", keys_note),
        Line("polling, share of a core", at, share, 25, "{:.1f} %", whole),
        Line(
            "memory, last third against first", at, growth, 1.05, note=f"{run.memory_kb[-1] / 1024:.0f} MB at the end"
        ),
    ]


def arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description="The program during a SYN flood.")
    parser.add_argument("--rate", type=int, default=100_000, metavar="N", help="SYNs a second")
    parser.add_argument("--seconds", type=int, default=30, metavar="S", help="duration")
    parser.add_argument("--addresses", type=int, default=60_000, metavar="A", help="number of spoofed sources")
    return parser.parse_args()


def main() -> int:
    """Run, print, return the exit code."""
    given = arguments()
    if lacking := needs.missing(0, 1, ("pyte", "textual", "tcpwatch.__main__"), ("ip",)):
        print(f"flood.py: {lacking}", file=sys.stderr)
        return 2
    if (code := run_alone()) is not None:
        return code
    report = Report(f"{needs.machine()}; a listener with a backlog of {number(_BACKLOG)}, SYN cookies on")
    try:
        for size in SIZES:
            with own_place() as namespace:
                namespace.sysctl("net.core.somaxconn", _BACKLOG)
                namespace.add_address(f"{lab.LOCAL[4]}/32")
                with socket.create_server((lab.LOCAL[4], _PORT), backlog=_BACKLOG):
                    report.add(*flood_lines(namespace, given, *size))
    except TimeoutError as error:
        progress(str(error))
        print("flood.py: the program did not show the expected screen; see its screen above", file=sys.stderr)
        return 2
    finally:
        print(report.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
