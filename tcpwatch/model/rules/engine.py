"""RuleEngine: applies the rules to each View, and keeps findings from flickering."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from tcpwatch.model.finding import Candidate, Finding, FindingSubject, Severity
from tcpwatch.model.rules.registry import Rule, all_rules
from tcpwatch.model.view import View

RULES = all_rules()
"""Imported with this module and not later: Ctrl-C inside an import can end the process without exit code 130."""
STEPS_IN, STEPS_OUT = 2, 5
"""A finding appears when its condition was true for STEPS_IN steps, and leaves when it was false for STEPS_OUT.

With Candidate.stays False it leaves at once.
"""


LISTED = 100
"""Findings of one rule that are listed: any user can open tens of thousands of listeners that deserve one."""


@dataclass(slots=True)
class _Level:
    """Whether a finding is shown with at least one certain severity."""

    steps_true: int = 0
    steps_false: int = 0
    shown: bool = False

    def step(self, condition: bool, immediate: bool, steps_out: int) -> None:
        self.steps_true, self.steps_false = (self.steps_true + 1, 0) if condition else (0, self.steps_false + 1)
        if self.steps_true >= STEPS_IN or (condition and immediate):
            self.shown = True
        elif self.steps_false >= steps_out:
            self.shown = False


@dataclass(slots=True)
class _Case:
    """One rule applied to one subject."""

    newest: Finding
    steps_out: int = STEPS_OUT
    levels: dict[Severity, _Level] = field(default_factory=lambda: {severity: _Level() for severity in Severity})

    def step(self, candidate: Candidate | None) -> None:
        severity = candidate.finding.severity if candidate else 0
        immediate = (candidate.immediate_severity if candidate else None) or 0
        if candidate:
            self.newest, self.steps_out = candidate.finding, STEPS_OUT if candidate.stays else 1
        for threshold, level in self.levels.items():
            level.step(severity >= threshold, immediate >= threshold, self.steps_out)

    @property
    def finding(self) -> Finding | None:
        """The newest finding with the severity to show, None if nothing is to be shown."""
        shown = max((severity for severity, level in self.levels.items() if level.shown), default=None)
        return None if shown is None else replace(self.newest, severity=shown)

    @property
    def is_over(self) -> bool:
        return all(level.steps_false >= self.steps_out for level in self.levels.values())


class RuleEngine:
    """Turns the candidates of each step into findings."""

    def __init__(self, rules: Sequence[Rule] | None = None) -> None:
        self._rules = RULES if rules is None else rules
        self._rank = {rule.name: rule.rank for rule in self._rules}
        self._cases: dict[tuple[str, FindingSubject], _Case] = {}

    def step(self, view: View) -> tuple[Finding, ...]:
        """Return the findings after this View: the most severe first, then by rank and subject."""
        candidates = {
            (candidate.finding.rule, candidate.finding.subject): candidate
            for rule in self._rules
            for candidate in _at_most(LISTED, rule.check(view, view.thresholds))
        }
        for key, candidate in candidates.items():
            self._cases.setdefault(key, _Case(candidate.finding))
        for key, case in self._cases.items():
            case.step(candidates.get(key))
        self._cases = {key: case for key, case in self._cases.items() if not case.is_over}
        findings = [finding for case in self._cases.values() if (finding := case.finding) is not None]
        return tuple(
            sorted(findings, key=lambda finding: (-finding.severity, self._rank[finding.rule], str(finding.subject)))
        )


def _at_most(number: int, candidates: Iterator[Candidate]) -> Iterator[Candidate]:
    """Yield the first candidates; and if there are more, one that says so."""
    last = None
    for last in islice(candidates, number):
        yield last
    if last is not None and (more := next(candidates, None)) is not None:
        finding = replace(
            more.finding,
            subject=FindingSubject("tcpwatch", ""),
            headline=f"more than {number} findings of this rule: only the first {number} are listed",
            evidence={},
            why="So many findings of one rule may have one cause.",
            advice=(),
            filter="",
        )
        yield replace(more, finding=finding)
