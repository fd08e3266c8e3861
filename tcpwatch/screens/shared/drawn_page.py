"""DrawnPage: a page whose whole content is drawn by one widget."""

from __future__ import annotations

from typing import Any, Generic

from textual.app import ComposeResult
from typing_extensions import override

from tcpwatch.model.view import View
from tcpwatch.screens.shared.page import Page
from tcpwatch.widgets.cursor_lines import CursorLines, T


class ViewLines(CursorLines[T], Generic[T]):
    """Lines with a cursor that show a View."""

    def __init__(self) -> None:
        super().__init__()
        self._exact = False

    def show(self, view: View) -> None:
        """Draw this View."""
        raise NotImplementedError

    def show_exact(self, exact: bool) -> None:
        """Draw numbers exact or rounded."""
        self._exact = exact
        self.redraw()


class DrawnPage(Page):
    """Hands each View to its content."""

    def __init__(self, content: ViewLines[Any]) -> None:
        super().__init__()
        # Made here and not in `compose`: a View may come before the children are mounted, or when the app is ending.
        self.content = content

    @override
    def compose(self) -> ComposeResult:
        yield self.content

    @override
    def show(self, view: View) -> None:
        self.content.show(view)

    @override
    def show_exact(self, exact: bool) -> None:
        self.content.show_exact(exact)
