"""Findings in full: what, why, advice, evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from typing_extensions import override

from tcpwatch import units
from tcpwatch.model.finding import Figure, Finding
from tcpwatch.model.view import View
from tcpwatch.screens.shared.finding_lines import SEVERITY_SIGNS, rule_title, severity_style
from tcpwatch.screens.shared.header_line import HeaderLine
from tcpwatch.screens.shared.shell import app_state
from tcpwatch.widgets.footer_line import FooterLine
from tcpwatch.widgets.lines import Line, title_rule
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.reader import Reader
from tcpwatch.widgets.sections import Entry, Section, column_lines


class FindingsScreen(Screen[None], inherit_bindings=False):
    """Shows all findings of each View; `w` on the Overview opens it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,w", "dismiss", "back")]

    def __init__(self, first: Finding | None) -> None:
        """`first` is the finding to show first."""
        super().__init__()
        self._findings = _Findings(first)

    @override
    def compose(self) -> ComposeResult:
        yield HeaderLine()
        yield self._findings
        yield FooterLine()

    def on_mount(self) -> None:
        """Watch the app."""
        self._findings.focus()
        self.watch(self.app, "view", self._findings.show)


class _Findings(Reader):
    """The text of the screen."""

    def __init__(self, first: Finding | None) -> None:
        super().__init__()
        self._first = first
        self._shown: Sequence[Finding] = ()

    def show(self, view: View | None) -> None:
        """Show the findings of this View."""
        if view is not None:
            chosen = (self._first.rule, self._first.subject) if self._first else None
            self._shown = sorted(view.findings, key=lambda finding: (finding.rule, finding.subject) != chosen)
            self.redraw()

    @override
    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        lines: list[Line] = [title_rule("Findings", width, colours)]
        if not self._shown:
            return [*lines, (), (("   No findings any more.", colours.plain),)]
        for finding in self._shown:
            lines += _finding_lines(finding, width, colours, app_state(self).exact)
        return lines


def _finding_lines(finding: Finding, width: int, colours: Palette, exact: bool) -> list[Line]:
    style = severity_style(finding.severity, colours)
    head = (
        (f" {SEVERITY_SIGNS[finding.severity]} {finding.severity.name.lower()}  ", style),
        (rule_title(finding), colours.strong),
        (f"  {finding.subject}", colours.plain),
    )
    sections = [
        Section("What", [Entry("", finding.headline)]),
        Section("Why", [Entry("", finding.why)]),
        Section("What to do", [Entry("", line) for line in finding.advice]),
        Section("Evidence", [Entry(_label(name), _figure_text(figure, exact))
                             for name, figure in finding.evidence.items()], 24),
        Section("Affected sockets", [Entry("filter", finding.filter or "none")], 6),
    ]  # fmt: skip
    return [head, *column_lines(sections, width, colours), ()]


def _label(name: str) -> str:
    """Return `largest_24_share` as `largest /24 share`."""
    words = (f"/{word}" if word.isdigit() else word for word in name.split("_"))
    return " ".join(words).replace("syn ", "SYN ") if not name.startswith("tcp_") else name


def _figure_text(figure: Figure, exact: bool) -> str:
    value, unit = figure
    if value is None:
        return units.UNKNOWN
    if isinstance(value, str):
        return value
    if unit == "s":
        return units.duration(value)
    if unit == "share":
        return units.share(value)
    return f"{units.rate(value) if isinstance(value, float) else units.count(value, exact)} {unit}".rstrip()
