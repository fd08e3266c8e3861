"""`tcpwatch list` for programs: a row per socket, as JSON lines or CSV. Keys and values come from model.columns.

Text is made block by block, so that the memory of a listing does not grow with the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.exporters.csv_writer import sockets_csv
from tcpwatch.model.columns.columns import BY_KEY, EXPORTED, SocketColumn, unsupported_columns
from tcpwatch.model.query.arrangement import sort_order
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.view import View

BLOCK = 5_000
"""Rows that become text at once."""


def in_order(rows: Rows, kept: NDArray[np.bool_] | None = None) -> NDArray[np.intp]:
    """Indices of the kept rows (all, unless told) by state in life order, then local, then remote end.

    Equal ends (SO_REUSEPORT) keep the order of their cookies, from listing to listing.
    """
    where = np.arange(len(rows)) if kept is None else np.flatnonzero(kept)
    chosen = rows.take(where)
    keys = tuple(key for name in ("state", "local", "remote") for key in BY_KEY[name].sort(chosen))
    return where[sort_order(keys, len(where), reverse=False)]


def blocks(rows: Rows, order: NDArray[np.intp]) -> Iterator[Rows]:
    """The rows in this order, BLOCK at a time."""
    for begin in range(0, len(order), BLOCK):
        yield rows.take(order[begin : begin + BLOCK])


def as_json(view: View, order: NDArray[np.intp]) -> Iterator[str]:
    """One object a line, in pieces of many lines. ASCII: what is not, is escaped as JSON has it."""
    unknown = unsupported_columns(view.sample.capabilities)
    line = "{" + ", ".join(f"{json.dumps(column.key)}: %s" for column in EXPORTED) + "}\n"
    for block in blocks(view.rows, order):
        texts = [_json_texts(_values(column, block, unknown)) for column in EXPORTED]
        yield "".join([line % row for row in zip(*texts, strict=True)])


def _values(column: SocketColumn, rows: Rows, unknown: frozenset[str]) -> list[Any]:
    return [None] * len(rows) if column.key in unknown else column.values(rows)


def _json_texts(values: list[Any]) -> list[str]:
    """Each value as JSON. One call encodes them all: JSON has no newline within a string, so one can stand between."""
    texts = json.dumps(values, separators=("\n", ": "))[1:-1].split("\n")
    if len(texts) != len(values):  # a value is a list, with newlines of its own
        return [json.dumps(value) for value in values]
    return texts


def as_csv(view: View, order: NDArray[np.intp]) -> Iterator[str]:
    """A header line of the keys, then a line per row."""
    return sockets_csv(view.rows, order, unsupported_columns(view.sample.capabilities))
