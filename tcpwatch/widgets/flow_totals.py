"""How many flows begin and end and how long they live: a line for every screen, tables where there is room."""

from __future__ import annotations

from collections.abc import Sequence

from tcpwatch import text
from tcpwatch.model.flow_totals import FlowTotals, Totals
from tcpwatch.model.totals_text import PERCENTILES, lifetime
from tcpwatch.widgets.counters import grid
from tcpwatch.widgets.lines import Line, fit
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import GUTTER, side_by_side

NARROWEST = 120
"""Below this width there is no room for the tables."""
TOP = 5
"""Rows of a table."""
_INDENT = "   "
_WORD, _VALUE = 11, 8
_LIFE = "life p50/90/99 "
_COLUMN = 10


def totals_lines(flows: FlowTotals | None, width: int, colours: Palette) -> list[Line]:
    """`new flows  61/s  ended  60/s  life p50/90/99 ≤12 ms ≤340 ms ≤1.2 s`, below the counters; where it is known."""
    if flows is None:
        return []
    totals, cells = flows.all, grid(width)[1]
    head: Line = (
        (_INDENT, colours.plain),
        *_rate("new flows", totals.opened_per_s, cells, colours),
        *_rate("ended", totals.ended_per_s, cells, colours),
    )
    lived = "".join(fit(lifetime(totals, name), _VALUE) for name in PERCENTILES)[:-1]
    life: Line = ((_LIFE, colours.plain), (lived, colours.plain if totals.lifetime_ms.count else colours.dim))
    if len(_INDENT) + 2 * cells + len(_LIFE) + len(lived) < width:
        return [(*head, *life)]
    return [head, ((_INDENT, colours.plain), *life)]


def _rate(word: str, per_s: float, cells: int, colours: Palette) -> Line:
    value = fit(f"{text.rate(per_s)}/s", cells - _WORD)
    return (fit(word, _WORD), colours.plain), (value, colours.plain if per_s else colours.dim)


def totals_tables(flows: FlowTotals, width: int, colours: Palette) -> list[Line]:
    """By service and by process, side by side; the busiest first, TOP at most. Empty where nothing ended."""
    count = min(TOP, max(len(flows.by_service), len(flows.by_process)))
    if not count or width < NARROWEST:
        return []
    cells = (width - GUTTER) // 2
    tables = [
        _table(title, some[:TOP], cells, colours)
        for title, some in (("service", flows.by_service), ("process", flows.by_process))
    ]
    return list(side_by_side(tables, cells, colours))


def _table(title: str, rows: Sequence[Totals], width: int, colours: Palette) -> list[Line]:
    name = width - len(_INDENT) - 4 * _COLUMN - 1
    heads = "".join(fit(head, _COLUMN, right=True) for head in ("ended/s", "life p50", "life p99", "bytes p50"))
    return [((f"{_INDENT}{fit(title, name)}{heads}", colours.dim),), *(_row(one, name, colours) for one in rows)]


def _row(one: Totals, name: int, colours: Palette) -> Line:
    figures = text.rate(one.ended_per_s), lifetime(one, "p50"), lifetime(one, "p99"), text.size(one.bytes.p50)
    values = "".join(fit(figure, _COLUMN, right=True) for figure in figures)
    return (_INDENT + fit(one.name or text.UNKNOWN, name), colours.plain), (values, colours.plain)
