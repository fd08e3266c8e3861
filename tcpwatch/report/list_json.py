"""`tcpwatch list` as JSON lines or CSV: one row per socket, with the exported columns.

Text is made in blocks: memory stays bounded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.exporters.csv_writer import sockets_csv
from tcpwatch.model.columns.columns import BY_KEY, EXPORTED, exported_values, unsupported_columns
from tcpwatch.model.query.arrangement import sort_order
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.view import View

BLOCK = 5_000
"""Rows per block of text."""


def in_order(rows: Rows, kept: NDArray[np.bool_] | None = None) -> NDArray[np.intp]:
    """Return the indices of the kept rows (default: all), sorted by state, local address and remote address.

    Rows with equal addresses (SO_REUSEPORT) are in the order of their cookies, so that listings are comparable.
    """
    where = np.arange(len(rows)) if kept is None else np.flatnonzero(kept)
    chosen = rows.take(where)
    keys = tuple(key for name in ("state", "local", "remote") for key in BY_KEY[name].sort(chosen))
    return where[sort_order(keys, len(where), reverse=False)]


def blocks(rows: Rows, order: NDArray[np.intp]) -> Iterator[Rows]:
    """Yield the rows in this order, BLOCK at a time."""
    for begin in range(0, len(order), BLOCK):
        yield rows.take(order[begin : begin + BLOCK])


def as_json(view: View, order: NDArray[np.intp]) -> Iterator[str]:
    """Yield blocks of one JSON object per line; other characters than ASCII are escaped."""
    unknown = unsupported_columns(view.sample.capabilities)
    line = "{" + ", ".join(f"{json.dumps(column.key)}: %s" for column in EXPORTED) + "}\n"
    for block in blocks(view.rows, order):
        texts = map(_json_texts, exported_values(block, unknown))
        yield "".join([line % row for row in zip(*texts, strict=True)])


def _json_texts(values: list[Any]) -> list[str]:
    """Return each value as JSON: encode all in one call, separated by newlines, which JSON strings never contain."""
    texts = json.dumps(values, separators=("\n", ": "))[1:-1].split("\n")
    if len(texts) != len(values):  # lists contain separators, too
        return [json.dumps(value) for value in values]
    return texts


def as_csv(view: View, order: NDArray[np.intp]) -> Iterator[str]:
    """Yield a header line, then one line per row."""
    return sockets_csv(view.rows, order, unsupported_columns(view.sample.capabilities))
