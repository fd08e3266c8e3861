"""FlowTotals: how many flows open and end, their lifetimes and their bytes, from all records.

Values are counted in classes, twenty per decade: percentiles are within 6 % of the true value, histograms by decade
are exact, and the memory does not depend on the number of flows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.model.lifecycle.archive import Archive
from tcpwatch.model.lifecycle.records import payload_of_records
from tcpwatch.model.lifecycle.tracker import LifecycleStep
from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.endpoint_hashes import remote_endpoint, table_remote_hashes
from tcpwatch.model.states import Role

WINDOW_S = 60.0
TOP = 20
"""Services and processes in a View."""
_SLOT_S = 5.0
_NEW_GROUPS = 500
"""Groups that get a name in one step; the flows of other new groups count in the total only."""
_GROUPS = 20_000
_COUNTS = 250_000
"""Counts of all services, or of all processes, that are kept: 4 MB."""
DECADES = tuple(10**power for power in range(9))
"""Upper bounds of the parts of a histogram, in ms or bytes."""
PERCENTILES = ("p50", "p90", "p99")
"""Fields of a Distribution."""
_PER_DECADE = 20
_LEAST = 1e-3
"""The smallest value (ms or bytes) with a class of its own; smaller ones count as 0."""
_CLASSES = 512


@dataclass(frozen=True, slots=True)
class Distribution:
    """Percentiles and extremes of a figure, within 6 %; None where nothing was counted."""

    count: int = 0
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    least: float | None = None
    most: float | None = None
    histogram: tuple[int, ...] = ()
    """Ten counts by decade: below 1 ms or byte, from 1 to below 10, ..., from 100,000,000 on. Empty where nothing was
    counted."""


@dataclass(frozen=True, slots=True)
class Totals:
    """The totals of one service, of one process, or of all flows."""

    name: str
    """`:443`, `10.0.0.7:5432`, `nginx[12]`; empty for all."""
    opened_per_s: float
    ended_per_s: float
    lifetime_ms: Distribution
    """From the first state to the end of the full socket, without TIME_WAIT."""
    bytes: Distribution
    """Bytes of data per flow: received, and sent and acknowledged."""
    exact: float = 1.0
    """Share of the lifetimes that are exact, by the trace; the others are upper bounds."""

    def lifetime_text(self, figure: str) -> str:
        """Return a field of `lifetime_ms` as text; `≤12 ms` where not all are exact, as they are upper bounds then."""
        ms = getattr(self.lifetime_ms, figure)
        return ("≤" if ms is not None and self.exact < 1 else "") + units.short_duration(ms)


@dataclass(frozen=True, slots=True)
class FlowTotals:
    """The totals of the last `window_s` seconds."""

    window_s: float
    all: Totals
    by_service: tuple[Totals, ...] = ()
    """The busiest first."""
    by_process: tuple[Totals, ...] = ()


class FlowTotalsCounter:
    """Counts the flows of the last minute in slots of five seconds."""

    def __init__(self) -> None:
        self._slots: deque[_Slot] = deque()
        self._services = _Names()
        self._processes = _Names()
        self._previous = -np.inf
        """Monotonic seconds of the previous step."""
        self._begin = {"service": -np.inf, "process": -np.inf}
        """Monotonic seconds since which the counts of these are complete."""

    def step(self, poll: Poll, lifecycle: LifecycleStep) -> FlowTotals | None:
        """Return the totals of the last minute; None where the source does not report destroyed sockets."""
        if poll.sample.destroyed is None:
            return None
        monotonic = poll.sample.monotonic
        if not self._slots or monotonic >= self._slots[-1].begin + _SLOT_S:
            self._slots.append(_Slot(monotonic))
        while len(self._slots) > 1 and self._slots[1].begin <= monotonic - WINDOW_S:
            self._slots.popleft()
        self._limit_counts()
        self._previous = monotonic
        if len(lifecycle.opened) or len(lifecycle.ended) or len(lifecycle.found_owner):
            self._add(self._slots[-1], lifecycle)
        window_s = max(monotonic - self._slots[0].begin, 1e-3)
        if not any(slot.counts for slot in self._slots):  # an idle host costs nothing
            return FlowTotals(window_s, Totals("", 0.0, 0.0, Distribution(), Distribution()))
        whole, *_ = self._totals("all", window_s, [""])
        return FlowTotals(
            window_s,
            whole,
            tuple(self._totals("service", min(window_s, monotonic - self._begin["service"]), self._services.names)),
            tuple(self._totals("process", min(window_s, monotonic - self._begin["process"]), self._processes.names)),
        )

    def _limit_counts(self) -> None:
        """Drop the names and their counts where there are too many, and count anew; the total stays."""
        for kind, names in (("service", self._services), ("process", self._processes)):
            counts = sum(
                len(counts[0]) for slot in self._slots for key, counts in slot.counts.items() if key[0] == kind
            )
            if len(names.names) >= _GROUPS or counts >= _COUNTS:
                names.clear()
                self._begin[kind] = self._previous
                for slot in self._slots:
                    slot.counts = {key: counts for key, counts in slot.counts.items() if key[0] != kind}

    def _add(self, slot: _Slot, lifecycle: LifecycleStep) -> None:
        opened, ended, archive = lifecycle.opened, lifecycle.ended, lifecycle.archive
        lifetime_ms = 1000 * (ended["end"] - ended["begin"] + ended["begin_slack"])
        exact = (ended["begin_slack"] == 0) & (ended["end_slack"] == 0)
        known = ended["info_bytes"] != 0
        carried = np.add(*payload_of_records(ended)).astype(np.float64)
        lifetime, size = _classes(lifetime_ms), _classes(np.where(known, carried, np.nan))
        owners = np.concatenate((lifecycle.opened_owner, lifecycle.found_owner))
        services, processes = self._services.of_services, self._processes.of_processes
        for name, opened_group, ended_group in (
            ("all", np.zeros(len(opened), np.int64), np.zeros(len(ended), np.int64)),
            ("service", services(opened, lifecycle.opened_role), services(ended["row"], ended["role"])),
            ("process", processes(owners, archive), processes(ended["owner"], archive)),
        ):
            for figure, group, classes in (
                ("opened", opened_group, np.zeros(len(opened_group), np.int64)),
                ("ended", ended_group, np.zeros(len(ended_group), np.int64)),
                ("exact", ended_group[exact], np.zeros(np.count_nonzero(exact), np.int64)),
                ("lifetime", ended_group, lifetime),
                ("bytes", ended_group, size),
            ):
                slot.add((name, figure), group, classes)

    def _totals(self, name: str, window_s: float, names: Sequence[str]) -> list[Totals]:
        sums = {figure: _sum([slot.counts.get((name, figure)) for slot in self._slots]) for figure in _FIGURES}
        ended, opened, exact = (_by_group(sums[figure]) for figure in ("ended", "opened", "exact"))
        busiest = sorted(ended | opened, key=lambda group: (-ended.get(group, 0), -opened.get(group, 0), group))[:TOP]
        if name == "all":
            busiest = [0]
        totals = []
        for group in busiest:
            lifetime = _distribution(sums["lifetime"], group)
            share = exact.get(group, 0) / lifetime.count if lifetime.count else 1.0
            opened_per_s, ended_per_s = (counts.get(group, 0) / window_s for counts in (opened, ended))
            carried = _distribution(sums["bytes"], group)
            totals.append(Totals(names[group], opened_per_s, ended_per_s, lifetime, carried, min(share, 1.0)))
        return totals


_FIGURES = ("opened", "ended", "exact", "lifetime", "bytes")
_Counts = tuple[NDArray[np.int64], NDArray[np.int64]]
"""group * _CLASSES + class, ascending, and the count of each."""


@dataclass(slots=True)
class _Slot:
    begin: float
    """Monotonic seconds."""
    counts: dict[tuple[str, str], _Counts] = field(default_factory=dict)

    def add(self, key: tuple[str, str], group: NDArray[np.int64], classes: NDArray[np.int64]) -> None:
        """Count these; entries with a negative group or class are left out."""
        wanted = (group >= 0) & (classes >= 0)
        numbers, counts = np.unique(group[wanted] * _CLASSES + classes[wanted], return_counts=True)
        self.counts[key] = _sum([self.counts.get(key), (numbers, counts)])


def _sum(parts: Sequence[_Counts | None]) -> _Counts:
    present = [part for part in parts if part is not None]
    if not present:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if len(present) == 1:
        return present[0]
    numbers, inverse = np.unique(np.concatenate([part[0] for part in present]), return_inverse=True)
    counts = np.concatenate([part[1] for part in present])
    return numbers, np.bincount(inverse, weights=counts, minlength=len(numbers)).astype(np.int64)


def _by_group(counts: _Counts) -> dict[int, int]:
    groups, first = np.unique(counts[0] // _CLASSES, return_index=True)
    sums = np.add.reduceat(counts[1], first) if len(first) else counts[1]
    return dict(zip(groups.tolist(), sums.tolist(), strict=True))


def _classes(figures: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the class of each figure; -1 for NaN."""
    # 1e-9 more, so that rounding of logarithms does not put 10 bytes below 10.
    logs = np.log10(np.maximum(figures, _LEAST) / _LEAST) * _PER_DECADE + 1e-9
    return np.where(np.isnan(figures), -1, np.minimum(np.nan_to_num(logs), _CLASSES - 1)).astype(np.int64)


