"""The second line of the main screen: the tabs and their numbers."""

from __future__ import annotations

from collections.abc import Sequence

from textual.events import Click
from textual.message import Message
from typing_extensions import override

from tcpwatch.widgets.lines import Line, Lines, Piece
from tcpwatch.widgets.palette import Palette


class TabLine(Lines):
    """Shows the tabs with their numbers; the active one is bracketed, bold and coloured."""

    DEFAULT_CSS = "TabLine { height: 1; overflow: hidden; }"

    class Picked(Message):
        """A tab was clicked."""

        def __init__(self, at: int) -> None:
            super().__init__()
            self.at = at

    def __init__(self, titles: Sequence[str]) -> None:
        super().__init__()
        self._titles = titles
        self._active = 0

    def activate(self, at: int) -> None:
        """Mark the tab at this index."""
        self._active = at
        self.redraw()

    @override
    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        pieces: list[Piece] = []
        for at, label in enumerate(self._labels()):
            pieces.append((label, colours.cursor + colours.strong if at == self._active else colours.dim))
        return [tuple(pieces)]

    def _labels(self) -> list[str]:
        """Return the text of each tab; its width does not depend on which one is active."""
        return [f"[{at} {title}]" if at == self._active + 1 else f" {at} {title} "
                for at, title in enumerate(self._titles, 1)]  # fmt: skip

    def on_click(self, event: Click) -> None:
        """Report the tab under the mouse."""
        x = event.x
        for at, label in enumerate(self._labels()):
            if 0 <= x < len(label):
                self.post_message(self.Picked(at))
            x -= len(label)
