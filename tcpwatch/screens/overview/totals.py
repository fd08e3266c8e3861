"""Totals of flows: how many open and end, their lifetimes and bytes, in a line or in tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tcpwatch import units
from tcpwatch.model.sockets.flow_totals import DECADES, PERCENTILES, TOP, Distribution, FlowTotals, Totals
from tcpwatch.screens.overview.counters import grid_columns
from tcpwatch.units.columns import columns_that_fit
from tcpwatch.widgets.charts.bars import sparkline
from tcpwatch.widgets.lines import Line, cells_of, fit, title_rule
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import Entry, Section

MIN_WIDTH = 100
"""Below this width there is no room for the tables."""
USUAL_ROWS, MIN_ROWS = 5, 2
"""Rows of a table: as many are enough while others need the room, and fewer are not worth showing."""
_INDENT = "   "
_WORD, _VALUE = 11, 8
_LABELS = "lifetime p50/90/99 ", "life p50/90/99 "
"""The first that fits into one line."""
_NAME, _LONGEST = 26, 47
"""Fewest cells for a name, and as many as any address needs."""
_GAP = 6
"""Most extra cells between columns on a very wide screen."""
_PARTS = len(DECADES) + 1
_HIGHEST = 7
"""Levels of a sparkline above its lowest."""


def totals_lines(flows: FlowTotals | None, width: int, colours: Palette) -> list[Line]:
    """Return `new flows  61/s  ended  60/s  lifetime p50/90/99 ≤12 ms ≤340 ms ≤1.2 s`; empty if unknown."""
    if flows is None:
        return []
    totals, cells = flows.all, grid_columns(width)[1]
    head: Line = (
        (_INDENT, colours.plain),
        *_rate("new flows", totals.opened_per_s, cells, colours),
        *_rate("ended", totals.ended_per_s, cells, colours),
    )
    lifetimes = "".join(fit(totals.lifetime_text(name), _VALUE) for name in PERCENTILES)[:-1]
    for label in _LABELS:
        lifetime: Line = (
            (label, colours.plain),
            (lifetimes, colours.plain if totals.lifetime_ms.count else colours.dim),
        )
        if len(_INDENT) + 2 * cells + cells_of(lifetime) < width:
            return [(*head, *lifetime)]
    return [head, ((_INDENT, colours.plain), *lifetime)]


def _rate(word: str, per_s: float, cells: int, colours: Palette) -> Line:
    value = fit(f"{units.rate(per_s)}/s", cells - _WORD)
    return (fit(word, _WORD), colours.plain), (value, colours.plain if per_s else colours.dim)


@dataclass(frozen=True, slots=True)
class _Column:
    head: str
    cells: int
    priority: int
    """Columns of a high number are left out first."""
    figure: Callable[[Totals], str]


def _lifetime(figure: str) -> Callable[[Totals], str]:
    return lambda totals: totals.lifetime_text(figure)


def _size(figure: str) -> Callable[[Totals], str]:
    return lambda totals: units.size(getattr(totals.bytes, figure))


_COLUMNS = (
    _Column("opened/s", 9, 7, lambda totals: units.rate(totals.opened_per_s)),
    _Column("ended/s", 8, 0, lambda totals: units.rate(totals.ended_per_s)),
    _Column("life <ms·s··h··", 16, 1, lambda totals: decade_sparkline(totals.lifetime_ms)),
    _Column("shortest", 9, 6, _lifetime("least")),
    _Column("p50", 8, 2, _lifetime("p50")),
    _Column("p90", 8, 9, _lifetime("p90")),
    _Column("p99", 8, 3, _lifetime("p99")),
    _Column("longest", 8, 4, _lifetime("most")),
    _Column("bytes 0B··k··M··", 17, 5, lambda totals: decade_sparkline(totals.bytes)),
    _Column("p50", 7, 8, _size("p50")),
    _Column("p99", 7, 10, _size("p99")),
    _Column("largest", 8, 11, _size("most")),
)
"""The scales in the heads are above the cells they name: below 1 ms; from 1 ms, 1 s, 1,000 s; no byte; ..."""


def decade_sparkline(spread: Distribution) -> str:
    """Return one cell per decade, scaled to the largest; a cell with any flow is higher than an empty one."""
    most = max(spread.histogram, default=0)
    if not most:
        return units.UNKNOWN
    heights = [count and max(1.0, _HIGHEST * count / most) for count in spread.histogram]
    return sparkline(heights, _PARTS, _PARTS, from_zero=True)


def tables_height(flows: FlowTotals | None, width: int, rows: int = MIN_ROWS) -> int:
    """Return the lines of both tables with this number of rows each; 0 if there is nothing to show or no room."""
    tables = sum(map(bool, (flows.by_service, flows.by_process))) if flows is not None else 0
    return tables * (1 + rows) if width >= MIN_WIDTH else 0


def tables_lines(flows: FlowTotals, width: int, room: int, colours: Palette) -> list[Line]:
    """Return the tables by service and by process, the busiest first, in at most `room` lines."""
    named = [(title, some) for title, some in (("service", flows.by_service), ("process", flows.by_process)) if some]
    rows = room // max(1, len(named)) - 1
    return [line for title, some in named for line in _table(title, some, rows, width, colours)]


def _table(title: str, totals: Sequence[Totals], rows: int, width: int, colours: Palette) -> list[Line]:
    columns = _columns(width)
    name = width - len(_INDENT) - sum(column.cells for column in columns) - 1
    heads = "".join(fit(column.head, column.cells, right=True) for column in columns)
    shown = totals[:rows]
    # No more than TOP are listed by the model.
    count = f" ({len(totals)})" if len(shown) == len(totals) < TOP else f", top {len(shown)}"
    head = title_rule(f"Flows by {title}{count}", width, colours, heads)
    return [head, *(_row(total, name, columns, colours) for total in shown)]


def _columns(width: int) -> list[_Column]:
    """Return the columns that fit, set apart where there is room."""
    free = width - len(_INDENT) - _NAME - 1
    kept = columns_that_fit(_COLUMNS, free, lambda column: column.cells, lambda column: column.priority)
    free -= sum(column.cells for column in kept)
    gap = min(_GAP, max(0, free + _NAME - _LONGEST) // len(kept))
    return [replace(column, cells=column.cells + gap) for column in kept]


def _row(total: Totals, name: int, columns: Sequence[_Column], colours: Palette) -> Line:
    figures = "".join(fit(column.figure(total), column.cells, right=True) for column in columns)
    named = fit(total.name or units.UNKNOWN, name, middle=True)
    return (_INDENT + named, colours.plain), (figures, colours.plain)


def totals_help_section() -> Section:
    """Return what the help says about this screen."""
    return Section("Flows", [
        Entry("", "Flows that opened and ended in the last minute, also those between two polls; the busiest services "
              "and processes first. Figures are within 6 %."),
        Entry("service", "The local port where we are the server, the peer's address and port where we are the client"),
        Entry("lifetime", "From the first state to the end, without TIME_WAIT. ≤: upper bound, as not every begin and "
              "end was seen when it happened; the histogram then shows the upper bounds."),
        Entry("<ms·s··h··", "Number of flows by lifetime, one cell per decade: less than 1 ms, 10 ms, 100 ms, 1 s, "
              "10 s, 100 s, 17 min, 2.8 h, 28 h, and longer. ms, s and h stand where these begin, h at 17 min."),
        Entry("0B··k··M··", "Number of flows by bytes received and sent, one cell per decade: none, less than "
              "10 bytes, 100, 1,000 (k), 10 k, 100 k, 1 M, 10 M, 100 M, and more"),
        Entry("▁▂▄█", "▁ no flow, ▂ at least one, █ the maximum of this row"),
    ], 11)  # fmt: skip
