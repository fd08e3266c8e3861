"""TimeAxis maps times to cells; TimeWindow is the time span shown, and how it is zoomed, panned and moved."""

from __future__ import annotations

import math
from dataclasses import dataclass

ZOOM_STEPS_S = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0,
    3_600.0, 7_200.0, 18_000.0, 43_200.0, 86_400.0,
)  # fmt: skip
"""Widths of the window, from one zoom step to the next."""


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """A row of `cells` cells that begins at the Unix time `left` and covers `span_s` seconds."""

    left: float
    span_s: float
    cells: int

    @property
    def cell_s(self) -> float:
        """Seconds per cell."""
        return self.span_s / self.cells

    @property
    def right(self) -> float:
        """End of the last cell, Unix seconds."""
        return self.left + self.span_s

    def cell(self, time: float) -> int:
        """Return the cell of this time; below 0 or at least `cells` where it lies outside."""
        return math.floor((time - self.left) / self.cell_s)

    def begin(self, cell: float) -> float:
        """Return the time at which this cell begins."""
        return self.left + cell * self.cell_s

    def middle(self, cell: int) -> float:
        """Return the time in the middle of this cell."""
        return self.begin(cell + 0.5)


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """The time span to show. Without `fixed` it follows the time: its right end and the cursor are now."""

    span_s: float = 60.0
    fixed: tuple[float, float] | None = None
    """Left edge and the cursor's time, both Unix seconds; None while it follows."""

    @property
    def follows(self) -> bool:
        """Whether the right end is now."""
        return self.fixed is None

    def axis(self, now: float, cells: int) -> TimeAxis:
        """Return the axis in `cells` cells. A following window moves by whole cells, so old parts keep their shape."""
        cells = max(1, cells)
        if self.fixed is not None:
            return TimeAxis(self.fixed[0], self.span_s, cells)
        cell_s = self.span_s / cells
        return TimeAxis(math.ceil(now / cell_s) * cell_s - self.span_s, self.span_s, cells)

    def cursor_cell(self, now: float, cells: int) -> int:
        """Return the cell of the cursor."""
        axis = self.axis(now, cells)
        return max(0, min(axis.cell(self.cursor_time(now)), axis.cells - 1))

    def cursor_time(self, now: float) -> float:
        """Return the cursor's time, Unix seconds."""
        return self.fixed[1] if self.fixed is not None else now

    def zoomed(self, by: int, now: float, cells: int) -> TimeWindow:
        """Return the next wider (by > 0) or narrower window; the cursor keeps its time and its cell."""
        wider = [step for step in ZOOM_STEPS_S if step > self.span_s * 1.001]
        closer = [step for step in ZOOM_STEPS_S if step < self.span_s * 0.999]
        span = (wider[0] if wider else self.span_s) if by > 0 else (closer[-1] if closer else self.span_s)
        if self.fixed is None:
            return TimeWindow(span)
        axis, time = self.axis(now, cells), self.fixed[1]
        share = min(max((time - axis.left) / axis.span_s, 0.0), 1.0)
        return TimeWindow(span, (time - share * span, time))

    def moved(self, by: int, now: float, cells: int) -> TimeWindow:
        """Return a fixed window with the cursor `by` cells to the right; at an edge the window moves too."""
        axis = self.axis(now, cells)
        cell = self.cursor_cell(now, cells) + by
        time = min(axis.middle(cell), max(now, axis.left))
        beyond = min(0, cell) + max(0, cell - (axis.cells - 1))
        moves = axis.middle(cell) <= now or time > axis.right
        return TimeWindow(self.span_s, (axis.left + beyond * axis.cell_s * moves, time))

    def panned(self, by: float, now: float, cells: int) -> TimeWindow:
        """Return the window and the cursor moved by this share of the width, but not beyond now."""
        axis, time = self.axis(now, cells), self.cursor_time(now)
        shift = min(by * self.span_s, now - time) if by > 0 else by * self.span_s
        return TimeWindow(self.span_s, (axis.left + shift, time + shift))

    def with_cursor_at(self, time: float, now: float, cells: int) -> TimeWindow:
        """Return the same window, fixed, with the cursor at this time."""
        return TimeWindow(self.span_s, (self.axis(now, cells).left, min(time, now)))


def snap_to_flow(at: float, axis: TimeAxis, begin: float, end: float) -> float:
    """Return `at`, moved into the flow's lifetime where both are in the same cell, so that short flows can be seen."""
    cell = axis.cell(at)
    if axis.cell(begin) == cell:
        at = max(at, begin)
    if axis.cell(end) == cell:
        at = min(at, end)
    return at


def window_around(begin: float, end: float) -> TimeWindow:
    """Return a window that covers this time with a margin; the cursor is at its beginning."""
    span = max((end - begin) * 1.1, ZOOM_STEPS_S[0])
    return TimeWindow(min(span, ZOOM_STEPS_S[-1]), (begin - 0.05 * min(span, ZOOM_STEPS_S[-1]), begin))
