"""Blocks: titled parts of a screen that is read, each drawn for whatever width it gets, set in columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tcpwatch.widgets.lines import Line, title_rule
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import GUTTER, Section, balanced_columns, column_lines

_LEAST, _MOST, _COLUMNS = 50, 99, 3
"""Cells below which a column is not worth having, and beyond which its lines are too long to be read."""


@dataclass(frozen=True, slots=True)
class Block:
    """A titled part."""

    title: str
    draw: Callable[[int, Palette], Sequence[Line]]
    """The lines below the title, for so many cells."""
    plain: Callable[[], Sequence[str]]
    """The same as text, to be copied."""
    head: str = ""
    """Stands at the right end of the title's line."""

    def lines(self, width: int, colours: Palette) -> list[Line]:
        """Title and all."""
        head = self.head if len(self.title) + len(self.head) + 8 <= width else ""
        return [title_rule(self.title, width, colours, f" {head}" if head else ""), *self.draw(width, colours)]


def block_of(section: Section) -> Block:
    """A section as a block."""
    return Block(
        section.title,
        lambda width, colours: column_lines([section], width, colours)[1:],
        lambda: [(f"{entry.label}: " if entry.label else "") + entry.value for entry in section.entries],
    )


def in_columns(blocks: Sequence[Block], width: int, colours: Palette) -> list[Line]:
    """The blocks in reading order, in as many columns of about equal height as the width allows."""
    count = max(1, min(_COLUMNS, width // _LEAST))
    cells = min(_MOST, (width - GUTTER * (count - 1)) // count)
    return balanced_columns([block.lines(cells, colours) for block in blocks], count, cells, colours)
