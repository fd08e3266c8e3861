"""Timelines: which flows, live and recently closed, are shown, and in which order; also of hundreds of thousands."""

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
    """What flows are sorted by; the next thing is their beginning, then their cookie."""

    BEGIN = "begin"
    LENGTH = "length"
    END = "end"
    """Those that live come after all that ended."""
    STATE = "state"
    """In the order of a connection's life; those that closed come last."""
    ENDING = "ending"
    """What went wrong first, those that live last."""


@dataclass(frozen=True, slots=True, eq=False)
class TimelineArrangement:
    """Flows that pass a filter, sorted. A place is a position in the table, 0 the topmost."""

    view: View
    filter: Filter
    by: TimelineSort
    reverse: bool
    order: NDArray[np.intp]
    """For each place the index of a live row; from len(view.rows) on, less that, of a closed record."""
    closed_cookie: NDArray[np.uint64]
    """Of all records of view.past.closed, in their order."""
    live: int
    closed: int
    """Flows that are shown."""
    total_live: int
    total_closed: int
    """Flows, whether they pass or not."""

    def __len__(self) -> int:
        return len(self.order)

    def cookie(self, place: int) -> int:
        """The flow at this place; raises IndexError beyond the last."""
        index, rows = int(self.order[place]), self.view.rows
        return int(rows.cookie[index] if index < len(rows) else self.closed_cookie[index - len(rows)])

    def place(self, cookie: int) -> int | None:
        """Where this flow is, or None where it is not shown."""
        index = self._index(cookie)
        if index is None:
            return None
        found = np.flatnonzero(self.order == index)
        return int(found[0]) if len(found) else None

    def knows(self, cookie: int) -> bool:
        """It is shown, or would be without the filter."""
        return self._index(cookie) is not None

    def _index(self, cookie: int) -> int | None:
        index = self.view.rows.find(cookie)
        if index is not None and _is_flow(self.view.rows.state[index : index + 1])[0]:
            return index
        found = np.flatnonzero(self.closed_cookie == np.uint64(cookie))
        return len(self.view.rows) + int(found[-1]) if len(found) else None


class TimelineArranger:
    """Chooses for one View after the other, and remembers what it computed of closed flows. Not thread-safe."""

    def __init__(self) -> None:
        self._gone = ClosedRows()

    def arrange(
        self, view: View, filter_: Filter, by: TimelineSort = TimelineSort.BEGIN, reverse: bool = True
    ) -> TimelineArrangement:
        """What passes, in this order; of equal rows those that began earlier first, or last when reversed."""
        rows, gone = view.rows, self._gone.columns(view.archive, filter_, view.rows)
        flows = _is_flow(rows.state)
        last, at = _last_records(gone.cookie)
        live = find_sorted(rows.cookie, last)
        is_live = live != NOT_FOUND
        is_live[is_live] = flows[live[is_live]]
        ended, record = at[~is_live], at[is_live]
        lives = _Lives.of(rows, gone, live[is_live], record)
        passes = filter_.mask(replace(rows, ending=lives.ending)) if filter_.tests else True
        kept = np.flatnonzero(flows & passes)
        shown = ended[gone.matches[ended]]
        keys = _keys(by, lives, gone, kept, shown, rows)
        order = np.concatenate((kept, shown + len(rows)))[sort_order(keys, len(kept) + len(shown), reverse)]
        order.flags.writeable = False
        return TimelineArrangement(
            view, filter_, by, reverse, order, gone.cookie,
            len(kept), len(shown), int(np.count_nonzero(flows)), len(ended),
        )  # fmt: skip


def arrange_timelines(
    view: View, filter_: Filter, by: TimelineSort = TimelineSort.BEGIN, reverse: bool = True
) -> TimelineArrangement:
    """As Chooser.choose, once."""
    return TimelineArranger().arrange(view, filter_, by, reverse)


_FLOW = np.ones(256, np.bool_)
_FLOW[[0, State.LISTEN, State.CLOSED]] = False


def _is_flow(state: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Listeners, and sockets that are bound and nothing else, have no life to show. Half-open ones have."""
    return _FLOW[state]


def _last_records(cookie: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """Each cookie once, ascending, and the index of its last record, which knows the most."""
    distinct, at = np.unique(cookie[::-1], return_index=True)
    return distinct, len(cookie) - 1 - at


@dataclass(frozen=True, slots=True, eq=False)
class _Lives:
    """Of all live rows: begin, end of the full socket (NaN while it lives), and how it ended (else ALIVE)."""

    begin: NDArray[np.float64]
    end: NDArray[np.float64]
    ending: NDArray[np.uint8]

    @classmethod
    def of(cls, rows: Rows, gone: ClosedColumns, where: NDArray[np.intp], record: NDArray[np.intp]) -> _Lives:
        """`where` are the rows of which there is a record: they are in TIME_WAIT, or soon will have gone."""
        begin, ending = rows.first_seen.copy(), np.full(len(rows), NOT_ENDED, np.uint8)
        end = np.where(rows.state == State.TIME_WAIT, rows.since, np.nan)
        begin[where], end[where], ending[where] = gone.begin[record], gone.end[record], gone.ending[record]
        return cls(begin, end, ending)


_INTEREST = (
    Ending.RESET_SENT, Ending.RESET_RECEIVED, Ending.RESET, Ending.REFUSED, Ending.UNREACHABLE,
    Ending.NOT_ACCEPTED, Ending.KILLED,
    Ending.TIMED_OUT, Ending.GIVEN_UP, Ending.UNKNOWN, Ending.BY_US, Ending.BY_PEER, Ending.AT_ONCE, Ending.ORDERLY,
)  # fmt: skip
_RANK = np.full(256, len(_INTEREST), np.uint8)
"""Of ALIVE too: the last."""
_RANK[list(_INTEREST)] = np.arange(len(_INTEREST))


def _keys(
    by: TimelineSort, lives: _Lives, gone: ClosedColumns, kept: NDArray[np.intp], shown: NDArray[np.intp], rows: Rows
) -> Keys:
    """Sort keys of the live rows that are kept, then of the closed records that are shown."""
    begin = np.concatenate((lives.begin[kept], gone.begin[shown]))
    cookie = np.concatenate((rows.cookie[kept], gone.cookie[shown]))
    if by is TimelineSort.BEGIN:
        return begin, cookie
    if by is TimelineSort.STATE:
        ranks = np.concatenate((state_keys(rows)[0][kept], np.full(len(shown), np.iinfo(np.uint8).max, np.uint8)))
        return ranks, begin, cookie
    if by is TimelineSort.ENDING:
        return _RANK[np.concatenate((lives.ending[kept], gone.ending[shown]))], begin, cookie
    end = np.concatenate((lives.end[kept], gone.end[shown]))
    if by is TimelineSort.END:
        after = max(rows.time, float(np.nanmax(end, initial=0.0))) + 1
        return np.nan_to_num(end, nan=after), begin, cookie
    return np.maximum(np.nan_to_num(end, nan=rows.time) - begin, 0.0), begin, cookie
