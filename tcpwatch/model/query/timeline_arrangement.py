"""TimelineArrangement: which live and closed connections the timelines show, and in which order.

Fast enough for hundreds of thousands of connections.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.model.columns.socket_values import Keys, state_keys
from tcpwatch.model.lifecycle.closed_rows import ClosedColumns, ClosedRows
from tcpwatch.model.lifecycle.ending import NOT_ENDED, Ending
from tcpwatch.model.query.arrangement import sort_order
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import State
from tcpwatch.model.view import View


class TimelineSort(enum.Enum):
    """Sort key of the timelines; equal ones are sorted by begin, then by cookie."""

    BEGIN = "begin"
    LENGTH = "length"
    END = "end"
    """Live connections last."""
    STATE = "state"
    """In the order in which a connection passes through its states; closed connections last."""
    ENDING = "ending"
    """Failures first, live connections last."""


@dataclass(frozen=True, slots=True, eq=False)
class TimelineArrangement:
    """Connections that match a filter, sorted. A place is a row of the table, 0 is the topmost."""

    view: View
    filter: Filter
    by: TimelineSort
    reverse: bool
    order: NDArray[np.intp]
    """For each place the index of a live row, or len(view.rows) + the index of a record."""
    closed_cookie: NDArray[np.uint64]
    """Cookies of all records of view.archive, in their order."""
    live: int
    closed: int
    """How many match the filter."""
    total_live: int
    total_closed: int
    """How many there are without the filter."""

    def __len__(self) -> int:
        return len(self.order)

    def cookie(self, place: int) -> int:
        """Return the cookie at this place. Raises IndexError beyond the last."""
        index, rows = int(self.order[place]), self.view.rows
        return int(rows.cookie[index] if index < len(rows) else self.closed_cookie[index - len(rows)])

    def place(self, cookie: int) -> int | None:
        """Return the place of this connection, or None if it is not shown."""
        index = self._index(cookie)
        if index is None:
            return None
        places = np.flatnonzero(self.order == index)
        return int(places[0]) if len(places) else None

    def knows(self, cookie: int) -> bool:
        """Return whether the connection is shown, or would be without the filter."""
        return self._index(cookie) is not None

    def _index(self, cookie: int) -> int | None:
        index = self.view.rows.find(cookie)
        if index is not None and _IS_CONNECTION[self.view.rows.state[index]]:
            return index
        records = np.flatnonzero(self.closed_cookie == np.uint64(cookie))
        return len(self.view.rows) + int(records[-1]) if len(records) else None


class TimelineArranger:
    """Arranges Views in succession, and caches the columns of closed connections. Not thread-safe."""

    def __init__(self) -> None:
        self._closed = ClosedRows()

    def arrange(
        self, view: View, filter_: Filter, by: TimelineSort = TimelineSort.BEGIN, reverse: bool = True
    ) -> TimelineArrangement:
        """Return the connections that match, in this order; equal ones by their begin."""
        rows, closed = view.rows, self._closed.columns(view.archive, filter_, view.rows)
        is_connection = _IS_CONNECTION[rows.state]
        cookies, last = _last_records(closed.cookie)
        live = find_sorted(rows.cookie, cookies)
        is_live = live != NOT_FOUND
        is_live[is_live] = is_connection[live[is_live]]
        ended = last[~is_live]
        times = _LiveTimes.of(rows, closed, live[is_live], last[is_live])
        matches = filter_.mask(replace(rows, ending=times.ending)) if filter_.tests else True
        shown = np.flatnonzero(is_connection & matches)
        shown_closed = ended[closed.matches[ended]]
        keys = _keys(by, times, closed, shown, shown_closed, rows)
        order = np.concatenate((shown, shown_closed + len(rows)))
        order = order[sort_order(keys, len(order), reverse)]
        order.flags.writeable = False
        return TimelineArrangement(
            view, filter_, by, reverse, order, closed.cookie,
            len(shown), len(shown_closed), int(np.count_nonzero(is_connection)), len(ended),
        )  # fmt: skip


_IS_CONNECTION = np.ones(256, np.bool_)
_IS_CONNECTION[[0, State.LISTEN, State.CLOSED]] = False
"""Whether a socket in this state is a connection, also half-open: neither listening nor only bound."""


def _last_records(cookie: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """Return each cookie once, ascending, and the index of its last record, which is the most complete."""
    distinct, at = np.unique(cookie[::-1], return_index=True)
    return distinct, len(cookie) - 1 - at


@dataclass(frozen=True, slots=True, eq=False)
class _LiveTimes:
    """For each live row its begin, the end of its full socket (NaN for none), and its ending (NOT_ENDED for none)."""

    begin: NDArray[np.float64]
    end: NDArray[np.float64]
    ending: NDArray[np.uint8]

    @classmethod
    def of(cls, rows: Rows, closed: ClosedColumns, at: NDArray[np.intp], record: NDArray[np.intp]) -> _LiveTimes:
        """Build from the rows; those at `at` have a `record`, as in TIME_WAIT."""
        begin, ending = rows.first_seen.copy(), np.full(len(rows), NOT_ENDED, np.uint8)
        end = np.where(rows.state == State.TIME_WAIT, rows.since, np.nan)
        begin[at], end[at], ending[at] = closed.begin[record], closed.end[record], closed.ending[record]
        return cls(begin, end, ending)


_ORDER = (
    Ending.RESET_SENT, Ending.RESET_RECEIVED, Ending.RESET, Ending.REFUSED, Ending.UNREACHABLE, Ending.NO_PORT,
    Ending.NOT_ACCEPTED, Ending.KILLED,
    Ending.TIMED_OUT, Ending.GIVEN_UP, Ending.UNKNOWN, Ending.BY_US, Ending.BY_PEER, Ending.AT_ONCE, Ending.ORDERLY,
)  # fmt: skip
_RANK = np.full(256, len(_ORDER), np.uint8)  # NOT_ENDED is last
_RANK[list(_ORDER)] = np.arange(len(_ORDER))


def _keys(
    by: TimelineSort,
    live: _LiveTimes,
    closed: ClosedColumns,
    rows_at: NDArray[np.intp],
    records_at: NDArray[np.intp],
    rows: Rows,
) -> Keys:
    """Return the sort keys of the live rows at `rows_at`, followed by those of the records at `records_at`."""
    begin = np.concatenate((live.begin[rows_at], closed.begin[records_at]))
    cookie = np.concatenate((rows.cookie[rows_at], closed.cookie[records_at]))
    if by is TimelineSort.BEGIN:
        return begin, cookie
    if by is TimelineSort.STATE:
        last = np.full(len(records_at), np.iinfo(np.uint8).max, np.uint8)
        return np.concatenate((state_keys(rows)[0][rows_at], last)), begin, cookie
    if by is TimelineSort.ENDING:
        return _RANK[np.concatenate((live.ending[rows_at], closed.ending[records_at]))], begin, cookie
    end = np.concatenate((live.end[rows_at], closed.end[records_at]))
    if by is TimelineSort.END:
        after_all = max(rows.time, float(np.nanmax(end, initial=0.0))) + 1
        return np.nan_to_num(end, nan=after_all), begin, cookie
    return np.maximum(np.nan_to_num(end, nan=rows.time) - begin, 0.0), begin, cookie
