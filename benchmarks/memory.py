"""`python -m benchmarks.memory`: the memory of the program while connections come faster than it can follow.

It runs in a pseudo-terminal, in a network namespace of its own. Short connections are made in its namespace, with many
idle sockets beside them if asked for, and in another namespace. A Markdown table goes to stdout, progress to stderr.
The exit code is 0 whatever the verdicts are, and 2, with one line on stderr, if something needed is missing.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.flood import on_screen
from benchmarks.support import keys, needs
from benchmarks.support.memory import status
from benchmarks.support.place import own_place, run_alone
from benchmarks.support.report import Line, Report, number
from benchmarks.support.sockets import Established
from benchmarks.support.terminal import Terminal, wait_for
from benchmarks.support.timing import progress
from benchmarks.ui import PROGRAM
from tests import lab
from tests.lab import storm

PROMISED_MIB = 150
"""Memory of the program beside the table of sockets and the setting `memory`."""
_BEFORE_S, _AFTER_S, _PERIOD_S = 6.0, 10.0, 0.25
_PROGRESS = 40
"""Samples between two lines of progress."""
_TIME_WAITS = 4_096
"""tcp_max_tw_buckets: otherwise the table of sockets would grow with the connections."""
_IDLE = 61 << 20
"""Bytes of the program without sockets, where that was not measured."""
_MIB = 1 << 20


@dataclass(slots=True)
class Run:
    """Resident memory in bytes."""

    before: int = 0
    during: list[int] = field(default_factory=list)
    most: int = 0
    after: int = 0
    made: int = 0
    """Connections."""
    seconds: float = 1.0


def measure(rate: float, seconds: float, memory_mib: int, sockets: int, elsewhere: bool) -> Run:
    """Run the program beside `rate` connections per second; with `elsewhere` they are in another namespace."""
    run = Run()
    with own_place() as namespace, Established() as established:
        namespace.sysctl("net.ipv4.tcp_max_tw_buckets", _TIME_WAITS)
        established.grow(sockets)
        with Terminal((*PROGRAM, "--memory", str(memory_mib)), 160, 50) as terminal:
            wait_for(terminal, keys.is_overview, 30)
            time.sleep(_BEFORE_S)
            pid = terminal.process.pid
            run.before = status("VmRSS", pid)
            with lab.Namespace() if elsewhere else nullcontext(namespace) as place:
                place.sysctl("net.ipv4.tcp_max_tw_buckets", _TIME_WAITS)
                process = storm.start(rate, seconds)
            while process.poll() is None:
                run.during.append(status("VmRSS", pid))
                if len(run.during) % _PROGRESS == 0:
                    progress(f"  {len(run.during) * _PERIOD_S:.0f} s: {run.during[-1] / _MIB:.0f} MiB")
                time.sleep(_PERIOD_S)
            run.made, run.seconds = storm.finish(process)
            time.sleep(_AFTER_S)
            run.most, run.after = status("VmHWM", pid), status("VmRSS", pid)
            progress("\n".join(on_screen(terminal)[:8]))
    return run


def lines(run: Run, memory_mib: int, table: int, at: str) -> list[Line]:
    """Return the lines about one run; `table` are the bytes of the table of sockets."""
    at = f"{run.made / run.seconds:,.0f} connections/s for {run.seconds:.0f} s {at}"
    bar = PROMISED_MIB + memory_mib + table / _MIB
    shown = f"{run.before / _MIB:.0f} MiB before, {max(run.during) / _MIB:.0f} MiB during the load"
    return [
        Line("largest resident memory", at, run.most / _MIB, bar, "{:.0f} MiB", shown),
        Line(f"resident memory {_AFTER_S:.0f} s after the load", at, run.after / _MIB, bar, "{:.0f} MiB"),
    ]


def arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description="Memory while connections come faster than they can be followed.")
    parser.add_argument("--rate", type=int, default=20_000, metavar="N", help="connections a second")
    parser.add_argument("--seconds", type=int, default=600, metavar="S", help="duration of each run")
    parser.add_argument("--memory", type=int, default=64, metavar="MIB", help="the setting `memory`")
    parser.add_argument(
        "--sockets", type=int, default=100_000, metavar="N", help="idle sockets in the last run; 0: none"
    )
    parser.add_argument("--only", choices=("here", "elsewhere", "beside"), help="one run alone")
    return parser.parse_args()


def main() -> int:
    """Run, print, return the exit code."""
    given = arguments()
    if lacking := needs.missing(given.sockets, 0, ("pyte", "textual", "tcpwatch.__main__"), ("ip", "ss")):
        print(f"memory.py: {lacking}", file=sys.stderr)
        return 2
    if (code := run_alone()) is not None:
        return code
    report = Report(f"{needs.machine()}; the program at 160×50, memory = {given.memory}")
    plain: Run | None = None
    try:
        for name, sockets, elsewhere in (("here", 0, False), ("elsewhere", 0, True), ("beside", given.sockets, False)):
            if (name == "beside" and not sockets) or given.only not in (None, name):
                continue
            at = "in another namespace" if elsewhere else f"beside {number(sockets)} sockets" * bool(sockets)
            progress(f"{number(given.rate)} connections/s for {given.seconds} s {at}")
            run = measure(given.rate, given.seconds, given.memory, sockets, elsewhere)
            table = max(0, run.before - (plain.before if plain else _IDLE)) if sockets else 0
            report.add(*lines(run, given.memory, table, at))
            plain = plain or run
    except TimeoutError as error:
        progress(str(error))
        print("memory.py: the program did not show the expected screen; see its screen above", file=sys.stderr)
        return 2
    finally:
        print(report.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
