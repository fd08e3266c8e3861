"""Sparklines of text, in eighths of a cell."""

from __future__ import annotations

import math
from collections.abc import Sequence

_LEVELS = "▁▂▃▄▅▆▇█"
_FLATTEST = 0.25
"""The height of a sparkline is at least this share of the largest value ..."""
_LEAST_RANGE = 4.0
"""... and at least this value, so that a change between 1 and 2 looks small."""


def sparkline(values: Sequence[float], slots: int, width: int, *, from_zero: bool = False) -> str:
    """Return the last `slots` values over `width` cells, the newest on the right; blank where unknown.

    The lowest value is drawn lowest, as change matters more than size; with `from_zero` 0 is, so that a queue that is
    always full does not look like one that is always empty. A cell shows the largest of its values, so that short
    bursts are seen.
    """
    cells = resample(values, slots, width)
    known = [value for value in cells if value is not None]
    if not known:
        return " " * width
    low, high = 0.0 if from_zero else min(known), max(known)
    step = max(high - low, _FLATTEST * high, _LEAST_RANGE) / (len(_LEVELS) - 1)
    return "".join(" " if value is None else _LEVELS[round((value - low) / step)] for value in cells)


def resample(values: Sequence[float], slots: int, width: int) -> list[float | None]:
    """Return the largest of the last `slots` values for each of `width` cells; None if all are NaN or absent."""
    recent = list(values[-slots:])
    padded = [math.nan] * (slots - len(recent)) + recent
    cells: list[float | None] = []
    for at in range(width):
        start = at * slots // width
        part = padded[start : max(start + 1, (at + 1) * slots // width)]
        cells.append(max((value for value in part if value == value), default=None))
    return cells
