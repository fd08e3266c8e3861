"""Measure several works side by side: each round runs every work once, in a rotating order; ratios are per round."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of a work on the clock and on the processors, kernel and subprocesses included."""

    wall_s: float
    cpu_s: float


Work = Callable[[], "Cost | None"]
"""A function to measure; it may return the cost of a part of its work instead of being measured as a whole."""
Settle = Callable[[float], None]
"""Waits until the given number of seconds will be undisturbed."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """The cost of each work in each round."""

    costs: Mapping[str, list[Cost]]

    def ms(self, name: str) -> float:
        """Median on the clock, in milliseconds."""
        return 1e3 * statistics.median(cost.wall_s for cost in self.costs[name])

    def cpu_s(self, name: str) -> float:
        """Median of the processor time, in seconds."""
        return statistics.median(cost.cpu_s for cost in self.costs[name])

    def ratio(self, name: str, unit: str) -> float:
        """Median over the rounds of the ratio of two works' times on the clock."""
        return statistics.median(a.wall_s / b.wall_s for a, b in self._pairs(name, unit))

    def cpu_ratio(self, name: str, unit: str) -> float:
        """Median of the ratio of processor times, which other load on the machine disturbs less."""
        return statistics.median(a.cpu_s / max(b.cpu_s, 1e-9) for a, b in self._pairs(name, unit))

    def _pairs(self, name: str, unit: str) -> list[tuple[Cost, Cost]]:
        return list(zip(self.costs[name], self.costs[unit], strict=True))


def cost_of(work: Work) -> Cost:
    """Run a work once and return its cost."""
    cpu, wall = _cpu_s(), time.perf_counter()
    part = work()
    return part or Cost(time.perf_counter() - wall, _cpu_s() - cpu)


def _cpu_s() -> float:
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def interleave(works: Mapping[str, Work], runs: int, settle: Settle, *, warm_up: bool = True) -> Rounds:
    """Run every work once in each of `runs` rounds, after one round to warm up."""
    names = list(works)
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    expected_s = sum(cost_of(works[name]).wall_s for name in names) if warm_up else 0.0
    for number in range(runs):
        settle(1.2 * expected_s)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            costs[name].append(cost_of(works[name]))
        progress(f"  round {number + 1}: " + ", ".join(f"{name} {costs[name][-1].wall_s:.3f} s" for name in names))
        expected_s = max(expected_s, sum(costs[name][-1].wall_s for name in names))
    return Rounds(costs)


def progress(text: str) -> None:
    """Print a line to stderr; stdout is for the report."""
    print(text, file=sys.stderr, flush=True)
