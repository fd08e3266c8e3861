"""ClosedRows: the closed connections of an Archive as columns, and which of them match a filter.

Chunks of records do not change, only the last one grows. So each record is read once, and matched once per filter.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NO_PROCESS, UNKNOWN_NOT_LOOKED
from tcpwatch.model.lifecycle.archive import RECORD, Archive
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.sockets.rows import Mark, Rows

_HOT = ("cookie", "begin", "end", "ending")


@dataclass(frozen=True, slots=True, eq=False)
class ClosedColumns:
    """Aligned columns of closed connections, in the order of Archive.records; copied, since contiguous is faster."""

    cookie: NDArray[np.uint64]
    begin: NDArray[np.float64]
    end: NDArray[np.float64]
    ending: NDArray[np.uint8]
    matches: NDArray[np.bool_]
    """Whether they match the filter."""


@dataclass(slots=True, eq=False)
class _Part:
    """The columns of one chunk."""

    owner_of_memory: weakref.ref[NDArray[np.void]]
    """If it has gone, the same memory may be that of another chunk."""
    columns: dict[str, NDArray[np.generic]]
    matches: NDArray[np.bool_]
    """For the first records, as far as the filter was applied."""


class ClosedRows:
    """Caches columns from one View to the next. Not thread-safe."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, tuple[int, ...]], _Part] = {}
        self._filter = Filter()

    def columns(self, archive: Archive, filter_: Filter, like: Rows) -> ClosedColumns:
        """Return the columns of all records; `like` has the names of users and interfaces."""
        before, self._parts = self._parts, {}
        if filter_ != self._filter:
            self._filter = filter_
            for part in before.values():
                part.matches = part.matches[:0]
        parts = []
        for chunk in archive.records:
            key = _memory_key(chunk)
            part = self._parts[key] = _grown(before.get(key), chunk)
            parts.append(part)
        _match(archive, parts, filter_, like)
        joined = {name: _joined([part.columns[name] for part in parts], RECORD[name]) for name in _HOT}
        return ClosedColumns(matches=_joined([part.matches for part in parts], np.dtype(np.bool_)), **joined)


def _memory_key(chunk: NDArray[np.void]) -> tuple[int, tuple[int, ...]]:
    return int(chunk.__array_interface__["data"][0]), chunk.strides


def _grown(part: _Part | None, chunk: NDArray[np.void]) -> _Part:
    """Return the part, extended to all records of the chunk."""
    base = chunk.base if isinstance(chunk.base, np.ndarray) else chunk
    if part is None or part.owner_of_memory() is not base:
        part = _Part(weakref.ref(base), {name: np.empty(0, RECORD[name]) for name in _HOT}, np.empty(0, np.bool_))
    known = len(part.columns["cookie"])
    if known < len(chunk):
        part.columns = {
            name: np.concatenate((column, np.ascontiguousarray(chunk[name][known:])))
            for name, column in part.columns.items()
        }
    return part


def _match(archive: Archive, parts: Sequence[_Part], filter_: Filter, like: Rows) -> None:
    """Apply the filter once to all records that it was not applied to: each call has a fixed cost."""
    fresh = [(chunk[len(part.matches) :], part) for chunk, part in zip(archive.records, parts, strict=True)]
    fresh = [(records, part) for records, part in fresh if len(records)]
    if not fresh:
        return
    if filter_.tests:
        mask = filter_.mask(rows_from_records(archive, like, *(records for records, _ in fresh)))
    else:
        mask = np.ones(sum(len(records) for records, _ in fresh), np.bool_)
    at = 0
    for records, part in fresh:
        part.matches = np.concatenate((part.matches, mask[at : at + len(records)]))
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
    """Return the rows; those without a process have the owner in the record of their connection.

    If that is unknown, they have the reason.
    """
    order = np.argsort(records["cookie"])
    at = find_sorted(records["cookie"][order], rows.cookie)
    bare = np.flatnonzero((rows.owner < 0) & (at != NOT_FOUND))
    recorded = records["owner"][order[at[bare]]]
    code = recorded - archive.owners_from
    known = (code >= 0) & (code < len(archive.owners))
    distinct, inverse = np.unique(code[known], return_inverse=True)
    owner = rows.owner.copy()
    hidden = recorded < UNKNOWN_NO_PROCESS
    owner[bare[hidden]] = recorded[hidden]
    owner[bare[known]] = len(rows.owners) + inverse
    return replace(rows, owner=owner, owners=[*rows.owners, *(archive.owners[i] for i in distinct.tolist())])


def _joined(columns: Sequence[NDArray[np.generic]], dtype: np.dtype) -> NDArray:  # type: ignore[type-arg]
    return np.concatenate(columns) if columns else np.empty(0, dtype)
