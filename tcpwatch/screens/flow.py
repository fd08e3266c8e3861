"""One flow: all that is known of it, live, and the last facts when it has closed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen

from tcpwatch.model.columns import untold
from tcpwatch.model.view import View
from tcpwatch.screens.flow_facts import Facts, flow_sections, headline
from tcpwatch.widgets.footer_line import FooterLine
from tcpwatch.widgets.header_line import HeaderLine
from tcpwatch.widgets.lines import Line, Lines
from tcpwatch.widgets.palette import Palette, palette
from tcpwatch.widgets.reader import Reader
from tcpwatch.widgets.sections import column_lines
from tcpwatch.widgets.shell import shell


class FlowScreen(Screen[None], inherit_bindings=False):
    """Opened with Enter on a connection."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back"),
        Binding("c", "copy", "copy"),
    ]

    def __init__(self, cookie: int) -> None:
        super().__init__()
        self._title, self._flow = _Title(), _Flow(cookie)
        self._cookie = cookie

    def compose(self) -> ComposeResult:
        """As Textual asks."""
        yield HeaderLine()
        yield self._title
        yield self._flow
        yield FooterLine()

    def on_mount(self) -> None:
        """Ask for the flow's detail, and follow."""
        shell(self).watch_flows(frozenset([self._cookie]))
        self._flow.focus()
        self.watch(self.app, "view", self._show)
        self.watch(self.app, "exact", self._flow.redraw, init=False)

    def _show(self, view: View | None) -> None:
        self._flow.show(view)
        self._title.show(self._flow.title)

    def on_unmount(self) -> None:
        """Ask for it no longer."""
        shell(self).watch_flows(frozenset())

    def action_back(self) -> None:
        """Close."""
        self.dismiss()

    def action_copy(self) -> None:
        """Everything on this screen, as plain text."""
        self.app.copy_to_clipboard(self._flow.as_text())
        self.notify("Copied, where the terminal allows it.", markup=False, timeout=2)


class _Title(Lines):
    """Which flow it is; stays when the facts are scrolled."""

    DEFAULT_CSS = "_Title { height: 1; overflow: hidden; }"

    def __init__(self) -> None:
        super().__init__()
        self._title = ""

    def show(self, title: str) -> None:
        """Draw this title."""
        self._title = title
        self.redraw()

    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        """As Lines asks."""
        return [((f" {self._title}", colours.strong),)]


class _Flow(Reader):
    """The facts of one flow."""

    def __init__(self, cookie: int) -> None:
        super().__init__()
        self._cookie = cookie
        self._facts: Facts | None = None
        self._now = 0.0

    @property
    def title(self) -> str:
        """The flow in a line; empty when it is not known."""
        return headline(self._facts) if self._facts else ""

    def show(self, view: View | None) -> None:
        """Take over what this View knows of the flow."""
        if view is None:
            return
        self._now = view.sample.time
        facts = _live(self._facts, view, self._cookie) or _closed(self._facts, view, self._cookie)
        self._facts = _detailed(facts, view, self._cookie) if facts else None
        self.redraw()

    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        """As Lines asks."""
        if self._facts is None:
            return [(), (("   This flow is not in the kernel's table any more.", colours.plain),)]
        return column_lines(flow_sections(self._facts, self._now, colours, shell(self).exact), width, colours)

    def as_text(self) -> str:
        """All facts in one column of plain text."""
        if self._facts is None:
            return ""
        sections = flow_sections(self._facts, self._now, palette(self.app), shell(self).exact)
        lines = [self.title]
        for section in sections:
            lines += ["", section.title]
            lines += ["  " + (f"{e.label}: " if e.label else "") + e.value for e in section.entries]
        return "\n".join(lines) + "\n"


def _live(facts: Facts | None, view: View, cookie: int) -> Facts | None:
    at = view.rows.find(cookie)
    if at is None:
        return None
    row = view.rows.take(slice(at, at + 1))
    return replace(facts, row=row, gone=None) if facts else Facts(row, untold=untold(view.sample.source.kind))


def _closed(facts: Facts | None, view: View, cookie: int) -> Facts | None:
    """The flow has gone: its last row, where the View has it, and the moment."""
    if facts is not None and facts.gone is not None:
        return facts
    found = np.flatnonzero(view.closed.cookie == np.uint64(cookie))
    if len(found):
        at = int(found[0])
        row = view.closed.take(slice(at, at + 1))
        facts = facts or Facts(row, untold=untold(view.sample.source.kind))
        return replace(facts, row=row, gone=view.sample.time)
    return replace(facts, gone=view.sample.time) if facts else None


def _detailed(facts: Facts, view: View, cookie: int) -> Facts:
    detail = view.details.get(cookie)
    if detail is None:
        return facts
    facts = replace(facts, asked=True, transitions=detail.transitions or facts.transitions)
    if detail.tcp_info is None:
        return facts
    return replace(facts, tcp_info=detail.tcp_info, info_time=view.sample.time)
