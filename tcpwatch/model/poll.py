"""Poll: one sample joined with the one before it; every analysis gets one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tcpwatch.kernel.proc.counters import is_gauge
from tcpwatch.model.listeners.acceptors import Acceptors
from tcpwatch.model.sockets.join import Join, first, join
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.sample import Sample


@dataclass(frozen=True, slots=True, eq=False)
class Poll:
    """A sample, the previous one, and what changed between them. The `previous` fields are None on the first poll."""

    sample: Sample
    previous: Sample | None
    join: Join
    previous_join: Join | None
    rates: Mapping[str, float]
    """Kernel counter → increase per second; empty on the first poll."""
    elapsed_s: float | None
    """Seconds between the two samples; None on the first poll."""
    same_sockets: bool = False
    """Whether all sockets are those of the previous poll, with the same state, role, owner, inode and interface."""

    @property
    def rows(self) -> Rows:
        """Every socket of the sample, sorted by cookie."""
        return self.join.rows


class SampleJoiner:
    """Builds the Poll of each sample. Between two calls it keeps one sample alone, without its events."""

    def __init__(self) -> None:
        self._sample: Sample | None = None
        self._join: Join | None = None
        self._acceptors = Acceptors()

    @property
    def wanted_tcp_info(self) -> frozenset[int]:
        """Cookies whose role tcp_info in the next sample would show."""
        return frozenset(self._join.rows.cookie[self._join.unproved].tolist()) if self._join else frozenset()

    def step(self, sample: Sample) -> Poll:
        """Return this sample joined with the one of the previous call."""
        previous, previous_join = self._sample, self._join
        self._sample = sample.without_events()
        elapsed_s = sample.monotonic - previous.monotonic if previous else None
        joined = join(previous_join, sample) if previous_join else first(sample)
        self._join = self._acceptors.step(joined, sample, elapsed_s)
        return Poll(
            sample,
            previous,
            self._join,
            previous_join,
            rates(previous, sample) if previous else {},
            elapsed_s,
            previous is not None and previous_join is not None and _same(previous_join, previous, self._join, sample),
        )


def _same(before: Join, previous: Sample, now: Join, sample: Sample) -> bool:
    """Return Poll.same_sockets."""
    if len(now.new) or len(now.ended_cookie) or len(now.changed):
        return False
    pairs = (
        (before.rows.role, now.rows.role), (before.rows.owner, now.rows.owner), (previous.inode, sample.inode),
        (previous.interface, sample.interface),
    )  # fmt: skip
    if not all(old is new or np.array_equal(old, new) for old, new in pairs):
        return False
    then, owners = before.rows.owners, now.rows.owners
    codes = np.unique(now.rows.owner).tolist()
    return then is owners or all(then[code] == owners[code] for code in codes if code >= 0)


def rates(before: Sample, after: Sample) -> dict[str, float]:
    """Return the increase per second of every counter that both samples have.

    Gauges have no rate, and neither has a counter that went backwards: it was reset (a new namespace, a driver).
    """
    elapsed_s = after.monotonic - before.monotonic
    if elapsed_s <= 0:
        return {}
    then, now = before.counters, after.counters
    names = _counters_of_both(tuple(then), tuple(now))
    return {name: (now[name] - then[name]) / elapsed_s for name in names if now[name] >= then[name]}


@lru_cache(4)  # the names are those of the poll before
def _counters_of_both(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(name for name in set(before).intersection(after) if not is_gauge(name)))
