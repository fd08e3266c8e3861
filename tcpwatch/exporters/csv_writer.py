"""The CSV writer (RFC 4180, but lines end with a bare newline). Text is made in blocks: memory stays bounded."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.columns.columns import EXPORTED, exported_values
from tcpwatch.model.sockets.rows import Rows

BLOCK = 2_000
"""Lines per block. Other threads wait while a block becomes text."""


_FORMULA = frozenset("=+-@\t\r\n＝＋－＠")
"""With these, a text would be a formula for a spreadsheet, and so code: a name is what a process, or a user, chose."""


def write_csv(keys: Iterable[str], lines: Iterable[Iterable[Any]]) -> Iterator[str]:
    """Yield a header line and the lines as CSV text, BLOCK lines at a time.

    None becomes an empty field, and a list numbers with spaces between them. A text that begins with one of _FORMULA
    begins with an apostrophe instead; numbers stay as they are.
    """
    left = iter(lines)
    block = [keys, *islice(left, BLOCK)]
    while block:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(map(_field, line) for line in block)
        yield text.getvalue()
        block = list(islice(left, BLOCK))


def records_csv(records: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield records that share their keys as CSV text; nothing, and no header, without records."""
    left = iter(records)
    first = next(left, None)
    if first is not None:
        yield from write_csv(first, (record.values() for record in chain((first,), left)))


def sockets_csv(rows: Rows, order: NDArray[np.intp], unsupported: Collection[str] = ()) -> Iterator[str]:
    """Yield the exported columns of these rows, in this order, as CSV text; `unsupported` columns are empty."""
    return write_csv((column.key for column in EXPORTED), _socket_lines(rows, order, unsupported))


def _socket_lines(rows: Rows, order: NDArray[np.intp], unsupported: Collection[str]) -> Iterator[tuple[Any, ...]]:
    for first in range(0, len(order), BLOCK):
        columns = exported_values(rows.take(order[first : first + BLOCK]), unsupported)
        yield from zip(*columns, strict=True)


def _field(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if value[:1] in _FORMULA else value
    return " ".join(map(str, value)) if isinstance(value, list) else value
