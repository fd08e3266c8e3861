"""Axis: a window of time on a row of cells; and how a person moves it: zoom, pan, follow, a cursor of time."""

from __future__ import annotations

import math
from dataclasses import dataclass

ZOOM_STEPS_S = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0,
    3_600.0, 7_200.0, 18_000.0, 43_200.0, 86_400.0,
)  # fmt: skip
"""Widths of the window that one zooms through; from a minute on those that clocks know."""


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """`cells` cells from the Unix time `left` on, `span_s` seconds in all."""

    left: float
    span_s: float
    cells: int

    @property
    def cell_s(self) -> float:
        """Seconds of a cell."""
        return self.span_s / self.cells

    @property
    def right(self) -> float:
        """Where the last cell ends."""
        return self.left + self.span_s

    def cell(self, time: float) -> int:
        """The cell of this moment; below 0 or from `cells` on where it lies outside."""
        return math.floor((time - self.left) / self.cell_s)

    def begin(self, cell: float) -> float:
        """The time at which this cell begins."""
        return self.left + cell * self.cell_s

    def middle(self, cell: int) -> float:
        """The time in its middle."""
        return self.begin(cell + 0.5)


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """What a person wants to see. Without `held` it follows: its right end is now, and the cursor there."""

    span_s: float = 60.0
    fixed: tuple[float, float] | None = None
    """Left edge and the cursor's time, both Unix seconds, where it stands still."""

    @property
    def follows(self) -> bool:
        """The right end is now."""
        return self.fixed is None

    def axis(self, now: float, cells: int) -> TimeAxis:
        """Its cells. One that follows moves by whole cells, so that what has ended keeps its shape."""
        cells = max(1, cells)
        if self.fixed is not None:
            return TimeAxis(self.fixed[0], self.span_s, cells)
        cell_s = self.span_s / cells
        return TimeAxis(math.ceil(now / cell_s) * cell_s - self.span_s, self.span_s, cells)

    def cursor_cell(self, now: float, cells: int) -> int:
        """The cell that the cursor is in."""
        axis = self.axis(now, cells)
        return max(0, min(axis.cell(self.cursor_time(now)), axis.cells - 1))

    def cursor_time(self, now: float) -> float:
        """The cursor's time."""
        return self.fixed[1] if self.fixed is not None else now

    def zoomed(self, by: int, now: float, cells: int) -> TimeWindow:
        """The next width, greater (by > 0) or less; the cursor keeps its time and its cell."""
        wider = [step for step in ZOOM_STEPS_S if step > self.span_s * 1.001]
        closer = [step for step in ZOOM_STEPS_S if step < self.span_s * 0.999]
        span = (wider[0] if wider else self.span_s) if by > 0 else (closer[-1] if closer else self.span_s)
        if self.fixed is None:
            return TimeWindow(span)
        axis, time = self.axis(now, cells), self.fixed[1]
        share = min(max((time - axis.left) / axis.span_s, 0.0), 1.0)
        return TimeWindow(span, (time - share * span, time))

    def moved(self, by: int, now: float, cells: int) -> TimeWindow:
        """The cursor so many cells to the right; at an edge the window goes along. It stands still then."""
        axis = self.axis(now, cells)
        cell = self.cursor_cell(now, cells) + by
        time = min(axis.middle(cell), max(now, axis.left))
        over = min(0, cell) + max(0, cell - (axis.cells - 1))
        goes_along = axis.middle(cell) <= now or time > axis.right
        return TimeWindow(self.span_s, (axis.left + over * axis.cell_s * goes_along, time))

    def panned(self, by: float, now: float, cells: int) -> TimeWindow:
        """The window moved by that part of its width, and the cursor with it, but not beyond now."""
        axis, time = self.axis(now, cells), self.cursor_time(now)
        shift = min(by * self.span_s, now - time) if by > 0 else by * self.span_s
        return TimeWindow(self.span_s, (axis.left + shift, time + shift))

    def with_cursor_at(self, time: float, now: float, cells: int) -> TimeWindow:
        """The cursor at this time, the window where it is."""
        return TimeWindow(self.span_s, (self.axis(now, cells).left, min(time, now)))


def snap_to_flow(at: float, axis: TimeAxis, begin: float, end: float) -> float:
    """`at`, or what is nearest to it of a flow that lived in the same cell: so that a short one can be looked at."""
    cell = axis.cell(at)
    if axis.cell(begin) == cell:
        at = max(at, begin)
    if axis.cell(end) == cell:
        at = min(at, end)
    return at


def window_around(begin: float, end: float) -> TimeWindow:
    """All of this time, and a little beside it; the cursor at its beginning."""
    span = max((end - begin) * 1.1, ZOOM_STEPS_S[0])
    return TimeWindow(min(span, ZOOM_STEPS_S[-1]), (begin - 0.05 * min(span, ZOOM_STEPS_S[-1]), begin))
