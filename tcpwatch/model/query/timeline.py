"""Timeline: the facts of one connection that a row of the timelines shows, made for the visible rows only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.netlink.tcp_info import has_field
from tcpwatch.model.columns.socket_values import endpoints, owner_cells
from tcpwatch.model.lifecycle.archive import RECORD
from tcpwatch.model.lifecycle.closed_rows import rows_from_records, with_recorded_owners
from tcpwatch.model.lifecycle.connection_detail import connection_detail
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.history import Moment, StatePeriod
from tcpwatch.model.lifecycle.transitions import Origin, Transition
from tcpwatch.model.query.timeline_arrangement import TimelineArrangement
from tcpwatch.model.sockets.rows import Mark, Rows
from tcpwatch.model.states import Role, State

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
    stretches: tuple[StatePeriod, ...]
    incidents: tuple[Transition, ...]
    received_bytes: int | None
    sent_bytes: int | None
    """Byte counts of tcp_info: received in order, and acknowledged by the peer."""

    @property
    def length_s(self) -> float:
        """How long the full socket existed, or has existed until now."""
        return max(0.0, (self.end.time if self.end is not None else self.now) - self.begin.time)

    @property
    def line_end_s(self) -> float:
        """Unix seconds at which its line ends."""
        if self.live:
            return self.now
        last = self.stretches[-1].end if self.stretches else None
        ends = [moment.time for moment in (last, self.end) if moment is not None]
        return max(ends, default=self.begin.time)


def timelines_at(arrangement: TimelineArrangement, first: int, last: int) -> list[Timeline]:
    """Return the timelines at the places `first` to `last - 1`, as far as there are any."""
    indices = arrangement.order[max(first, 0) : max(last, 0)]
    is_live = indices < len(arrangement.view.rows)
    cookies = [arrangement.cookie(first + i) for i in range(len(indices))]
    transitions = arrangement.view.archive.transitions_of(cookies)
    live = iter(_live(arrangement, indices[is_live], transitions))
    closed = iter(_closed(arrangement, indices[~is_live] - len(arrangement.view.rows), transitions))
    return [next(live if alive else closed) for alive in is_live.tolist()]


TransitionsByCookie = dict[int, tuple[Transition, ...]]


def _closed(
    arrangement: TimelineArrangement, indices: NDArray[np.intp], transitions: TransitionsByCookie
) -> list[Timeline]:
    records = _records(arrangement, indices)
    if not len(records):
        return []
    rows = rows_from_records(arrangement.view.archive, arrangement.view.rows, records)
    facts = zip(_facts(rows, _bytes_of_records(records)), records, strict=True)
    return [_with_detail(arrangement, fact, transitions, None, record) for fact, record in facts]


def _live(
    arrangement: TimelineArrangement, indices: NDArray[np.intp], transitions: TransitionsByCookie
) -> list[Timeline]:
    rows = arrangement.view.rows.take(indices)
    at = _record_indices(arrangement, rows.cookie)
    records = _records(arrangement, at[at >= 0])
    # A socket in TIME_WAIT has neither a process nor byte counters any more; the record of its full socket has both.
    rows = with_recorded_owners(rows, arrangement.view.archive, records)
    byte_counts = _bytes_of_rows(rows)
    for i, counts in zip(np.flatnonzero(at >= 0).tolist(), _bytes_of_records(records), strict=True):
        byte_counts[i] = counts
    record_of = dict(zip(records["cookie"].tolist(), records, strict=True))
    facts = zip(_facts(rows, byte_counts), indices.tolist(), strict=True)
    return [_with_detail(arrangement, fact, transitions, row, record_of.get(fact.cookie)) for fact, row in facts]


def _with_detail(
    arrangement: TimelineArrangement,
    fact: Timeline,
    transitions: TransitionsByCookie,
    row: int | None,
    record: np.void | None,
) -> Timeline:
    """Return the timeline with its states, its begin and its end; `row` is its index in the View's rows."""
    view = arrangement.view
    slack_s = np.nan if view.elapsed_s is None else view.elapsed_s
    detail = connection_detail(transitions[fact.cookie], view.rows, row, record, slack_s)
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
        stretches=periods,
        incidents=detail.history.incidents,
    )


def _facts(rows: Rows, byte_counts: Sequence[tuple[int | None, int | None]]) -> list[Timeline]:
    """Return timelines with the facts of the rows, and without history."""
    unknown = Moment(0.0, Origin.POLL)
    columns = zip(
        rows.cookie.tolist(),
        map(Mark, rows.mark.tolist()),
        endpoints("idiag_src", "idiag_sport")(rows),
        endpoints("idiag_dst", "idiag_dport")(rows),
        map(Role, rows.role.tolist()),
        owner_cells(rows),
        [rows.owners[code].processes[0].pid if code >= 0 else None for code in rows.owner.tolist()],
        [State(state) if state else None for state in rows.state.tolist()],
        byte_counts,
        strict=True,
    )
    return [
        Timeline(
            now=rows.time, cookie=cookie, mark=mark, local=local, remote=remote, role=role, process=process, pid=pid,
            state=state, live=True, begin=unknown, began_earlier=False, end=None, ending=None, stretches=(),
            incidents=(), received_bytes=received, sent_bytes=sent,
        )
        for cookie, mark, local, remote, role, process, pid, state, (received, sent) in columns
    ]  # fmt: skip


def _records(arrangement: TimelineArrangement, indices: NDArray[np.intp]) -> NDArray[np.void]:
    """Return the records at these indices of the whole archive, in that order."""
    chunks = arrangement.view.archive.records
    starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])
    which = np.searchsorted(starts, indices, side="right") - 1
    found = np.empty(len(indices), RECORD)
    for i, (chunk, at) in enumerate(zip(which.tolist(), (indices - starts[which]).tolist(), strict=True)):
        found[i] = chunks[chunk][at]
    return found


def _record_indices(arrangement: TimelineArrangement, cookies: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the index of the last record of each cookie; -1 for none."""
    found = np.full(len(cookies), -1)
    places = {int(cookie): i for i, cookie in enumerate(cookies)}
    for at in np.flatnonzero(np.isin(arrangement.closed_cookie, cookies)).tolist():
        found[places[int(arrangement.closed_cookie[at])]] = at
    return found


_RECEIVED, _SENT = "tcpi_bytes_received", "tcpi_bytes_acked"


def _bytes_of_records(records: NDArray[np.void]) -> list[tuple[int | None, int | None]]:
    columns = zip(
        records["info_bytes"].tolist(),
        records["info"][_RECEIVED].tolist(),
        records["info"][_SENT].tolist(),
        strict=True,
    )
    return [
        (received if has_field(_RECEIVED, size) else None, sent if has_field(_SENT, size) else None)
        for size, received, sent in columns
    ]


def _bytes_of_rows(rows: Rows) -> list[tuple[int | None, int | None]]:
    """Return the byte counts of live rows in the last tcp_info, (None, None) if unknown."""
    infos = rows.throughput.last
    none: list[tuple[int | None, int | None]] = [(None, None)] * len(rows)
    if infos is None or not len(infos.cookie) or not has_field(_RECEIVED, infos.info_bytes):
        return none
    at = np.minimum(np.searchsorted(infos.cookie, rows.cookie), len(infos.cookie) - 1)
    has = infos.cookie[at] == rows.cookie
    found = infos.table[at]
    return [
        (received, sent) if known else (None, None)
        for known, received, sent in zip(has.tolist(), found[_RECEIVED].tolist(), found[_SENT].tolist(), strict=True)
    ]
