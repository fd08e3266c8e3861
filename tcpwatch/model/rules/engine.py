"""Diagnosis: the rules' answers of each step, steadied, so that findings do not flicker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Candidate, Finding, FindingSubject, Severity
from tcpwatch.model.rules import (
    accept_queue,
    completeness,
    ephemeral_ports,
    port_scan,
    resets,
    stalls,
    syn_queue,
    teardown,
)
from tcpwatch.model.view import View

STEPS_IN, STEPS_OUT = 2, 5
"""A finding appears when its condition held for so many steps, and leaves when it was absent for so many."""

Rule = Callable[[View, Thresholds], Iterator[Candidate]]

RULES: dict[str, Rule] = {
    "syn-flood": syn_queue.syn_flood,
    "accept-queue-full": accept_queue.accept_queue_full,
    "syn-queue-full": syn_queue.syn_queue_full,
    "port-exhaustion": ephemeral_ports.port_exhaustion,
    "connect-stuck": stalls.connect_stuck,
    "close-wait-leak": teardown.close_wait_leak,
    "time-wait-buildup": teardown.time_wait_buildup,
    "zero-window": stalls.zero_window,
    "retransmissions": stalls.retransmissions,
    "tcp-memory": stalls.tcp_memory,
    "orphans": teardown.orphans,
    "half-closed": teardown.half_closed,
    "port-scan": port_scan.port_scan,
    "resets": resets.resets,
    "data-incomplete": completeness.data_incomplete,
}
"""In the order in which findings of the same severity are shown: what explains others comes first."""


@dataclass(slots=True)
class _Level:
    """Whether a condition of at least one severity holds, steadied."""

    held: int = 0
    absent: int = 0
    shown: bool = False

    def step(self, holds: bool, at_once: bool) -> None:
        self.held, self.absent = (self.held + 1, 0) if holds else (0, self.absent + 1)
        if self.held >= STEPS_IN or (holds and at_once):
            self.shown = True
        elif self.absent >= STEPS_OUT:
            self.shown = False


@dataclass(slots=True)
class _Case:
    """One rule and subject."""

    newest: Finding
    levels: dict[Severity, _Level] = field(default_factory=lambda: {level: _Level() for level in Severity})

    def step(self, candidate: Candidate | None) -> None:
        severity = candidate.finding.severity if candidate else 0
        at_once = (candidate.immediate_severity if candidate else None) or 0
        for level, state in self.levels.items():
            state.step(severity >= level, at_once >= level)
        if candidate:
            self.newest = candidate.finding

    @property
    def finding(self) -> Finding | None:
        """What is to be shown; while the condition is absent, what was said last."""
        shown = max((level for level, state in self.levels.items() if state.shown), default=None)
        return None if shown is None else replace(self.newest, severity=shown)

    @property
    def over(self) -> bool:
        return all(state.absent >= STEPS_OUT for state in self.levels.values())


class RuleEngine:
    """Remembers for a few steps what the rules said."""

    def __init__(self) -> None:
        self._cases: dict[tuple[str, FindingSubject], _Case] = {}

    def step(self, view: View) -> tuple[Finding, ...]:
        """What is wrong after this View, the most severe first."""
        said = {(c.finding.rule, c.finding.subject): c for rule in RULES.values() for c in rule(view, view.thresholds)}
        for key, candidate in said.items():
            self._cases.setdefault(key, _Case(candidate.finding))
        for key, case in self._cases.items():
            case.step(said.get(key))
        self._cases = {key: case for key, case in self._cases.items() if not case.over}
        found = [case.finding for case in self._cases.values()]
        order = {name: at for at, name in enumerate(RULES)}
        shown = [finding for finding in found if finding is not None]
        return tuple(sorted(shown, key=lambda one: (-one.severity, order[one.rule], str(one.subject))))
