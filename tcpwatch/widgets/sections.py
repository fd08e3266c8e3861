"""Sections of labelled facts, wrapped and set in columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells
from rich.style import Style

from tcpwatch.widgets.lines import Line, cells_of, fit, title_rule
from tcpwatch.widgets.palette import Palette

_COLUMN_CELLS = 50
"""Fewest cells of a column."""
GUTTER = 2
"""Cells between two columns."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A label and its value, which is wrapped; without a label the value has the whole width."""

    label: str
    value: str
    style: Style | None = None
    note: str = ""
    """Shown dim at the right end if there is room."""


@dataclass(frozen=True, slots=True)
class Section:
    """A titled group of entries."""

    title: str
    entries: Sequence[Entry]
    label: int = 14
    """Cells for the labels."""


def wrapped(value: str, width: int) -> list[str]:
    """Return the value in lines of at most `width` cells, broken between words where possible."""
    lines, line = [], ""
    for word in value.split():
        joined = f"{line} {word}" if line else word
        if cell_len(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        *whole, line = chop_cells(word, max(2, width))
        lines += whole
    return [*lines, line]


def column_lines(sections: Sequence[Section], width: int, colours: Palette) -> list[Line]:
    """Return the sections in reading order, in as many columns of about equal height as the width allows."""
    count = max(1, min(3, width // _COLUMN_CELLS))
    cells = (width - GUTTER * (count - 1)) // count
    return balanced_columns([_section_lines(section, cells, colours) for section in sections], count, cells, colours)


def balanced_columns(blocks: Sequence[Sequence[Line]], count: int, cells: int, colours: Palette) -> list[Line]:
    """Return the blocks, unbroken and in order, in up to `count` columns of about equal height."""
    height = _least_height([len(block) for block in blocks], count)
    columns: list[list[Line]] = [[]]
    for block in blocks:
        if columns[-1] and len(columns[-1]) + len(block) > height:
            columns.append([])
        columns[-1] += block
    return list(side_by_side(columns, cells, colours))


def _least_height(heights: Sequence[int], count: int) -> int:
    """Return the smallest height of `count` columns that hold blocks of these heights."""
    height = max(max(heights, default=0), -(-sum(heights) // count))
    while _columns_needed(heights, height) > count:
        height += 1
    return height


def _columns_needed(heights: Sequence[int], height: int) -> int:
    needed, left = 1, height
    for block in heights:
        if block > left:
            needed, left = needed + 1, height
        left -= block
    return needed


def _section_lines(section: Section, width: int, colours: Palette) -> list[Line]:
    lines = [title_rule(section.title, width, colours)]
    for entry in section.entries:
        lines += _entry_lines(entry, section.label, width, colours)
    return lines


def _entry_lines(entry: Entry, label: int, width: int, colours: Palette) -> Iterator[Line]:
    indent = label + 4 if entry.label else 3
    style = entry.style or colours.plain
    values = wrapped(entry.value, max(4, width - indent - 1))
    head = f"   {fit(entry.label, label)} " if entry.label else " " * indent
    noted = entry.note and indent + cell_len(values[0]) + cell_len(entry.note) + 3 <= width
    gap = width - indent - cell_len(values[0]) - cell_len(entry.note) - 1
    yield ((head, colours.dim), (values[0], style), (" " * gap + entry.note if noted else "", colours.dim))
    for value in values[1:]:
        yield ((" " * indent, colours.plain), (value, style))


def side_by_side(columns: Sequence[Sequence[Line]], cells: int, colours: Palette) -> Iterator[Line]:
    """Yield the lines of columns side by side, each `cells` wide, with a gutter between them."""
    for y in range(max(map(len, columns), default=0)):
        pieces: list[tuple[str, Style]] = []
        for at, column in enumerate(columns):
            line = column[y] if y < len(column) else ()
            pieces += line
            if at + 1 < len(columns):
                pieces.append((" " * (cells - cells_of(line) + GUTTER), colours.plain))
        yield tuple(pieces)
