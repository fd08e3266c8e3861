"""Findings for programs and for people without a screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tcpwatch.model.finding import Finding, FindingSubject, Severity
from tcpwatch.model.view import View
from tcpwatch.report.ansi import BOLD, coloured

EXIT_CODES = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 3}
"""What `tcpwatch check` ends with, for the most severe finding."""
_DIGITS = 3
_COLOURS = {Severity.WARNING: "33", Severity.CRITICAL: "31"}


def exit_code(findings: Iterable[Finding]) -> int:
    """0 for none."""
    return max((EXIT_CODES[finding.severity] for finding in findings), default=0)


def merge_findings(views: Iterable[View]) -> list[Finding]:
    """Every finding that appeared in these Views, as it was when it was worst, the most severe first."""
    found: dict[tuple[str, FindingSubject], Finding] = {}
    for view in views:
        for one in view.findings:
            earlier = found.get((one.rule, one.subject))
            if earlier is None or one.severity >= earlier.severity:
                found[one.rule, one.subject] = one
    return sorted(found.values(), key=lambda one: -one.severity)


def finding_object(finding: Finding) -> dict[str, Any]:
    """The finding's facts; its keys are a public contract. A value that is not known is None."""
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
    """`critical accept-queue-full listener *:443: 513 of 512 waiting`, without a newline."""
    severity = coloured(finding.severity.name.lower(), _COLOURS.get(finding.severity, BOLD), colour)
    return f"{severity} {finding.rule} {finding.subject}: {finding.headline}"
