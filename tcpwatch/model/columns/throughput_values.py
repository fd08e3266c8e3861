"""What the columns tell of a flow's throughput: values for programs, sort keys and text, as in `cells`.

What is not known is sorted below everything that is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.columns.socket_values import Keys, Values
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.sockets.throughput import SendLimit, Throughput
from tcpwatch.units import text

ThroughputFigure = Callable[[Throughput, NDArray[np.uint64]], NDArray[np.float64]]
"""A figure of each of these cookies, NaN where it is not known."""

_LIMITS = [limit.word for limit in SendLimit]


def figures(
    figure: ThroughputFigure, per: float = 1, digits: int = 1
) -> tuple[Callable[[Rows], Values], Callable[[Rows], Keys]]:
    """Values, in units of `per`, and sort keys."""

    def values(rows: Rows) -> Values:
        found = figure(rows.throughput, rows.cookie).tolist()
        return [round(value / per, digits) if value == value else None for value in found]

    return values, _keys(figure)


def counts(figure: ThroughputFigure) -> tuple[Callable[[Rows], Values], Callable[[Rows], Keys]]:
    """The same, of what is counted in whole numbers."""

    def values(rows: Rows) -> Values:
        found = figure(rows.throughput, rows.cookie).tolist()
        return [int(value) if value == value else None for value in found]

    return values, _keys(figure)


def _keys(figure: ThroughputFigure) -> Callable[[Rows], Keys]:
    def keys(rows: Rows) -> Keys:
        return (np.nan_to_num(figure(rows.throughput, rows.cookie), copy=False, nan=-1),)

    return keys


def limits(rows: Rows) -> Values:
    """Words for what holds sending back."""
    return [_LIMITS[limit] for limit in rows.throughput.send_limits(rows.cookie).tolist()]


def limit_keys(rows: Rows) -> Keys:
    """From the application to the network."""
    return (rows.throughput.send_limits(rows.cookie),)


def show_ms(value: float | None, exact: bool) -> str:
    """Milliseconds: `0.045 ms`, `1.25 ms`, `23.5 ms`, `256 ms`; exact: as they are."""
    if value is None:
        return text.UNKNOWN
    return f"{value:g} ms" if exact else f"{value:.{_digits(value)}f} ms"


def _digits(value: float) -> int:
    return next((digits for digits, least in enumerate((99.95, 9.995, 0.9995)) if value >= least), 3)


def show_count(value: Any, exact: bool) -> str:
    """As text.count."""
    return text.count(value, exact)
