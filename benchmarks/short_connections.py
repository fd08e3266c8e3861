"""`python -m benchmarks.short_connections`: is every one of many short connections recorded, and at what cost?

Servers and clients run in other processes, in a network namespace of their own. A Monitor in this process is stepped
once a second, as in the program. A Markdown table goes to stdout, progress to stderr. The exit code is 0 whatever the
verdicts are, and 2, with one line on stderr, if something needed is missing.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.support import needs
from benchmarks.support.callers import callers
from benchmarks.support.memory import status
from benchmarks.support.place import own_place, run_alone
from benchmarks.support.report import Line, Report, number
from benchmarks.support.timing import progress
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource

_STEP_S = 1.0


@dataclass(slots=True)
class Run:
    """The figures of one run."""

    flows: int = 0
    """Flows made: two for each connection."""
    rate: float = 0.0
    counted: int = 0
    """Ends that the Monitor counted."""
    exact: float = 0.0
    lost: int = 0
    ends_lost: int = 0
    share: float = 0.0
    """Processor time of this process divided by the time on the clock."""
    memory_kb: tuple[int, ...] = ()
    history_mib: float = 0.0
    """Size of the transitions and records kept at the end."""


def measure(rate: int, seconds: float, trace: bool, memory_mib: int) -> Run:
    """Make and watch `rate` connections a second."""
    run, memory = Run(), []
    with own_place() as namespace:
        namespace.sysctl("net.ipv4.tcp_max_tw_buckets", 2_000_000)
        source = LiveSource(watch_queues=True, ask_infos=True, events=True, trace=trace)
        monitor = Monitor(source, memory_mib=memory_mib)
        try:
            if trace and source.info.why_no_trace:
                raise SystemExit(f"short_connections.py: no trace: {source.info.why_no_trace}")
            monitor.step()
            with callers(rate, seconds) as made:
                wall, cpu, due = time.monotonic(), time.process_time(), time.monotonic()
                while made.going_on:
                    due = max(due + _STEP_S, time.monotonic())
                    time.sleep(max(0.0, due - time.monotonic()))
                    view = monitor.step()
                    due = max(due, time.monotonic() + view.pace.interval_s - view.pace.duration_s - _STEP_S)
                    memory.append(status("VmRSS") // 1024)
                run.share = (time.process_time() - cpu) / (time.monotonic() - wall)
                made.wait()
                for _ in range(4):  # the last ends are reported within these steps
                    time.sleep(0.3)
                    view = monitor.step()
                run.flows, run.rate = 2 * made.count, made.rate
            _count(run, view)
        finally:
            monitor.close()
    run.memory_kb = tuple(memory)
    return run


def _count(run: Run, view: View) -> None:
    run.counted = view.archive.ended_ever
    run.history_mib = sum(chunk.nbytes for chunk in (*view.archive.records, *view.archive.transitions)) / (1 << 20)
    run.lost, run.ends_lost = view.trace.events_lost, view.trace.destroy_events_lost
    run.exact = view.flow_totals.all.exact if view.flow_totals else 0.0


def lines(run: Run, trace: bool, bar: float) -> list[Line]:
    """Return the lines about one run."""
    at = f"{run.rate:,.0f} connections/s, trace {'on' if trace else 'off'}"
    lost = f"{number(run.lost)} trace events and {number(run.ends_lost)} destroy events lost, and shown as lost"
    return [
        Line("processor share", at, 100 * run.share, bar, "{:.0f} %"),
        Line(
            "ends not counted, or counted twice",
            at,
            abs(run.flows - run.counted),
            0 if not run.ends_lost else None,
            "{:.0f}",
            lost,
        ),
        *([Line("inexact lifetimes", at, 100 * (1 - run.exact), 0, "{:.2f} %")] if trace else []),
    ]


def memory_lines(run: Run, memory_mib: int, seconds: float) -> list[Line]:
    """Return the lines about the memory of flow history and of the whole process, socket tables included."""
    at = f"{run.rate:,.0f} connections/s for {seconds:.0f} s, memory = {memory_mib}"
    half = len(run.memory_kb) // 2
    growth = max(run.memory_kb[half:]) / max(run.memory_kb[:half])
    note = f"{run.memory_kb[0] / 1024:.0f} MiB after a second, {run.memory_kb[-1] / 1024:.0f} MiB at the end"
    return [
        Line("memory of flow history", at, run.history_mib, memory_mib, "{:.0f} MiB"),
        Line("whole process, second half against first", at, growth, None, "{:.2f} ×", note),
    ]


def arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description="Many short connections.")
    parser.add_argument("--rate", type=int, default=10_000, metavar="N", help="connections a second")
    parser.add_argument("--seconds", type=int, default=20, metavar="S", help="duration")
    parser.add_argument(
        "--memory-rate", type=int, default=5_000, metavar="N", help="connections a second in the memory run"
    )
    parser.add_argument(
        "--memory-seconds", type=int, default=600, metavar="S", help="duration of the memory run; 0: skip it"
    )
    return parser.parse_args()


def main() -> int:
    """Run, print, return the exit code."""
    given = arguments()
    if lacking := needs.missing(0, 0, ("tcpwatch.__main__",), ("ip",)):
        print(f"short_connections.py: {lacking}", file=sys.stderr)
        return 2
    if (code := run_alone()) is not None:
        return code
    report = Report(f"{needs.machine()}; each connection is two flows, a client's and a server's")
    for trace, bar in ((False, 25), (True, 60)):
        progress(f"{number(given.rate)} connections/s for {given.seconds} s, trace {'on' if trace else 'off'}")
        report.add(*lines(measure(given.rate, given.seconds, trace, 64), trace, bar))
    if given.memory_seconds:
        progress(f"{number(given.memory_rate)} connections/s for {given.memory_seconds} s")
        run = measure(given.memory_rate, given.memory_seconds, True, 64)
        report.add(*memory_lines(run, 64, given.memory_seconds))
    print(report.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
