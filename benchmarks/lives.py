"""`python benchmarks/lives.py`: is each of many short connections told of, and what does that cost?

Servers and clients are in a network namespace of their own, in other processes; a Monitor in this one is stepped once
a second, as in the program. A table in Markdown goes to stdout, progress to stderr. Exit code 0 whatever the verdicts
are, 2 with one line on stderr where something needed is missing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.flood import resident_kb
from benchmarks.support import needs
from benchmarks.support.callers import callers
from benchmarks.support.place import own_place, run_alone
from benchmarks.support.report import Line, Report, number
from benchmarks.support.timing import progress
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource

_STEP_S = 1.0


@dataclass(slots=True)
class Run:
    """What was seen."""

    flows: int = 0
    """Made: two a connection."""
    rate: float = 0.0
    told: int = 0
    """Ends that were counted."""
    exact: float = 0.0
    lost: int = 0
    ends_lost: int = 0
    share: float = 0.0
    """Processor time of this whole process, of the time on the clock."""
    memory_kb: tuple[int, ...] = ()
    story_mib: float = 0.0
    """What happened to flows, and those that closed: as much as is kept in the end."""


def live_through(rate: int, seconds: float, trace: bool, memory_mib: int) -> Run:
    """Watch so many connections a second."""
    run, memory = Run(), []
    with own_place() as namespace:
        namespace.sysctl("net.ipv4.tcp_max_tw_buckets", 2_000_000)
        source = LiveSource(watch_queues=True, ask_infos=True, events=True, trace=trace)
        monitor = Monitor(source, memory_mib=memory_mib)
        try:
            if trace and source.info.why_no_trace:
                raise SystemExit(f"lives.py: no trace: {source.info.why_no_trace}")
            monitor.step()
            with callers(rate, seconds) as made:
                wall, cpu, due = time.monotonic(), time.process_time(), time.monotonic()
                while made.going_on:
                    due = max(due + _STEP_S, time.monotonic())
                    time.sleep(max(0.0, due - time.monotonic()))
                    view = monitor.step()
                    due = max(due, time.monotonic() + view.pace.interval_s - view.pace.duration_s - _STEP_S)
                    memory.append(resident_kb(os.getpid()))
                run.share = (time.process_time() - cpu) / (time.monotonic() - wall)
                made.wait()
                for _ in range(4):  # the last ones are told of within these
                    time.sleep(0.3)
                    view = monitor.step()
                run.flows, run.rate = 2 * made.count, made.rate
            _count(run, view)
        finally:
            monitor.close()
    run.memory_kb = tuple(memory)
    return run


def _count(run: Run, view: View) -> None:
    run.told = view.archive.ended_ever
    run.story_mib = sum(chunk.nbytes for chunk in (*view.archive.records, *view.archive.transitions)) / (1 << 20)
    run.lost, run.ends_lost = view.trace.events_lost, view.trace.destroy_events_lost
    run.exact = view.flow_totals.all.exact if view.flow_totals else 0.0


def lines(run: Run, trace: bool, bar: float) -> list[Line]:
    """What is said of one run."""
    at = f"{run.rate:,.0f} connections/s, trace {'on' if trace else 'off'}"
    lost = f"{number(run.lost)} trace events and {number(run.ends_lost)} destroy events lost, as is shown"
    return [
        Line("our processor share", at, 100 * run.share, bar, "{:.0f} %"),
        Line(
            "ends told too few, or too often",
            at,
            abs(run.flows - run.told),
            0 if not run.ends_lost else None,
            "{:.0f}",
            lost,
        ),
        *([Line("lifetimes that are not exact", at, 100 * (1 - run.exact), 0, "{:.2f} %")] if trace else []),
    ]


def memory_lines(run: Run, memory_mib: int, seconds: float) -> list[Line]:
    """What the story takes, and how much the whole process grew, socket tables and all."""
    at = f"{run.rate:,.0f} connections/s for {seconds:.0f} s, memory = {memory_mib}"
    half = len(run.memory_kb) // 2
    growth = max(run.memory_kb[half:]) / max(run.memory_kb[:half])
    note = f"{run.memory_kb[0] / 1024:.0f} MiB after a second, {run.memory_kb[-1] / 1024:.0f} MiB in the end"
    return [
        Line("memory of the flows' story", at, run.story_mib, memory_mib, "{:.0f} MiB"),
        Line("whole process, second half against first", at, growth, None, "{:.2f} ×", note),
    ]


def arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description="Many short connections.")
    parser.add_argument("--rate", type=int, default=10_000, metavar="N", help="connections a second")
    parser.add_argument("--seconds", type=int, default=20, metavar="S", help="how long")
    parser.add_argument("--memory-rate", type=int, default=5_000, metavar="N", help="of the run that looks at memory")
    parser.add_argument("--memory-seconds", type=int, default=600, metavar="S", help="how long; 0 leaves it out")
    return parser.parse_args()


def main() -> int:
    """Run, print, return the exit code."""
    given = arguments()
    if lacking := needs.missing(0, 0, ("tcpwatch.__main__",), ("ip",)):
        print(f"lives.py: {lacking}", file=sys.stderr)
        return 2
    if (code := run_alone()) is not None:
        return code
    report = Report(f"{needs.machine()}; each connection is two flows, a client's and a server's")
    for trace, bar in ((False, 25), (True, 60)):
        progress(f"{number(given.rate)} connections/s for {given.seconds} s, trace {'on' if trace else 'off'}")
        report.add(*lines(live_through(given.rate, given.seconds, trace, 64), trace, bar))
    if given.memory_seconds:
        progress(f"{number(given.memory_rate)} connections/s for {given.memory_seconds} s")
        run = live_through(given.memory_rate, given.memory_seconds, True, 64)
        report.add(*memory_lines(run, 64, given.memory_seconds))
    print(report.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
