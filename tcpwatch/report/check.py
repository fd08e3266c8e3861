"""Findings as JSON, as text, and as the exit code of `tcpwatch check`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from tcpwatch.model.finding import Finding, FindingSubject, Severity
from tcpwatch.model.rules.completeness import rules_lack_data
from tcpwatch.model.rules.registry import Rule
from tcpwatch.model.rules.remarks import host_remarks, missing_data
from tcpwatch.model.view import View
from tcpwatch.report.ansi import BOLD, coloured

EXIT_CODES = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 3}
"""Severity of the most severe finding → exit code."""
_DIGITS = 3
_COLOURS = {Severity.WARNING: "33", Severity.CRITICAL: "31"}


def exit_code(findings: Iterable[Finding]) -> int:
    """Return the exit code; 0 without findings."""
    return max((EXIT_CODES[finding.severity] for finding in findings), default=0)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What some polls found."""

    findings: tuple[Finding, ...]
    """Each at its highest severity, the most severe first; a rule that lacked data in a poll is a finding, too."""
    notes: tuple[str, ...]
    """What is not looked at although nothing failed, in words."""


def check(views: Iterable[View], skipped: Collection[str] = ()) -> CheckResult:
    """Merge the findings of all Views, without those of the rules named in `skipped`.

    Without findings, every other rule had all its data in each poll. Rules that need the trace are skipped, too, if a
    person has switched it off.
    """
    merged: dict[tuple[str, FindingSubject], Finding] = {}
    lacking: dict[Rule, str] = {}
    notes: tuple[str, ...] = ()
    for view in views:
        for finding in view.findings:
            earlier = merged.get((finding.rule, finding.subject))
            if finding.rule not in skipped and (earlier is None or finding.severity >= earlier.severity):
                merged[finding.rule, finding.subject] = finding
        lacking |= {rule: words for rule, words in missing_data(view.sample).items() if rule.name not in skipped}
        notes = host_remarks(view.sample)
    if lacking:
        finding = rules_lack_data(lacking)
        if merged.setdefault((finding.rule, finding.subject), finding) is not finding:
            notes = (*notes, finding.headline)
    return CheckResult(tuple(sorted(merged.values(), key=lambda finding: -finding.severity)), notes)


def finding_object(finding: Finding) -> dict[str, Any]:
    """Return the finding as a JSON object; the keys are a public contract. Unknown values are None."""
    return {
        "rule": finding.rule,
        "severity": finding.severity.name.lower(),
        "subject": str(finding.subject),
        "headline": finding.headline,
        "evidence": {
            name: {"value": round(value, _DIGITS) if isinstance(value, float) else value, "unit": unit}
            for name, (value, unit) in finding.evidence.items()
        },
        "why": finding.why,
        "advice": list(finding.advice),
        "filter": finding.filter,
    }


def finding_text(finding: Finding, colour: bool = False) -> str:
    """Return one line without newline: `critical accept-queue-full listener *:443: 513 of 512 waiting`."""
    severity = coloured(finding.severity.name.lower(), _COLOURS.get(finding.severity, BOLD), colour)
    return f"{severity} {finding.rule} {finding.subject}: {finding.headline}"