def _value(number: int | np.integer) -> float:
    """Return the middle of a class."""
    return float(_LEAST * 10 ** ((int(number) + 0.5) / _PER_DECADE)) if number else 0.0


def _distribution(counts: _Counts, group: int) -> Distribution:
    low, high = np.searchsorted(counts[0], (group * _CLASSES, (group + 1) * _CLASSES))
    classes, many = counts[0][low:high] - group * _CLASSES, counts[1][low:high]
    total = int(many.sum())
    if not total:
        return Distribution()
    upto = np.cumsum(many)
    p50, p90, p99 = (_value(classes[np.searchsorted(upto, share * total)]) for share in (0.5, 0.9, 0.99))
    decade = np.searchsorted(DECADES, [_value(number) for number in classes], side="right")
    histogram = np.bincount(decade, weights=many, minlength=len(DECADES) + 1).astype(int).tolist()
    return Distribution(total, p50, p90, p99, _value(classes[0]), _value(classes[-1]), tuple(histogram))


class _Names:
    """Numbers of groups, and their names."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._numbers: dict[int, int] = {}

    def clear(self) -> None:
        """Drop all names."""
        self.names, self._numbers = [], {}

    def of_services(self, table: NDArray[np.void], role: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the group of each socket: the local port of a server, the remote address and port of a client."""
        served = role == Role.SERVER
        keys = np.where(served, table["idiag_sport"].astype(np.uint64), table_remote_hashes(table))

        def name(at: int) -> str:
            if served[at]:
                return f":{int(table['idiag_sport'][at])}"
            return str(remote_endpoint(table[at]))

        return self._of(keys, name)

    def of_processes(self, codes: NDArray[np.int32], archive: Archive) -> NDArray[np.int64]:
        """Return the group of each owner code; -1 where there is no owner."""
        known = np.flatnonzero(codes >= 0)
        groups = np.full(len(codes), -1, np.int64)
        groups[known] = self._of(
            codes[known].astype(np.uint64), lambda at: str(archive.owner(int(codes[known[at]])) or "")
        )
        return groups

    def _of(self, keys: NDArray[np.uint64], name: Callable[[int], str]) -> NDArray[np.int64]:
        distinct, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        numbers, new = np.full(len(distinct), -1, np.int64), 0
        for at, key in enumerate(distinct.tolist()):
            number = self._numbers.get(key)
            if number is None and new < _NEW_GROUPS:
                new += 1
                number = self._numbers[key] = len(self.names)
                self.names.append(name(int(first[at])))
            numbers[at] = -1 if number is None else number
        return numbers[inverse]
