"""Area charts of text: values over time, several lines high, starting at 0."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style

from tcpwatch import units
from tcpwatch.widgets.charts.bars import resample
from tcpwatch.widgets.lines import Line, fit, title_rule
from tcpwatch.widgets.palette import Palette

_LEVELS = " ▁▂▃▄▅▆▇█"
_LABEL = 9
MIN_HEIGHT = 5
"""Fewest lines that make a chart better than a sparkline."""


def area(values: Sequence[float], slots: int, width: int, height: int, most: float) -> list[str]:
    """Return the last `slots` values over `width` cells, the newest on the right, blank where unknown.

    `most` reaches the top; a value above 0 shows at least the thinnest line.
    """
    eighths = []
    for value in resample(values, slots, width):
        share = value / most if value and most > 0 else 0.0
        eighths.append(min(max(round(share * height * 8), int(share > 0)), height * 8))
    rows = range(height - 1, -1, -1)
    return ["".join(_LEVELS[min(max(cell - 8 * row, 0), 8)] for cell in eighths) for row in rows]


def area_lines(
    title: str, values: Sequence[float], slots: int, width: int, height: int, style: Style, colours: Palette
) -> list[Line]:
    """Return a titled chart of `height` lines, labelled with the largest value at its top and 0 at its bottom."""
    largest = max((value for value in values[-slots:] if value == value), default=0.0)
    lines: list[Line] = [title_rule(title, width, colours, " last 2 min")]
    drawn = area(values, slots, max(0, width - 3 - _LABEL - 2), height - 1, largest)
    for row, cells in enumerate(drawn):
        label = units.rate(largest) if row == 0 else "0" if row == len(drawn) - 1 else ""
        lines.append((("   " + fit(label, _LABEL, right=True) + " ", colours.dim), (cells, style)))
    return lines
