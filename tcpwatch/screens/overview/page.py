"""The Overview page: the whole host on one screen, in the order of a connection's states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from typing_extensions import override

from tcpwatch.model.finding import Finding, FindingSubject
from tcpwatch.model.states import State
from tcpwatch.model.view import View
from tcpwatch.screens.overview.counters import MAIN_COUNTERS, MORE_COUNTERS, counter_lines
from tcpwatch.screens.overview.histogram import HistogramLayout, histogram, states_shown
from tcpwatch.screens.overview.listeners import MIN_WIDTH, listener_lines
from tcpwatch.screens.overview.totals import USUAL_ROWS, tables_height, tables_lines, totals_help_section, totals_lines
from tcpwatch.screens.overview.trace_line import trace_line
from tcpwatch.screens.shared.drawn_page import DrawnPage, ViewLines
from tcpwatch.screens.shared.finding_lines import finding_line, more_line
from tcpwatch.screens.shared.meters import meter_lines, meters_of
from tcpwatch.screens.shared.page import NO_DATA, SocketsRequested
from tcpwatch.widgets.lines import Line, overlay_style, title_rule
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import Section

_LISTENERS = 5
"""Listeners that get a line before the tables of flows do."""


CursorItem = State | tuple[str, FindingSubject]
"""An item for the cursor: a state, or a finding by its rule and subject."""


class OverviewPage(DrawnPage):
    """The page."""

    def __init__(self) -> None:
        super().__init__(_Overview())

    @override
    def help_sections(self) -> Sequence[Section]:
        return [totals_help_section()]


class _Overview(ViewLines[CursorItem]):
    """The lines, and the cursor on findings and states."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("w", "why", "why")]

    def __init__(self) -> None:
        super().__init__()
        self._view: View | None = None
        self._cursor = State.ESTABLISHED

    @override
    def show(self, view: View) -> None:
        had = bool(self._view and self._view.findings)
        self._view = view
        if self._cursor not in self._items():
            self._cursor = states_shown(view)[-1] if isinstance(self._cursor, State) else self._items()[0]
        self.redraw()
        if had != bool(view.findings):
            self.refresh_bindings()

    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        """Return findings, histogram, limits and main rates, and more of them as far as the height allows."""
        view = self._view
        if view is None:
            return [(), ((f"   {NO_DATA}", colours.dim),)]
        lines = self._finding_lines(view, width, height, colours)
        items: list[CursorItem | None] = [_key(finding) for finding in self._shown_findings(height)]
        items += [None] * (len(lines) - len(items))
        marked = self._cursor if isinstance(self._cursor, State) else None
        rows = histogram(view, marked, HistogramLayout(width, colours, self._exact))
        items += [state for _, state in rows]
        self._spots = [((0, item),) for item in items]
        lines += [line for line, _ in rows]
        limits = meter_lines(meters_of(view), width, colours, self._exact)
        rates = counter_lines(MAIN_COUNTERS, view, width, colours)
        totals = totals_lines(view.flow_totals, width, colours)
        # Titles are left out first, then the line of flows, so that the rest fits into 80×24.
        if len(lines) + len(limits) + len(rates) + len(totals) <= height:
            rates += totals
        free = height - len(lines) - len(limits) - len(rates)
        lines += [title_rule("Limits", width, colours)] * (free >= 1) + limits
        lines += [title_rule("Rates", width, colours)] * (free >= 2) + rates
        return [*lines, *self._further(view, width, height - len(lines), colours)]

    def _shown_findings(self, height: int) -> Sequence[Finding]:
        """Return as many findings as leave room for the rest; `w` lists all."""
        findings = self._view.findings if self._view else ()
        return findings[: max(3, height // 4)]

    def _finding_lines(self, view: View, width: int, height: int, colours: Palette) -> list[Line]:
        shown, lines = self._shown_findings(height), []
        for finding in shown:
            marked = self._cursor == _key(finding)
            line = finding_line(finding, width, marked, colours)
            lines.append(overlay_style(line, width, colours.cursor) if marked else line)
        left_out = view.findings[len(shown) :]
        return [*lines, more_line(left_out, colours)] if left_out else lines

    def _further(self, view: View, width: int, room: int, colours: Palette) -> list[Line]:
        """Return what fills a tall screen: more counters, trace rates, listeners, flows by service and process."""
        listeners = view.listeners if width >= MIN_WIDTH else ()
        some, all_of_them = ((2 + count if count else 0) for count in (min(len(listeners), _LISTENERS), len(listeners)))
        least = tables_height(view.flow_totals, width)
        # Tables of flows are worth more than counters that are mostly 0, so they get their room first.
        promised = some + least if least and some + least <= room else 0
        lines = counter_lines(MORE_COUNTERS, view, width, colours) + trace_line(view, width, colours)
        if room < len(lines) + promised:
            lines = []
        room -= len(lines)
        tables: list[Line] = []
        if view.flow_totals is not None and promised:
            wanted = min(room - some, tables_height(view.flow_totals, width, USUAL_ROWS))
            tables = tables_lines(view.flow_totals, width, max(wanted, room - all_of_them), colours)
        room -= len(tables)
        if room >= 3 and listeners:
            lines.append(title_rule(f"Listeners ({len(listeners):,})", width, colours))
            lines += listener_lines(listeners, room - 1, width, colours, self._exact)
        return lines + tables

    @override
    def _items(self) -> list[CursorItem]:
        if self._view is None:
            return []
        return [*map(_key, self._shown_findings(self.size.height)), *states_shown(self._view)]

    @property
    def _finding(self) -> Finding | None:
        """The finding under the cursor."""
        findings = self._view.findings if self._view else ()
        return next((finding for finding in findings if _key(finding) == self._cursor), None)

    def action_open(self) -> None:
        """Show the sockets in this state, or those affected by a finding."""
        if isinstance(self._cursor, State):
            if self._view is not None:
                self.post_message(SocketsRequested(f"state:{self._cursor.name}"))
        elif self._finding is not None and self._finding.filter:
            self.post_message(SocketsRequested(self._finding.filter))
        else:
            self.action_why()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable `w` if there are findings."""
        return bool(self._view and self._view.findings) if action == "why" else True

    def action_why(self) -> None:
        """Open the findings in full."""
        from tcpwatch.screens.findings.page import FindingsScreen

        self.app.push_screen(FindingsScreen(self._finding))


def _key(finding: Finding) -> CursorItem:
    return finding.rule, finding.subject
