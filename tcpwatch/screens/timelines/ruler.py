"""The line above the timelines: ticks with clock times, and the time cursor."""

from __future__ import annotations

import math
import time

from tcpwatch.screens.timelines.axis import TimeAxis
from tcpwatch.widgets.lines import Piece
from tcpwatch.widgets.palette import Palette

TICK, CURSOR_MARK = "|", "▼"
_TICKS_S = (
    *(factor * 10.0**power for power in range(-6, 1) for factor in (1, 2, 5)),
    10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 10_800.0, 21_600.0, 43_200.0,
    86_400.0,
)  # fmt: skip

_ULP_S = 3e-7
"""Rounding error of a float that counts seconds since 1970."""


def tick_s(axis: TimeAxis, room: int) -> float:
    """Return the seconds between two ticks: the smallest round number that is at least `room` cells wide."""
    return next((step for step in _TICKS_S if step >= room * axis.cell_s), _TICKS_S[-1])


def label(unix: float, step_s: float) -> str:
    """Return `12:30` or `12:30:05`, or for steps below a second the second of the minute, `:05.120`."""
    if step_s >= 60:
        return time.strftime("%H:%M", time.localtime(unix + 0.5))
    if step_s >= 1:
        return time.strftime("%H:%M:%S", time.localtime(unix + 0.5))
    digits = max(1, math.ceil(-math.log10(step_s) - 1e-9))
    whole, part = divmod(round(unix * 10**digits), 10**digits)
    return f":{whole % 60:02}.{part:0{digits}}"


def ticks(axis: TimeAxis) -> list[tuple[int, str]]:
    """Return cell and label of each tick, from left to right."""
    step = tick_s(axis, 10)
    if step < 1e-4:  # the labels are so long that they would touch where rounding takes a cell away
        step = tick_s(axis, 11)
    offset = time.localtime(axis.left).tm_gmtoff if step >= 3_600 else 0
    first = math.ceil((axis.left + offset) / step - 1e-9)
    placed = []
    for number in range(first, first + axis.cells):
        at = number * step - offset
        cell = axis.cell(at + _ULP_S)
        if cell >= axis.cells:
            break
        placed.append((max(0, cell), label(at, step)))
    return placed


def ruler_pieces(axis: TimeAxis, cursor: int, colours: Palette) -> list[Piece]:
    """Return the line in exactly `axis.cells` cells."""
    cells = [" "] * axis.cells
    for cell, text in ticks(axis):
        shown = TICK + text
        if cell + len(shown) > axis.cells:
            shown = TICK
        cells[cell : cell + len(shown)] = shown
    before, after = "".join(cells[:cursor]), "".join(cells[cursor + 1 :])
    return [(before, colours.dim), (CURSOR_MARK, colours.key), (after, colours.dim)]
