"""Measure things side by side: one round does each once, in an order that turns, and ratios are taken within rounds."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that something took: on the clock, and on the processors, kernel and subprocesses included."""

    wall_s: float
    cpu_s: float


Work = Callable[[], "Cost | None"]
"""Something to measure; it may return the cost of a part of itself instead of being measured as a whole."""
Settle = Callable[[float], None]
"""Waits until so many seconds will be quiet."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """What each work cost in each round."""

    costs: Mapping[str, list[Cost]]

    def ms(self, name: str) -> float:
        """Median on the clock, in milliseconds."""
        return 1e3 * statistics.median(cost.wall_s for cost in self.costs[name])

    def ratio(self, name: str, unit: str) -> float:
        """Median over the rounds of one work's time on the clock against another's."""
        return statistics.median(a.wall_s / b.wall_s for a, b in self._pairs(name, unit))

    def cpu_ratio(self, name: str, unit: str) -> float:
        """The same for processor time, which other load on the machine disturbs less."""
        return statistics.median(a.cpu_s / max(b.cpu_s, 1e-9) for a, b in self._pairs(name, unit))

    def _pairs(self, name: str, unit: str) -> list[tuple[Cost, Cost]]:
        return list(zip(self.costs[name], self.costs[unit], strict=True))


def cost_of(work: Work) -> Cost:
    """Do it once."""
    cpu, wall = _cpu_s(), time.perf_counter()
    part = work()
    return part or Cost(time.perf_counter() - wall, _cpu_s() - cpu)


def _cpu_s() -> float:
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def interleave(works: Mapping[str, Work], runs: int, settle: Settle, *, warm_up: bool = True) -> Rounds:
    """Do every work once in each of `runs` rounds; before that once to warm up, not counted."""
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
    """A line for whoever waits; stdout is for the report."""
    print(text, file=sys.stderr, flush=True)
