"""Bars and sparklines made of text: eighth blocks, so that colour is not needed."""

from __future__ import annotations

import math
from collections.abc import Sequence

_EIGHTHS = " ▏▎▍▌▋▊▉"
_LEVELS = "▁▂▃▄▅▆▇█"
_FLATTEST = 0.25
"""A sparkline's height stands for a quarter of the largest value at least ..."""
_LEAST_RANGE = 4.0
"""... and for four of anything, so that a flicker between 1 and 2 looks like one."""


def bar(share: float | None, width: int) -> str:
    """A bar over `width` cells, blanks included; anything above nothing shows at least the thinnest one."""
    if not share or share <= 0 or width <= 0:
        return " " * max(0, width)
    eighths = min(max(1, round(share * width * 8)), width * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(width)


def sparkline(values: Sequence[float], slots: int, width: int, *, from_zero: bool = False) -> str:
    """The last `slots` values over `width` cells, the newest on the right; blank where nothing is known.

    It shows change and not size: the lowest value is drawn lowest, or `from_zero` nothing, for what must not look alike
    when it is always full and when it is always empty. Where several values share a cell the largest counts, so that a
    short burst is not lost.
    """
    cells = resample(values, slots, width)
    known = [value for value in cells if value is not None]
    if not known:
        return " " * width
    low, high = 0.0 if from_zero else min(known), max(known)
    step = max(high - low, _FLATTEST * high, _LEAST_RANGE) / (len(_LEVELS) - 1)
    return "".join(" " if value is None else _LEVELS[round((value - low) / step)] for value in cells)


def resample(values: Sequence[float], slots: int, width: int) -> list[float | None]:
    """The last `slots` values in `width` cells: the largest of each cell's, None where all are NaN or absent."""
    recent = list(values[-slots:])
    padded = [math.nan] * (slots - len(recent)) + recent
    cells: list[float | None] = []
    for at in range(width):
        start = at * slots // width
        part = padded[start : max(start + 1, (at + 1) * slots // width)]
        cells.append(max((value for value in part if value == value), default=None))
    return cells
