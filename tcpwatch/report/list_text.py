"""`tcpwatch list` as text: aligned columns, at most as wide as the terminal."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.columns.columns import BY_KEY, SocketColumn, unsupported_columns
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.view import View
from tcpwatch.report.ansi import BOLD, STATE_COLOURS, cell_width, coloured, fitted
from tcpwatch.report.list_json import blocks
from tcpwatch.units.columns import columns_that_fit

SHOWN = (
    "state", "local", "remote", "recv_queue", "send_queue", "owner", "timers", "retransmits", "role", "user_or_uid",
)  # fmt: skip
"""Columns with values after one poll."""
GAP = "  "

Widths = list[tuple[SocketColumn, int]]


def as_text(
    view: View, order: NDArray[np.intp], width: int | None = None, exact: bool = False, colour: bool = False
) -> Iterator[str]:
    """Yield a header line, then blocks of one line per row; `width` None: no limit.

    Rows are converted to text twice, first to measure the columns: memory stays bounded.
    """
    columns = [BY_KEY[key] for key in SHOWN if key not in unsupported_columns(view.sample.capabilities)]
    natural = [cell_width(column.title) for column in columns]
    for block in blocks(view.rows, order):
        widest = [max(map(cell_width, set(_texts(column, block, exact)))) for column in columns]
        natural = list(map(max, natural, widest))
    layout = fit_columns(list(zip(columns, natural, strict=True)), width)
    yield coloured(_line([column.title for column, _ in layout], layout), BOLD, colour) + "\n"
    for block in blocks(view.rows, order):
        yield _lines(block, layout, exact, colour)


def fit_columns(natural: Widths, room: int | None) -> Widths:
    """Return the columns that fit into `room` cells, and their widths.

    Without room for all natural widths, shorten columns down to their minimum, then drop the least important ones.
    """
    if room is None:
        return natural
    least = [(column, min(width, column.width)) for column, width in natural]
    gap = len(GAP)
    fitting = columns_that_fit(least, room + gap, lambda pair: pair[1] + gap, lambda pair: pair[0].priority + 1)
    least = fitting or least[:1]
    spare, wanted, given = room - _total(least), dict(natural), dict(least)
    for column, _ in sorted(least, key=lambda pair: pair[0].priority):
        more = max(0, min(spare, wanted[column] - given[column]))
        given[column] += more
        spare -= more
    if spare < 0:  # even the one column left is too wide
        given = {column: max(1, room) for column in given}
    return [(column, given[column]) for column, _ in least]


def _total(widths: Widths) -> int:
    return sum(width for _, width in widths) + len(GAP) * (len(widths) - 1)


def _texts(column: SocketColumn, rows: Rows, exact: bool) -> list[str]:
    values = column.values(rows)
    shown = {value: column.show(value, exact) for value in set(values)}  # in most columns, few are distinct
    return [shown[value] for value in values]


def _lines(rows: Rows, layout: Widths, exact: bool, colour: bool) -> str:
    cells = []
    for column, width in layout:
        texts = _texts(column, rows, exact)
        shown = {text: fitted(text, width, column.right) for text in set(texts)}
        cells.append([shown[text] for text in texts])
    lines = [GAP.join(row).rstrip() for row in zip(*cells, strict=True)]
    if colour:
        codes = [STATE_COLOURS[state] for state in rows.state.tolist()]
        end = layout[0][1]  # the state comes first
        lines = [coloured(line[:end], code, True) + line[end:] for line, code in zip(lines, codes, strict=True)]
    return "\n".join(lines) + "\n"


def _line(texts: tuple[str, ...] | list[str], layout: Widths) -> str:
    parts = [fitted(words, width, column.right) for words, (column, width) in zip(texts, layout, strict=True)]
    return GAP.join(parts).rstrip()
