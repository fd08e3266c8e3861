"""Arrangement: filtered and sorted rows; numpy sorts a million in a fraction of a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.columns.columns import SocketColumn
from tcpwatch.model.columns.socket_values import Keys, Values
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.sockets.rows import Mark, Rows
from tcpwatch.model.states import State


@dataclass(frozen=True, slots=True, eq=False)
class Arrangement:
    """Sorted rows that match a filter. A place is a position in the table; 0 is the top."""

    rows: Rows
    closed: Rows
    filter: Filter
    column: SocketColumn
    reverse: bool
    order: NDArray[np.intp]
    """Place → index into `rows`, or len(rows) plus the index into `closed`."""
    shown: int
    """Live rows that match; the other places are closed rows."""

    def __len__(self) -> int:
        return len(self.order)

    @property
    def total(self) -> int:
        """Return the number of live rows before filtering."""
        return len(self.rows)

    def cookie(self, place: int) -> int:
        """Return the cookie at this place. Raises IndexError after the last place."""
        index = int(self.order[place])
        live = len(self.rows)
        return int(self.rows.cookie[index] if index < live else self.closed.cookie[index - live])

    def place(self, cookie: int) -> int | None:
        """Return the place of the row with this cookie; None if it is not shown."""
        index = self.rows.find(cookie)
        if index is None:
            index = self.closed.find(cookie)
            if index is None:
                return None
            index += len(self.rows)
        places = np.flatnonzero(self.order == index)
        return int(places[0]) if len(places) else None

    def lines(self, first: int, last: int, columns: Sequence[SocketColumn], exact: bool) -> list[SocketLine]:
        """Return the lines at the places `first` … `last - 1` that exist; `exact` as in SocketColumn.show."""
        indices = self.order[max(first, 0) : max(last, 0)]
        live = indices < len(self.rows)
        live_lines = iter(_lines(self.rows.take(indices[live]), columns, exact))
        if live.all():
            return list(live_lines)
        closed_lines = iter(_lines(self.closed.take(indices[~live] - len(self.rows)), columns, exact))
        return [next(live_lines if is_live else closed_lines) for is_live in live.tolist()]


@dataclass(frozen=True, slots=True)
class SocketLine:
    """One row as text, one cell per requested column."""

    mark: Mark
    state: State
    cells: tuple[str, ...]
    plain: tuple[str, ...]
    """The cells without names and rounding: a port number may fit where the service name does not."""


def _lines(rows: Rows, columns: Sequence[SocketColumn], exact: bool) -> list[SocketLine]:
    values = [column.values(rows) for column in columns]
    plain = _texts(columns, values, exact=True)
    cells = plain if exact else _texts(columns, values, exact=False)
    marks, states = map(Mark, rows.mark.tolist()), map(State, rows.state.tolist())
    return [SocketLine(*line) for line in zip(marks, states, cells, plain, strict=True)]


def _texts(columns: Sequence[SocketColumn], values: Sequence[Values], exact: bool) -> list[tuple[str, ...]]:
    by_column = zip(columns, values, strict=True)
    return list(zip(*([column.show(value, exact) for value in some] for column, some in by_column), strict=True))


def arrange(rows: Rows, closed: Rows, filter_: Filter, column: SocketColumn, reverse: bool = False) -> Arrangement:
    """Return the rows that match, sorted by the column, then by cookie, also in reverse. Both Rows are by cookie."""
    kept, kept_closed = np.flatnonzero(filter_.mask(rows)), np.flatnonzero(filter_.mask(closed))
    with_owners = _one_owner_list(rows, closed) if len(kept_closed) else (rows, closed)
    keys, indices = _keys(column, with_owners[0], kept), kept
    if len(kept_closed):
        by_cookie = np.insert(
            np.arange(len(kept)),
            np.searchsorted(rows.cookie[kept], closed.cookie[kept_closed]),
            np.arange(len(kept), len(kept) + len(kept_closed)),
        )
        pairs = zip(keys, _keys(column, with_owners[1], kept_closed), strict=True)
        keys = tuple(np.concatenate(pair)[by_cookie] for pair in pairs)
        indices = np.concatenate((kept, kept_closed + len(rows)))[by_cookie]
    order = indices[sort_order(keys, len(indices), reverse)]
    order.flags.writeable = False
    return Arrangement(rows, closed, filter_, column, reverse, order, len(kept))


def _keys(column: SocketColumn, rows: Rows, kept: NDArray[np.intp]) -> Keys:
    """Return the sort keys of the kept rows; if many are kept, select keys, not rows: rows are slower to copy."""
    if len(kept) < len(rows) // 8:
        return column.sort(rows.take(kept))
    keys = column.sort(rows)
    return keys if len(kept) == len(rows) else tuple(key[kept] for key in keys)


def _one_owner_list(rows: Rows, closed: Rows) -> tuple[Rows, Rows]:
    """Return both with the same list of owners: sort keys by owner are ranks within the list."""
    if rows.owners is closed.owners:
        return rows, closed
    codes = np.where(closed.owner >= 0, closed.owner + len(rows.owners), closed.owner).astype(np.int32)
    both = [*rows.owners, *closed.owners]
    return replace(rows, owners=both), replace(closed, owners=both, owner=codes)


def sort_order(keys: Keys, size: int, reverse: bool) -> NDArray[np.intp]:
    """Return the indices that sort by the keys, the first key first; equal rows keep their order, also in reverse."""
    words = _packed([_as_unsigned(key) for key in keys])
    if size == 0 or not words:
        return np.arange(size)
    if reverse:
        words = [word.max() - word for word in words]
    if len(words) > 1:
        return np.lexsort(words[::-1])
    word = words[0]
    if word.max() < 1 << 16:
        word = word.astype(np.uint16)  # radix sort: ten times faster
    return np.argsort(word, kind="stable")


def _as_unsigned(key: NDArray[Any]) -> NDArray[np.uint64]:
    """Return numbers from 0 on that sort in the same order, as a contiguous copy: strided columns are slow."""
    if len(key) == 0:
        return np.empty(0, np.uint64)
    unsigned: NDArray[np.uint64]
    if key.dtype.kind == "f":
        bits = (key.astype(np.float64) + 0.0).view(np.uint64)  # + 0.0 makes -0.0 equal to 0.0
        sign = np.uint64(1 << 63)
        unsigned = np.where(bits & sign, ~bits, bits | sign)
    elif key.dtype.kind == "i":
        unsigned = key.astype(np.int64).view(np.uint64) ^ np.uint64(1 << 63)
    else:
        unsigned = key.astype(np.uint64)
    unsigned -= unsigned.min()
    return unsigned


def _packed(keys: Sequence[NDArray[np.uint64]]) -> list[NDArray[np.uint64]]:
    """Return the keys packed into as few words as their ranges allow: sorting one word is fast."""
    words: list[NDArray[np.uint64]] = []
    room = 0
    for key in keys:
        bits = int(key.max(initial=0)).bit_length()
        if bits == 0:
            continue
        if bits <= room:
            words[-1] = words[-1] << np.uint64(bits) | key
            room -= bits
        else:
            words.append(key)
            room = 64 - bits
    return words
