"""Arrangement: which sockets a table shows, and in which order; for a million rows in a fraction of a second."""

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
    """Rows that pass a filter, sorted. A place is a position in the table, 0 the topmost."""

    rows: Rows
    closed: Rows
    filter: Filter
    column: SocketColumn
    reverse: bool
    order: NDArray[np.intp]
    """For each place the index into `rows`; from len(rows) on, less that, into `closed`."""
    shown: int
    """Live rows that pass; the other places are closed ones."""

    def __len__(self) -> int:
        return len(self.order)

    @property
    def total(self) -> int:
        """Live rows, whether they pass or not."""
        return len(self.rows)

    def cookie(self, place: int) -> int:
        """The flow at this place; raises IndexError beyond the last."""
        index = int(self.order[place])
        live = len(self.rows)
        return int(self.rows.cookie[index] if index < live else self.closed.cookie[index - live])

    def place(self, cookie: int) -> int | None:
        """Where this flow is, or None where it is not shown."""
        index = self.rows.find(cookie)
        if index is None:
            index = self.closed.find(cookie)
            if index is None:
                return None
            index += len(self.rows)
        found = np.flatnonzero(self.order == index)
        return int(found[0]) if len(found) else None

    def lines(self, first: int, last: int, columns: Sequence[SocketColumn], exact: bool) -> list[SocketLine]:
        """Text for the places `first` … `last - 1`, as far as there are any; `exact` as in Column.show."""
        indices = self.order[max(first, 0) : max(last, 0)]
        live = indices < len(self.rows)
        alive = iter(_lines(self.rows.take(indices[live]), columns, exact))
        if live.all():
            return list(alive)
        ended = iter(_lines(self.closed.take(indices[~live] - len(self.rows)), columns, exact))
        return [next(alive if lives else ended) for lives in live.tolist()]


@dataclass(frozen=True, slots=True)
class SocketLine:
    """One row as text: a cell for each column that was asked for."""

    mark: Mark
    state: State
    cells: tuple[str, ...]
    plain: tuple[str, ...]
    """The same without names and rounding: where a service's name does not fit, its number may."""


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
    """What passes, by the column's sort keys; equal rows by cookie, also when reversed. Both Rows by cookie."""
    kept, gone = np.flatnonzero(filter_.mask(rows)), np.flatnonzero(filter_.mask(closed))
    live, ended = _one_owner_list(rows, closed) if len(gone) else (rows, closed)
    keys, indices = _keys(column, live, kept), kept
    if len(gone):
        by_cookie = np.insert(
            np.arange(len(kept)),
            np.searchsorted(rows.cookie[kept], closed.cookie[gone]),
            np.arange(len(kept), len(kept) + len(gone)),
        )
        pairs = zip(keys, _keys(column, ended, gone), strict=True)
        keys = tuple(np.concatenate(pair)[by_cookie] for pair in pairs)
        indices = np.concatenate((kept, gone + len(rows)))[by_cookie]
    order = indices[sort_order(keys, len(indices), reverse)]
    order.flags.writeable = False
    return Arrangement(rows, closed, filter_, column, reverse, order, len(kept))


def _keys(column: SocketColumn, rows: Rows, kept: NDArray[np.intp]) -> Keys:
    """Sort keys of the kept rows: of few, only theirs; of many, all, since a row is copied slower than its keys."""
    if len(kept) < len(rows) // 8:
        return column.sort(rows.take(kept))
    keys = column.sort(rows)
    return keys if len(kept) == len(rows) else tuple(key[kept] for key in keys)


def _one_owner_list(live: Rows, ended: Rows) -> tuple[Rows, Rows]:
    """Sort keys of owners are ranks within one list, so both must have the same."""
    if live.owners is ended.owners:
        return live, ended
    codes = np.where(ended.owner >= 0, ended.owner + len(live.owners), ended.owner).astype(np.int32)
    both = [*live.owners, *ended.owners]
    return replace(live, owners=both), replace(ended, owners=both, owner=codes)


def sort_order(keys: Keys, size: int, reverse: bool) -> NDArray[np.intp]:
    """What sorts the keys, the first being the most important; equal ones keep their order, also when reversed."""
    words = _packed([_as_unsigned(key) for key in keys])
    if size == 0 or not words:
        return np.arange(size)
    if reverse:
        words = [word.max() - word for word in words]
    if len(words) > 1:
        return np.lexsort(words[::-1])
    word = words[0]
    if word.max() < 1 << 16:
        word = word.astype(np.uint16)  # sorted by radix: ten times faster
    return np.argsort(word, kind="stable")


def _as_unsigned(key: NDArray[Any]) -> NDArray[np.uint64]:
    """Numbers from 0 on that sort alike, in memory of their own: a column of a table is slow to walk."""
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
    """The same keys in as few words as their ranges allow; one sort of one word is what is fast."""
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
