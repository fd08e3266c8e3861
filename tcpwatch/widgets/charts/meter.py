"""Meters: a bar and a figure that show how much of a limit is used."""

from __future__ import annotations

from rich.style import Style

from tcpwatch import units
from tcpwatch.widgets.lines import Line, fit
from tcpwatch.widgets.palette import Palette

WARNING_SHARE = 0.8
"""Share of a limit from which on a meter warns."""


def usage_text(value: int | None, limit: int | None, exact: bool) -> str:
    """Return `513/512`, or `–` when neither is known."""
    if value is None and limit is None:
        return units.UNKNOWN
    return f"{units.count(value, exact)}/{units.count(limit, exact)}"


def limit_style(value: int | None, limit: int | None, colours: Palette) -> Style:
    """Return red for a value over its limit, amber for one near it, dim when either is unknown."""
    if value is None or limit is None:
        return colours.dim
    if value > limit:
        return colours.alarm
    return colours.warning if value >= WARNING_SHARE * max(limit, 1) else colours.plain


def meter(
    value: int | None,
    limit: int | None,
    bar_cells: int,
    figure_cells: int,
    colours: Palette,
    exact: bool,
    right: bool = False,
) -> Line:
    """Return a bar of `bar_cells` cells, a blank, and `513/512` in `figure_cells` cells.

    The bar is empty where the limit is unknown; a limit of 0 counts as 1, since one connection fits into such a queue.
    """
    style = limit_style(value, limit, colours)
    share = None if value is None or limit is None else value / max(limit, 1)
    figure = fit(usage_text(value, limit, exact), figure_cells, right)
    return (units.bar(share, bar_cells), style), (" " + figure, style if value else colours.dim)
