"""Findings as JSON, as text, and as the exit code of `tcpwatch check`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tcpwatch.model.finding import Finding, FindingSubject, Severity
from tcpwatch.model.rules.remarks import remarks
from tcpwatch.model.view import View
from tcpwatch.report.ansi import BOLD, coloured
from tcpwatch.sample import Sample

EXIT_CODES = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 3}
"""Severity of the most severe finding → exit code."""
_DIGITS = 3
_COLOURS = {Severity.WARNING: "33", Severity.CRITICAL: "31"}


def exit_code(findings: Iterable[Finding]) -> int:
    """Return the exit code; 0 without findings."""
    return max((EXIT_CODES[finding.severity] for finding in findings), default=0)


def merge_findings(views: Iterable[View]) -> list[Finding]:
    """Return the findings of all Views, each at its highest severity, the most severe first."""
    merged: dict[tuple[str, FindingSubject], Finding] = {}
    for view in views:
        for finding in view.findings:
            earlier = merged.get((finding.rule, finding.subject))
            if earlier is None or finding.severity >= earlier.severity:
                merged[finding.rule, finding.subject] = finding
    return sorted(merged.values(), key=lambda finding: -finding.severity)


def findings_and_remarks(views: Iterable[View]) -> tuple[list[Finding], tuple[str, ...]]:
    """Return the merged findings, and what the last View does not look at, in words."""
    last: Sample | None = None

    def remembered() -> Iterator[View]:
        nonlocal last
        for view in views:
            last = view.sample
            yield view

    findings = merge_findings(remembered())
    return findings, remarks(last) if last else ()


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
