"""Reader: lines that scroll with the keys of a pager."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from tcpwatch.widgets.lines import Lines


class Reader(Lines, can_focus=True):
    """Scrolls with the keys of less(1) and vi."""

    DEFAULT_CSS = "Reader { height: 1fr; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "scroll_by(1)", "line down", show=False),
        Binding("up,k", "scroll_by(-1)", "line up", show=False),
        Binding("pagedown", "half_page(2)", "page down", show=False),
        Binding("pageup", "half_page(-2)", "page up", show=False),
        Binding("ctrl+d", "half_page(1)", "half a page down", show=False),
        Binding("ctrl+u", "half_page(-1)", "half a page up", show=False),
        Binding("home,g", "scroll_by(-100_000)", "first line", show=False),
        Binding("end,G", "scroll_by(100_000)", "last line", show=False),
    ]

    def action_scroll_by(self, lines: int) -> None:
        """Scroll down by this number of lines."""
        self.scroll_to(y=self.scroll_target_y + lines, animate=False)

    def action_half_page(self, times: int) -> None:
        """Scroll down by this number of half pages."""
        self.action_scroll_by(times * max(1, self.size.height // 2))
