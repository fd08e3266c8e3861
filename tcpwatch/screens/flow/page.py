"""FlowScreen: everything known of one connection, live, and its last values after it has closed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from typing_extensions import override

from tcpwatch.model.lifecycle.history import StatePeriod
from tcpwatch.model.view import View
from tcpwatch.screens.flow.blocks import flow_blocks, headline
from tcpwatch.screens.flow.facts import FlowFacts, updated_facts
from tcpwatch.screens.flow.strip import strip_lines
from tcpwatch.screens.shared.clipboard import to_clipboard
from tcpwatch.screens.shared.header_line import HeaderLine
from tcpwatch.screens.shared.shell import app_state
from tcpwatch.widgets.blocks import in_columns
from tcpwatch.widgets.footer_line import FooterLine
from tcpwatch.widgets.lines import CallbackLines, Line, fit
from tcpwatch.widgets.palette import Palette, palette
from tcpwatch.widgets.reader import Reader


class FlowScreen(Screen[None], inherit_bindings=False):
    """Opened with Enter on a connection in any table."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "back"), Binding("c", "copy", "copy")]

    def __init__(self, cookie: int) -> None:
        super().__init__()
        self._title, self._flow = CallbackLines(self._title_lines), _Flow(cookie)
        self._strip = CallbackLines(self._strip_lines, height=2)
        self._strip.display = False
        self._cookie = cookie

    @override
    def compose(self) -> ComposeResult:
        yield HeaderLine()
        yield self._title
        yield self._strip
        yield self._flow
        yield FooterLine()

    def on_mount(self) -> None:
        """Request the detail of the connection and follow the app's View."""
        app_state(self).watch_flows(frozenset([self._cookie]))
        self._flow.focus()
        self.watch(self.app, "view", self._show)
        self.watch(self.app, "exact", self._flow.redraw, init=False)

    def _show(self, view: View | None) -> None:
        self._flow.show(view)
        self._title.redraw()
        self._strip.display = bool(self._periods)
        self._strip.redraw()

    def _title_lines(self, width: int, colours: Palette) -> Sequence[Line]:
        """Return the line with addresses and state; it does not scroll."""
        facts = self._flow.facts
        title = fit(headline(facts, width - 2), width - 2) if facts else ""
        return [((f" {title}", colours.strong),)]

    @property
    def _periods(self) -> Sequence[StatePeriod]:
        return self._flow.facts.history.periods if self._flow.facts else ()

    def _strip_lines(self, width: int, colours: Palette) -> Sequence[Line]:
        """Return the states as a time line, and its times; they do not scroll either."""
        return strip_lines(self._periods, self._flow.now, width, colours)

    def on_unmount(self) -> None:
        """Stop requesting the detail."""
        app_state(self).watch_flows(frozenset())

    def action_copy(self) -> None:
        """Copy everything on this screen as plain text."""
        to_clipboard(self, "text", self._flow.as_text())


class _Flow(Reader):
    """The blocks of facts."""

    def __init__(self, cookie: int) -> None:
        super().__init__()
        self._cookie = cookie
        self.facts: FlowFacts | None = None
        self.now = 0.0
        """Unix seconds of the last sample."""

    def show(self, view: View | None) -> None:
        """Update the facts from this View."""
        if view is None:
            return
        self.now = view.sample.time
        self.facts = updated_facts(self.facts, view, self._cookie)
        self.redraw()

    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        """Return the blocks in columns."""
        if self.facts is None:
            return [(), (("   This connection is not in the kernel's table any more.", colours.plain),)]
        return in_columns(flow_blocks(self.facts, self.now, colours, app_state(self).exact), width, colours)

    def as_text(self) -> str:
        """Return all facts in one column of plain text."""
        if self.facts is None:
            return ""
        lines = [headline(self.facts)]
        for block in flow_blocks(self.facts, self.now, palette(self.app), app_state(self).exact):
            lines += ["", f"{block.title} {block.head}".rstrip(), *(f"  {line}" for line in block.plain())]
        return "\n".join(lines) + "\n"
