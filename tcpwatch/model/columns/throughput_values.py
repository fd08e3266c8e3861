"""Throughput columns: values for programs, sort keys and text, as in socket_values. Unknown values sort first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.model.columns.socket_values import Keys, Values
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.sockets.throughput import Throughput

Figure = Callable[[Throughput, NDArray[np.uint64]], NDArray[Any]]
"""A figure of the flows with these cookies: NaN, 0 or empty where it is not known."""
ValuesAndKeys = tuple[Callable[[Rows], Values], Callable[[Rows], Keys]]


def figures(figure: Figure, per: float = 1, digits: int = 1) -> ValuesAndKeys:
    """Return values in units of `per`, rounded to `digits`, and sort keys, of a figure in floats."""
    return _column(figure, lambda value: round(value / per, digits) if value == value else None)


def counts(figure: Figure) -> ValuesAndKeys:
    """Return values and sort keys of a figure in floats that are whole numbers."""
    return _column(figure, lambda value: int(value) if value == value else None)


def words(figure: Figure, word: Callable[[Any], str | None]) -> ValuesAndKeys:
    """Return values and sort keys of a figure in codes or bytes, each shown as a word."""
    return _column(figure, word)


def _column(figure: Figure, value: Callable[[Any], Any]) -> ValuesAndKeys:
    def values(rows: Rows) -> Values:
        return list(map(value, figure(rows.throughput, rows.cookie).tolist()))

    def keys(rows: Rows) -> Keys:
        raw = figure(rows.throughput, rows.cookie)
        if raw.dtype.kind == "f":
            return (np.nan_to_num(raw, copy=False, nan=-1),)
        if raw.dtype.kind == "S":  # numbers are sorted faster than text
            return tuple(raw.view(">u8").reshape(-1, raw.itemsize // 8).T)
        return (raw,)

    return values, keys


def show_ms(value: float | None, exact: bool) -> str:
    """Return milliseconds with three digits, `0.045 ms`, `1.25 ms`, `256 ms`; exact: all digits."""
    if value is None:
        return units.UNKNOWN
    return f"{value:g} ms" if exact else f"{value:.{_digits(value)}f} ms"


def _digits(value: float) -> int:
    return next((digits for digits, least in enumerate((99.95, 9.995, 0.9995)) if value >= least), 3)
