"""`python -m benchmarks.poll`: the cost of a poll beside the kernel's own part and other tools.

It makes its own sockets in a network namespace of its own. A Markdown table goes to stdout, progress to stderr. The
exit code is 0 whatever the verdicts are, and 2, with one line on stderr, if something needed is missing.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.support import needs, works
from benchmarks.support.listening import listening
from benchmarks.support.memory import measure as measure_memory
from benchmarks.support.owners import FirstAttribution, following
from benchmarks.support.place import own_place, run_alone
from benchmarks.support.report import Line, Report, number
from benchmarks.support.sockets import Established, HalfOpen, count, leave_time_waits
from benchmarks.support.timing import Cost, Rounds, Work, cost_of, interleave, progress
from tcpwatch.kernel.netlink.sock_diag import SockDiag
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource

SLOW_TOOLS_UP_TO = 20_000
"""With more sockets, pyroute2 and psutil take seconds."""
ADDRESSES = 4_000
GROWTH = 100
"""Growth of cost is measured from 1/100 of the half-open connections to all of them."""
DISCARD, DUMP, STEP, SS = "receive and discard", "dump + decode", "Monitor.step()", "ss -tanH"
INFOS = "dump + decode, with tcp_info"


def poll_rounds(population: Established | HalfOpen, runs: int, more: dict[str, Work] | None = None) -> Rounds:
    """Measure the unit, tcpwatch and ss with the sockets that exist."""
    diag, step = SockDiag(), works.Step()
    try:
        mine: dict[str, Work] = {DISCARD: works.Discard(), DUMP: lambda: _dump(diag), STEP: step, SS: works.ss_all}
        mine[INFOS] = lambda: _dump(diag, infos=True)
        return interleave(mine | (more or {}), runs, population.settle)
    finally:
        diag.close()
        step.close()


def _dump(diag: SockDiag, infos: bool = False) -> None:
    diag.dump(infos=infos)


def poll_lines(rounds: Rounds, at: str, step_bar: float = 1.6) -> list[Line]:
    """Return the ratios and their bars."""

    def line(name: str, unit: str, bar: float | None) -> Line:
        times = f"{rounds.ms(name):.1f} ms : {rounds.ms(unit):.1f} ms"
        note = f"{times}; processor time {rounds.cpu_ratio(name, unit):.2f} ×"
        return Line(f"{name}, against {unit}", at, rounds.ratio(name, unit), bar, note=note)

    return [
        line(DUMP, DISCARD, 1.20),
        line(DUMP, SS, 0.6),
        line(INFOS, DUMP, None),
        line(STEP, DISCARD, 1.6),
        line(SS, DISCARD, None),
    ]


def slow_tools(population: Established, sockets: int, runs: int) -> list[Line]:
    """Compare with pyroute2 and psutil, with few sockets."""
    there = population.grow(min(sockets, SLOW_TOOLS_UP_TO))
    progress(f"{there:,} established, with pyroute2 and psutil")
    tools: dict[str, Work] = {"pyroute2": works.pyroute2_all, "psutil": works.psutil_all}
    rounds = poll_rounds(population, runs, tools)
    at = f"{number(there)} established"
    return [
        Line(
            f"{ours}, against {tool}", at, rounds.ratio(ours, tool), form="{:.4f} ×",
            note=f"{rounds.ms(ours):.1f} ms : {rounds.ms(tool):.1f} ms",
        )
        for ours, tool in ((DUMP, "pyroute2"), (STEP, "psutil"))
    ]  # fmt: skip


def attribution(population: Established, at: str, runs: int) -> list[Line]:
    """Measure the first attribution against ss -p, and what attribution adds to the following steps."""
    first = FirstAttribution()
    rounds = interleave({"first": first, "ss": works.ss_processes}, runs, population.settle, warm_up=False)
    then = following(max(40, 4 * runs))
    steps, total_s = statistics.median(first.steps), statistics.median(first.totals_s)
    note = (
        f"{rounds.ms('first'):.0f} ms in {steps:.0f} steps : {rounds.ms('ss'):.0f} ms; with the dumps {total_s:.2f} s; "
        f"processor time {rounds.cpu_ratio('first', 'ss'):.2f} ×"
    )
    where = f"{at}, {population.processes} processes"
    return [
        Line("first attribution, against ss -tanpH", where, rounds.ratio("first", "ss"), 0.25, note=note),
        Line(
            "following attribution, added to a step", where, 100 * then.mean, 10, form="{:.1f} %",
            note=f"mean of {then.steps} steps; worst {100 * then.worst:.1f} %",
        ),
    ]  # fmt: skip


def memory_lines(at: str, bar: float | None) -> list[Line]:
    """Measure the memory of a Monitor in a process of its own."""
    progress("memory")
    memory = measure_memory(8)
    peak = f"peak {memory.peak / memory.sockets:.0f} B; {memory.steady / 1e6:.0f} MB in all"
    return [Line("memory of Monitor per socket", at, memory.steady / memory.sockets, bar, "{:.0f} B", peak)]


def established(sockets: int, runs: int) -> list[Line]:
    """Return all lines about established connections."""
    with own_place(), Established() as population:
        lines = slow_tools(population, sockets, runs)
        there = population.grow(sockets)
        at = f"{number(there)} established"
        progress(f"{at} in {population.processes} processes")
        lines[:0] = poll_lines(poll_rounds(population, runs), at)
        progress(f"{at}: attribution")
        return lines + attribution(population, at, runs) + memory_lines(at, None)


def half_open(sockets: int, runs: int) -> list[Line]:
    """Return all lines about half-open connections."""
    with own_place() as namespace, HalfOpen(namespace, sockets) as population:
        few = population.grow(max(1, sockets // GROWTH))
        progress(f"{few:,} half-open")
        small = poll_rounds(population, 4 * runs)
        there = population.grow(sockets)
        progress(f"{there:,} half-open; waiting until no SYN+ACK is repeated")
        large = poll_rounds(population, runs)
        there = count("syn-recv")
        at = f"{number(there)} half-open"
        return poll_lines(large, at, 1.9) + memory_lines(at, 400) + growth_lines(small, few, large, there)


def mixed(sockets: int, runs: int) -> list[Line]:
    """Measure a dump with messages of several lengths, as on an ordinary host; it has no bars."""
    with own_place() as namespace, HalfOpen(namespace, sockets) as flood, Established() as others:
        at = f"{number(others.grow(sockets))} established and {number(flood.grow(sockets))} half-open"
        progress(at)
        return [replace(line, bar=None) for line in poll_lines(poll_rounds(flood, runs), at)]


def ending(sockets: int, runs: int) -> list[Line]:
    """Measure a step that groups TIME_WAITs of clients by destination and half-open connections by source."""
    with own_place() as namespace, HalfOpen(namespace, sockets) as flood:
        half = flood.grow(sockets)
        waiting = leave_time_waits(namespace, sockets)
        at = f"{number(waiting)} TIME_WAIT and {number(half)} half-open"
        progress(at)
        step = works.Step()
        try:
            rounds = interleave({DISCARD: works.Discard(), STEP: step}, runs, lambda seconds: None)
        finally:
            step.close()
        left = f"{number(count('time-wait'))} TIME_WAIT left at the end"
        note = f"{rounds.ms(STEP):.0f} : {rounds.ms(DISCARD):.0f} ms, {left}"
        return [Line(f"{STEP}, against {DISCARD}", at, rounds.ratio(STEP, DISCARD), 2.0, note=note)]


def many_addresses(sockets: int, runs: int) -> list[Line]:
    """Measure a step with many addresses that listen on the port of half-open connections."""
    with own_place() as namespace, HalfOpen(namespace, sockets) as population, ExitStack() as stack:
        there = population.grow(sockets)
        rounds = {}
        for addresses in (1, ADDRESSES):
            for number_ in range(addresses - 1):
                listener = socket.create_server((f"127.1.{number_ // 250}.{number_ % 250 + 1}", HalfOpen.PORT))
                stack.enter_context(listener)
            progress(f"{there:,} half-open, {addresses:,} addresses listen on their port")
            step = works.Step()
            rounds[addresses] = interleave({STEP: step}, 2 * runs, population.settle)
            step.close()
        one, many = rounds[1].ms(STEP), rounds[ADDRESSES].ms(STEP)
        at = f"{number(ADDRESSES)} addresses listening on one port, {number(there)} half-open"
        return [Line(f"{STEP}, against one address", at, many / one, 1.2, note=f"{many:.0f} : {one:.0f} ms")]


def many_listeners(listeners: int, runs: int) -> list[Line]:
    """Measure a step, the first one too, and `list` with very many listeners."""
    with own_place(), listening(listeners) as processes:
        progress(f"{listeners:,} listeners")

        def begin() -> Cost:
            monitor = Monitor(LiveSource(ask_infos=True))

            def one_step() -> None:
                monitor.step()

            cost = cost_of(one_step)
            monitor.close()
            return cost

        def run_list() -> None:
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

        step = works.Step()
        command = [sys.executable, "-m", "tcpwatch", "list"]
        mine: dict[str, Work] = {
            "first step": begin, STEP: step,
            "list": run_list,
        }  # fmt: skip
        rounds = interleave(mine, runs, lambda seconds: None)
        step.close()
        at = f"{number(listeners)} listeners in {processes} processes"
        return [
            Line(name, at, rounds.ms(name) / 1e3, 1.0, "{:.2f} s", f"processor time {rounds.cpu_s(name):.2f} s")
            for name in mine
        ]


def growth_lines(small: Rounds, few: int, large: Rounds, many: int) -> list[Line]:
    """Compare the cost per socket among many sockets with that among few."""
    lines = []
    for name, bar in ((DISCARD, None), (DUMP, 1.3), (STEP, 1.3)):
        one, other = 1e3 * small.ms(name) / few, 1e3 * large.ms(name) / many
        note = f"{one:.2f} µs → {other:.2f} µs per socket"
        at = f"{number(few)} → {number(many)} half-open"
        lines.append(Line(f"growth of cost, {name}", at, other / one, bar, note=note))
    return lines


def arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description="The cost of a poll, beside the kernel's part and other tools.")
    parser.add_argument("--established", type=int, default=200_000, metavar="N", help="sockets; 0: none")
    parser.add_argument("--half-open", type=int, default=1_000_000, metavar="N", help="sockets; 0: none")
    parser.add_argument(
        "--time-wait", type=int, default=500_000, metavar="N", help="sockets, and as many half-open ones; 0: none"
    )
    parser.add_argument("--listeners", type=int, default=49_500, metavar="N", help="sockets; 0: none")
    parser.add_argument("--runs", type=int, default=5, metavar="R", help="number of rounds; the median counts")
    return parser.parse_args()


def main() -> int:
    """Run, print, return the exit code."""
    given = arguments()
    if lacking := needs.missing(
        given.established, given.half_open + 2 * given.time_wait, ("psutil", "pyroute2"), ("ss", "ip")
    ):
        print(f"poll.py: {lacking}", file=sys.stderr)
        return 2
    if (code := run_alone()) is not None:
        return code
    report = Report(f"{needs.machine()}; medians of {given.runs} rounds")
    if given.established:
        report.add(*established(given.established, given.runs))
    if few := min(given.established, given.half_open):
        report.add(*mixed(few, given.runs))
    if given.half_open:
        report.add(*half_open(given.half_open, given.runs))
    if given.time_wait:
        report.add(*ending(given.time_wait, given.runs))
    if given.half_open:
        report.add(*many_addresses(min(100_000, given.half_open), given.runs))
    if given.listeners:
        report.add(*many_listeners(given.listeners, given.runs))
    print(report.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
