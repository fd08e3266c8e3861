"""Gone: the closed flows of a Past as columns, and which of them pass a filter; what was computed once is kept.

A chunk of closed flows is never changed, only the last one grows, so each record is looked at once, and once for
each filter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NOT_LOOKED
from tcpwatch.model.lifecycle.archive import RECORD, Archive
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.sockets.rows import Mark, Rows

_HOT = ("cookie", "begin", "end", "ending")


@dataclass(frozen=True, slots=True, eq=False)
class ClosedColumns:
    """Aligned columns of closed flows, in the order of Past.closed: contiguous, since records lie far apart."""

    cookie: NDArray[np.uint64]
    begin: NDArray[np.float64]
    end: NDArray[np.float64]
    ending: NDArray[np.uint8]
    matches: NDArray[np.bool_]
    """The filter."""

    def __len__(self) -> int:
        return len(self.cookie)


@dataclass(slots=True, eq=False)
class _Part:
    """What is known of one chunk."""

    owner_of_memory: NDArray[np.void]
    """Held, so that its place in memory means this chunk and no other."""
    columns: dict[str, NDArray[np.generic]]
    passes: NDArray[np.bool_]
    """As far as the filter was asked."""


class ClosedRows:
    """Keeps columns from one View to the next. Not thread-safe."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, tuple[int, ...]], _Part] = {}
        self._filter = Filter()

    def columns(self, past: Archive, filter_: Filter, like: Rows) -> ClosedColumns:
        """All closed flows of `past`; `like` knows the names of users and interfaces."""
        before, self._parts = self._parts, {}
        if filter_ != self._filter:
            self._filter = filter_
            for part in before.values():
                part.passes = part.passes[:0]
        parts = []
        for chunk in past.records:
            key = _place(chunk)
            part = _grown(before.get(key), chunk)
            self._parts[key] = part
            parts.append(part)
        _ask(past, parts, filter_, like)
        joined = {name: _joined([part.columns[name] for part in parts], RECORD[name]) for name in _HOT}
        return ClosedColumns(matches=_joined([part.passes for part in parts], np.dtype(np.bool_)), **joined)


def _place(chunk: NDArray[np.void]) -> tuple[int, tuple[int, ...]]:
    return int(chunk.__array_interface__["data"][0]), chunk.strides


def _grown(part: _Part | None, chunk: NDArray[np.void]) -> _Part:
    """The part with the columns of all records of the chunk."""
    if part is None:
        base = chunk.base if isinstance(chunk.base, np.ndarray) else chunk
        part = _Part(base, {name: np.empty(0, RECORD[name]) for name in _HOT}, np.empty(0, np.bool_))
    known = len(part.columns["cookie"])
    if known < len(chunk):
        part.columns = {
            name: np.concatenate((column, np.ascontiguousarray(chunk[name][known:])))
            for name, column in part.columns.items()
        }
    return part


def _ask(past: Archive, parts: Sequence[_Part], filter_: Filter, like: Rows) -> None:
    """Ask the filter of what it was not asked yet: once, as a question has a price whatever it is asked of."""
    fresh = [(chunk[len(part.passes) :], part) for chunk, part in zip(past.records, parts, strict=True)]
    fresh = [(records, part) for records, part in fresh if len(records)]
    if not fresh:
        return
    if filter_.tests:
        mask = filter_.mask(rows_from_records(past, like, *(records for records, _ in fresh)))
    else:
        mask = np.ones(sum(len(records) for records, _ in fresh), np.bool_)
    at = 0
    for records, part in fresh:
        part.passes = np.concatenate((part.passes, mask[at : at + len(records)]))
        at += len(records)


def rows_from_records(archive: Archive, like: Rows, *records: NDArray[np.void]) -> Rows:
    """Return archive.RECORDs as Rows, as they were last seen; `like` has the names of users and interfaces."""
    column = {
        name: np.concatenate([chunk[name] for chunk in records])
        for name in ("row", "cookie", "state", "begin", "begin_slack", "role", "closer", "owner", "ending")
    }
    code = column["owner"]
    known = (code >= archive.owners_from) & (code < archive.owners_from + len(archive.owners))
    codes = np.where(known, code - archive.owners_from, np.where(code < 0, code, UNKNOWN_NOT_LOOKED))
    return Rows(
        time=like.time,
        table=column["row"],
        cookie=column["cookie"],
        state=column["state"],
        first_seen=column["begin"],
        since=column["begin"],
        begin_seen=~np.isnan(column["begin_slack"]),
        role=column["role"],
        closer=column["closer"],
        mark=np.full(len(code), Mark.CLOSED, np.uint8),
        owner=codes.astype(np.int32),
        owners=archive.owners,
        users=like.users,
        interfaces=like.interfaces,
        ending=column["ending"],
    )


def with_recorded_owners(rows: Rows, archive: Archive, records: NDArray[np.void]) -> Rows:
    """Return the rows; those without a process have the owner in the record of their connection, if it has one."""
    order = np.argsort(records["cookie"])
    at = find_sorted(records["cookie"][order], rows.cookie)
    bare = np.flatnonzero((rows.owner < 0) & (at != NOT_FOUND))
    code = records["owner"][order[at[bare]]] - archive.owners_from
    known = (code >= 0) & (code < len(archive.owners))
    distinct, inverse = np.unique(code[known], return_inverse=True)
    owner = rows.owner.copy()
    owner[bare[known]] = len(rows.owners) + inverse
    return replace(rows, owner=owner, owners=[*rows.owners, *(archive.owners[i] for i in distinct.tolist())])


def _joined(columns: Sequence[NDArray[np.generic]], dtype: np.dtype) -> NDArray:  # type: ignore[type-arg]
    return np.concatenate(columns) if columns else np.empty(0, dtype)
