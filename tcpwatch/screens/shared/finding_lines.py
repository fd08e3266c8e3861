"""Findings as lines: a sign and a word for the severity, the rule and its figures."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style

from tcpwatch.model.finding import Finding, Severity
from tcpwatch.widgets.lines import Line, fit
from tcpwatch.widgets.palette import Palette

SEVERITY_SIGNS = {Severity.INFO: "·", Severity.WARNING: "△", Severity.CRITICAL: "▲"}
_WORD = 10
_WORD_FROM = 60
"""Below this width the severity has only a sign."""


def severity_style(severity: Severity, colours: Palette) -> Style:
    """Return red for critical, amber for a warning."""
    styles = {Severity.CRITICAL: colours.alarm, Severity.WARNING: colours.warning}
    return styles.get(severity, colours.plain)


def rule_title(finding: Finding) -> str:
    """Return the rule's name as a title: `SYN queue full`, `TIME_WAIT buildup`."""
    words = finding.rule.replace("time-wait", "TIME_WAIT").replace("close-wait", "CLOSE_WAIT").replace("-", " ")
    return " ".join(word.upper() if word in ("syn", "tcp") else word for word in words.split())


def finding_line(finding: Finding, width: int, marked: bool, colours: Palette) -> Line:
    """Return ` ▸ ▲ critical  accept queue full  *:443  513 of 512 waiting …` in `width` cells."""
    style = severity_style(finding.severity, colours)
    word = f"{finding.severity.name.lower():<{_WORD}}" if width >= _WORD_FROM else ""
    head = f"{SEVERITY_SIGNS[finding.severity]} {word}"
    about = f"  {finding.subject.name}" if finding.subject.name else ""
    words = rule_title(finding)
    used = 3 + len(head) + len(words)
    rest = fit(f"{about}  {finding.headline}", max(0, width - used - 1))
    return ((" ▸ " if marked else "   ", colours.strong), (head, style), (words, colours.strong), (rest, colours.plain))


def more_line(findings: Sequence[Finding], colours: Palette) -> Line:
    """Return the line that counts the findings left out."""
    return ((f"     and {len(findings):,} more; w lists all", colours.dim),)
