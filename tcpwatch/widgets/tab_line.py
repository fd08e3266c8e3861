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
        for at, label in enumerate(self._labels(width)):
            pieces.append((label, colours.cursor + colours.strong if at == self._active else colours.dim))
        return [tuple(pieces)]

    def _labels(self, width: int) -> list[str]:
        """Return the text of each tab: inactive ones without their titles where the width is too small for all.

        In sufficient width a tab stays at its place whichever is active.
        """
        texts = [f"{at} {title}" for at, title in enumerate(self._titles, 1)]
        if sum(len(text) + 2 for text in texts) > width:
            texts = [text if at == self._active else text.split()[0] for at, text in enumerate(texts)]
        return [f"[{text}]" if at == self._active else f" {text} " for at, text in enumerate(texts)]

    def on_click(self, event: Click) -> None:
        """Report the tab under the mouse."""
        x = event.x
        for at, label in enumerate(self._labels(self.size.width)):
            if 0 <= x < len(label):
                self.post_message(self.Picked(at))
            x -= len(label)
