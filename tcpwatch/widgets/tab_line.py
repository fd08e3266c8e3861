"""The second line: the tabs and their numbers."""

from __future__ import annotations

from collections.abc import Sequence

from textual.events import Click
from textual.message import Message

from tcpwatch.widgets.lines import Line, Lines, Piece
from tcpwatch.widgets.palette import Palette


class TabLine(Lines):
    """Tabs by number; the one on screen is bracketed, bold and coloured. A click goes there."""

    DEFAULT_CSS = "TabLine { height: 1; overflow: hidden; }"

    class Picked(Message):
        """A person clicked on a tab."""

        def __init__(self, at: int) -> None:
            super().__init__()
            self.at = at

    def __init__(self, titles: Sequence[str]) -> None:
        super().__init__()
        self._titles = titles
        self._active = 0

    def activate(self, at: int) -> None:
        """Mark this tab, counted from 0."""
        self._active = at
        self.redraw()

    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        """As Lines asks."""
        pieces: list[Piece] = []
        for at, label in enumerate(self._labels()):
            pieces.append((label, colours.cursor + colours.strong if at == self._active else colours.dim))
        return [tuple(pieces)]

    def _labels(self) -> list[str]:
        """One text of fixed width a tab."""
        return [f"[{at} {title}]" if at == self._active + 1 else f" {at} {title} "
                for at, title in enumerate(self._titles, 1)]  # fmt: skip

    def on_click(self, event: Click) -> None:
        """Find the tab under the mouse."""
        x = event.x
        for at, label in enumerate(self._labels()):
            if 0 <= x < len(label):
                self.post_message(self.Picked(at))
            x -= len(label)
