"""Blocks: titled parts of a text screen, drawn for any width and set in columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tcpwatch.widgets.lines import Line, title_rule
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import GUTTER, Section, balanced_columns, column_lines

_LEAST, _MOST, _COLUMNS = 50, 99, 3
"""Fewest and most cells of a column, and the most columns."""


@dataclass(frozen=True, slots=True)
class Block:
    """A titled part."""

    title: str
    draw: Callable[[int, Palette], Sequence[Line]]
    """Returns the lines below the title for a width in cells."""
    plain: Callable[[], Sequence[str]]
    """Returns the same as plain text for the clipboard."""
    head: str = ""
    """Text at the right end of the title line."""

    def lines(self, width: int, colours: Palette) -> list[Line]:
        """Return the title and the lines below it."""
        head = self.head if len(self.title) + len(self.head) + 8 <= width else ""
        return [title_rule(self.title, width, colours, f" {head}" if head else ""), *self.draw(width, colours)]


def block_of(section: Section) -> Block:
    """Return a section as a block."""
    return Block(
        section.title,
        lambda width, colours: column_lines([section], width, colours)[1:],
        lambda: [(f"{entry.label}: " if entry.label else "") + entry.value for entry in section.entries],
    )


def in_columns(blocks: Sequence[Block], width: int, colours: Palette) -> list[Line]:
    """Return the blocks in reading order, in as many columns of about equal height as the width allows."""
    count = max(1, min(_COLUMNS, width // _LEAST))
    cells = min(_MOST, (width - GUTTER * (count - 1)) // count)
    return balanced_columns([block.lines(cells, colours) for block in blocks], count, cells, colours)
