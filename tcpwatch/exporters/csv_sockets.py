"""Sockets as CSV (RFC 4180, lines ended by a newline alone): the exported columns, block by block."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.columns.columns import EXPORTED
from tcpwatch.model.sockets.rows import Rows

BLOCK = 2_000
"""Rows that become text at once: memory does not grow with the table, and another thread waits for few of them."""


def sockets_csv(rows: Rows, order: NDArray[np.intp], unknown: Collection[str] = ()) -> Iterator[str]:
    """A line of the columns' keys, then a line for each row in this order; `unknown` columns stay empty."""
    yield ",".join(column.key for column in EXPORTED) + "\n"
    for first in range(0, len(order), BLOCK):
        block = rows.take(order[first : first + BLOCK])
        columns = [
            [None] * len(block) if column.key in unknown else map(_cell, column.values(block)) for column in EXPORTED
        ]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(zip(*columns, strict=True))
        yield text.getvalue()


def _cell(value: Any) -> Any:
    """The writer leaves None empty; a list is joined by blanks."""
    return " ".join(map(str, value)) if isinstance(value, list) else value
