"""Lines: a widget that draws styled lines and repaints only those that changed.

A line is a tuple of (text, style) pieces. No text is parsed as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.events import Resize
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from typing_extensions import override

from tcpwatch.widgets.palette import Palette, palette

Piece = tuple[str, Style]
Line = tuple[Piece, ...]


def fit(text: str, width: int, right: bool = False, middle: bool = False) -> str:
    """Return `text` in exactly `width` cells, blanks added on one side.

    If it is too long, `…` replaces its end, or with `middle` its middle, as both ends of an address say the most.
    """
    cells = cell_len(text)
    if cells <= width:
        blanks = " " * (width - cells)
        return blanks + text if right else text + blanks
    if width <= 0:
        return ""
    head = (width - 1) // 2 if middle and width > 2 else width - 1
    return set_cell_size(text, head) + "…" + _last_cells(text, width - 1 - head)


def _last_cells(text: str, width: int) -> str:
    """Return the end of `text` in exactly `width` cells; half a wide character becomes a blank."""
    start, length = len(text), 0
    while start > 0 and length + cell_len(text[start - 1]) <= width:
        start -= 1
        length += cell_len(text[start])
    return " " * (width - length) + text[start:]


def cropped(line: Line, width: int) -> Line:
    """Return the line in at most `width` cells, its end replaced by `…` if it is longer."""
    if cells_of(line) <= width:
        return line
    kept: list[Piece] = []
    room = width - 1  # the last cell is for the ellipsis
    for text, style in line:
        kept.append((set_cell_size(text, min(room, cell_len(text))), style))
        room -= min(room, cell_len(text))
    return (*kept, ("…", kept[-1][1])) if width > 0 else ()


def cells_of(line: Iterable[Piece]) -> int:
    """Return the width of a line in cells."""
    return sum(cell_len(text) for text, _ in line)


def overlay_style(line: Line, width: int, style: Style) -> Line:
    """Return the line in `width` cells with `style` added to every piece, for the line under the cursor."""
    blanks = " " * max(0, width - cells_of(line))
    return (*with_bars_upright(((text, piece + style) for text, piece in line), style), (blanks, style))


def with_bars_upright(line: Iterable[Piece], style: Style) -> Line:
    """Return the pieces with bars not reversed if `style`, that of the cursor, is: reversed, a full bar looks empty."""
    if not style.reverse:
        return tuple(line)
    return tuple((text, piece if _BLOCKS.isdisjoint(text) else piece + _UPRIGHT) for text, piece in line)


_BLOCKS, _UPRIGHT = frozenset("▁▂▃▄▅▆▇█▉▊▋▌▍▎▏"), Style(reverse=False)


def title_rule(title: str, width: int, colours: Palette, head: str = "") -> Line:
    """Return `── Title ─────── head` in `width` cells."""
    if cell_len(title) > width - 6:
        title = fit(title, max(1, width - 6))
    line = "─" * max(0, width - cell_len(title) - cell_len(head) - 6)
    return ((" ── ", colours.dim), (title, colours.strong), (f" {line}{head} ", colours.dim))


def _strip(line: Line, width: int, base: Style) -> Strip:
    return Strip([Segment(text, base + style) for text, style in line]).adjust_cell_length(width, base)


class Lines(ScrollView, can_focus=False, inherit_bindings=False):
    """Draws the lines that `draw` returns. Scrolls if there are more lines than its height."""

    DEFAULT_CSS = "Lines { overflow-x: hidden; scrollbar-size-vertical: 1; }"
    ALLOW_SELECT: ClassVar[bool] = False

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.lines: Sequence[Line] = ()
        self._strips: list[Strip] = []
        self._blank = Strip.blank(0, Style.null())
        """A line below the last one."""
        self._drawn_for: tuple[object, ...] = ()

    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        """Return all lines for this size; called whenever something may have changed."""
        raise NotImplementedError

    def redraw(self) -> None:
        """Draw again and repaint the lines that differ; does nothing before the widget has a size."""
        width = self.size.width - self.show_vertical_scrollbar  # it covers the last cell
        if not width or not self.is_attached:
            return
        lines = self.draw(width, self.size.height, palette(self.app))
        # If one of these has changed, every finished strip is stale, even where its line is the same.
        drawn_for, base = (width, *self._look), self.rich_style
        before = self.lines if drawn_for == self._drawn_for else ()
        old = self._strips
        self._strips = [
            old[y] if y < len(before) and before[y] == line else _strip(line, width, base)
            for y, line in enumerate(lines)
        ]
        changed = [y for y, strip in enumerate(self._strips) if y >= len(before) or strip is not old[y]]
        self.lines, self._drawn_for, self._blank = lines, drawn_for, Strip.blank(self.size.width, base)
        self._repaint(changed, len(lines) != len(old))

    @property
    def _look(self) -> tuple[object, ...]:
        """What the colours of the lines depend on."""
        return self.app.theme, self.app.native_ansi_color, self.rich_style

    def _repaint(self, changed: Sequence[int], resized: bool) -> None:
        if resized:
            self.virtual_size = Size(self.size.width, len(self._strips))
        if resized or 2 * len(changed) > self.size.height:
            self.refresh()
            return
        for y in changed:
            self.refresh_line(y)

    @override
    def render_line(self, y: int) -> Strip:
        at = y + self.scroll_offset.y
        return self._strips[at] if at < len(self._strips) else self._blank

    def on_resize(self, event: Resize) -> None:
        """Draw for the new size."""
        self.redraw()

    @override
    def notify_style_update(self) -> None:
        super().notify_style_update()
        if self._drawn_for[1:] != self._look:  # each change of the focus comes here, and seldom changes a colour
            self.redraw()


class CallbackLines(Lines):
    """Draws the lines that a function returns for a width; its height is fixed, or `auto`."""

    DEFAULT_CSS = "CallbackLines { overflow: hidden; }"

    def __init__(self, draw: Callable[[int, Palette], Sequence[Line]], height: int | str = 1) -> None:
        super().__init__()
        self._draw = draw
        self.styles.height = height

    @override
    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        return self._draw(width, colours)
