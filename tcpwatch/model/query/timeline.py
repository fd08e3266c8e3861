"""Timeline: the facts of one connection that a row of the timelines shows, made for the visible rows only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.netlink.tcp_info import has_field
from tcpwatch.model.columns.socket_values import endpoints, first_process, owner_cells
from tcpwatch.model.lifecycle.closed_rows import rows_from_records, with_recorded_owners
from tcpwatch.model.lifecycle.connection_detail import connection_detail
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.history import Moment, StatePeriod
from tcpwatch.model.lifecycle.records import payload_of_records
from tcpwatch.model.lifecycle.transitions import Origin, Transition
from tcpwatch.model.query.timeline_arrangement import TimelineArrangement
from tcpwatch.model.sockets.payload import payload
from tcpwatch.model.sockets.rows import Mark, Rows
from tcpwatch.model.states import Role, State
from tcpwatch.model.view import View

Endpoint = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Timeline:
    """One connection, as it was at `now`."""

    now: float
    """Unix seconds of the sample."""
    cookie: int
    mark: Mark
    local: Endpoint
    remote: Endpoint
    role: Role
    process: str
    """`nginx[12] +1`; empty, `?` or `…` if unknown."""
    pid: int | None
    state: State | None
    """The present or the last known state."""
    live: bool
    """Whether its socket exists, perhaps in TIME_WAIT."""
    begin: Moment
    began_earlier: bool
    """The first sample had it already: it began before `begin`."""
    end: Moment | None
    """When its full socket ended; None while it exists."""
    ending: Ending | None
    """How its full socket ended; None while it exists."""
    periods: tuple[StatePeriod, ...]
    incidents: tuple[Transition, ...]
    received_bytes: int | None
    sent_bytes: int | None
    """Bytes of data received in order, and acknowledged by the peer."""

    @property
    def length_s(self) -> float:
        """How long the full socket existed, or has existed until now."""
        return max(0.0, (self.end.time if self.end is not None else self.now) - self.begin.time)

    @property
    def line_end_s(self) -> float:
        """Unix seconds at which its line ends."""
        if self.live:
            return self.now
        last = self.periods[-1].end if self.periods else None
        ends = [moment.time for moment in (last, self.end) if moment is not None]
        return max(ends, default=self.begin.time)


def timelines_at(arrangement: TimelineArrangement, first: int, last: int) -> list[Timeline]:
    """Return the timelines at the places `first` to `last - 1`, as far as there are any."""
    view, indices = arrangement.view, arrangement.order[max(first, 0) : max(last, 0)]
    cookies = np.array([arrangement.cookie(first + i) for i in range(len(indices))], np.uint64)
    transitions = view.archive.transitions_of(cookies.tolist())
    records = view.archive.last_records(np.sort(cookies))
    record_of = dict(zip(records["cookie"].tolist(), records, strict=True))
    # A socket in TIME_WAIT has neither a process nor byte counters any more; the record of its full socket has both.
    live_rows = indices[indices < len(view.rows)]
    rows = with_recorded_owners(view.rows.take(live_rows), view.archive, records)
    closed = records[np.isin(records["cookie"], cookies[indices >= len(view.rows)])]
    closed_rows = rows_from_records(view.archive, view.rows, closed)
    byte_counts = dict(zip(rows.cookie.tolist(), _bytes_of_rows(rows), strict=True))
    byte_counts |= zip(records["cookie"].tolist(), _bytes_of_records(records), strict=True)
    facts = {fact.cookie: fact for part in (rows, closed_rows) for fact in _facts(part, byte_counts)}
    row_of = dict(zip(rows.cookie.tolist(), live_rows.tolist(), strict=True))
    return [
        _with_detail(view, facts[cookie], transitions[cookie], row_of.get(cookie), record_of.get(cookie))
        for cookie in cookies.tolist()
    ]


def _with_detail(
    view: View, fact: Timeline, transitions: Sequence[Transition], row: int | None, record: np.void | None
) -> Timeline:
    """Return the timeline with its states, its begin and its end; `row` is its index in the rows of the View."""
    slack_s = np.nan if view.elapsed_s is None else view.elapsed_s
    detail = connection_detail(transitions, view.rows, row, record, slack_s)
    periods = detail.history.periods or ((detail.first,) if detail.first else ())
    end = detail.end
    if end is None and fact.state is State.TIME_WAIT:
        end = periods[-1].begin
    mark = fact.mark
    if row is None:
        mark = Mark.CLOSED if end and end.time > view.sample.time - (view.elapsed_s or 0.0) else Mark.NONE
    return replace(
        fact,
        live=row is not None,
        mark=mark,
        role=fact.role or (Role(int(record["role"])) if record is not None else fact.role),
        begin=detail.begin or fact.begin,
        began_earlier=detail.began_earlier,
        end=end,
        ending=detail.ending,
        periods=periods,
        incidents=detail.history.incidents,
    )


ByteCounts = tuple[int | None, int | None]
"""Received and sent; None if unknown."""


def _facts(rows: Rows, byte_counts: Mapping[int, ByteCounts]) -> list[Timeline]:
    """Return timelines with the facts of the rows, and without history."""
    unknown = Moment(0.0, Origin.POLL)
    columns = zip(
        rows.cookie.tolist(),
        map(Mark, rows.mark.tolist()),
        endpoints("idiag_src", "idiag_sport")(rows),
        endpoints("idiag_dst", "idiag_dport")(rows),
        map(Role, rows.role.tolist()),
        owner_cells(rows),
        first_process("pid")[0](rows),
        [State(state) if state else None for state in rows.state.tolist()],
        [byte_counts[cookie] for cookie in rows.cookie.tolist()],
        strict=True,
    )
    return [
        Timeline(
            now=rows.time, cookie=cookie, mark=mark, local=local, remote=remote, role=role, process=process, pid=pid,
            state=state, live=True, begin=unknown, began_earlier=False, end=None, ending=None, periods=(),
            incidents=(), received_bytes=received, sent_bytes=sent,
        )
        for cookie, mark, local, remote, role, process, pid, state, (received, sent) in columns
    ]  # fmt: skip


_RECEIVED, _SENT = "tcpi_bytes_received", "tcpi_bytes_acked"


def _bytes_of_records(records: NDArray[np.void]) -> list[ByteCounts]:
    columns = zip(records["info_bytes"].tolist(), *(one.tolist() for one in payload_of_records(records)), strict=True)
    return [
        (received if has_field(_RECEIVED, size) else None, sent if has_field(_SENT, size) else None)
        for size, received, sent in columns
    ]


def _bytes_of_rows(rows: Rows) -> list[ByteCounts]:
    """Return the byte counts of live rows in the last tcp_info, (None, None) if unknown."""
    infos = rows.throughput.last
    if infos is None or not len(infos.cookie) or not has_field(_RECEIVED, infos.info_bytes):
        return [(None, None)] * len(rows)
    at = np.minimum(np.searchsorted(infos.cookie, rows.cookie), len(infos.cookie) - 1)
    has, table = infos.cookie[at] == rows.cookie, infos.table[at]
    received, acked = payload(table, rows.role == Role.CLIENT, infos.info_bytes)
    columns = zip(has.tolist(), received.tolist(), acked.tolist(), strict=True)
    return [(received, sent) if known else (None, None) for known, received, sent in columns]
