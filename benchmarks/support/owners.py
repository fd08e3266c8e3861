"""Attribution, as LiveSource does it: step by step within its budget, with the time of OwnerFinder.find() alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benchmarks.support.timing import Cost
from tcpwatch.kernel.proc.descriptors import Inodes
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NOT_LOOKED, OwnerFinder
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource


class _TimedFinder(OwnerFinder):
    """Notes what each find() costs."""

    def __init__(self) -> None:
        super().__init__()
        self.costs: list[Cost] = []

    def find(self, inodes: Inodes, budget_s: float) -> NDArray[np.int32]:
        cpu, wall = time.thread_time(), time.perf_counter()
        codes = super().find(inodes, budget_s)
        self.costs.append(Cost(time.perf_counter() - wall, time.thread_time() - cpu))
        return codes


def _timed() -> tuple[LiveSource, list[Cost]]:
    finder = _TimedFinder()
    with patch("tcpwatch.sources.live.OwnerFinder", lambda: finder):
        return LiveSource(), finder.costs


@dataclass(slots=True)
class FirstAttribution:
    """From nothing until no owner is left to be looked for; as a work it costs the sum of the find() calls."""

    steps: list[int] = field(default_factory=list)
    totals_s: list[float] = field(default_factory=list)
    """Dumps included, one right after the other."""
    found: int = 0
    """Sockets with a known owner at the end."""

    def __call__(self) -> Cost:
        """Once."""
        begin = time.perf_counter()
        source, costs = _timed()
        while (owner := source.sample().owner == UNKNOWN_NOT_LOOKED).any():
            pass
        self.steps.append(len(costs))
        self.totals_s.append(time.perf_counter() - begin)
        source.close()
        self.found = len(owner)
        return Cost(sum(cost.wall_s for cost in costs), sum(cost.cpu_s for cost in costs))


@dataclass(frozen=True, slots=True)
class Following:
    """What find() adds to steps once every owner is known: its time against that of the rest of the step."""

    mean: float
    worst: float
    steps: int


def following(steps: int) -> Following:
    """Measure that over so many steps: now and then one looks into processes again, which a median would hide."""
    source, costs = _timed()
    monitor = Monitor(source)
    while (monitor.step().sample.owner == UNKNOWN_NOT_LOOKED).any():
        pass
    costs.clear()
    walls = []
    for _ in range(steps):
        begin = time.perf_counter()
        monitor.step()
        walls.append(time.perf_counter() - begin)
    monitor.close()
    spent = [cost.wall_s for cost in costs]
    shares = [part / (wall - part) for part, wall in zip(spent, walls, strict=True)]
    return Following(sum(spent) / (sum(walls) - sum(spent)), max(shares), steps)
