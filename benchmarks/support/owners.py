"""Attribution as in LiveSource, step by step within its budget; only OwnerFinder.find() is timed."""

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
    """Records the cost of each find()."""

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
    """Attribution until no owner is left to look for; its cost is the sum of the find() calls."""

    steps: list[int] = field(default_factory=list)
    totals_s: list[float] = field(default_factory=list)
    """Total times, dumps included."""
    found: int = 0
    """Sockets with a known owner at the end."""

    def __call__(self) -> Cost:
        """Run it once."""
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
    """The time of find() relative to the rest of the step, once every owner is known."""

    mean: float
    worst: float
    steps: int


def following(steps: int) -> Following:
    """Measure over `steps` steps. A few of them look into processes again, which a median would hide."""
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
