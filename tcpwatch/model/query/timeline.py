"""Timeline: one flow's life as a row shows it; made of the flows that are seen, all of them in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.netlink.tcp_info import has_field
from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.model.columns.socket_values import endpoints, owner_cells
from tcpwatch.model.lifecycle.archive import RECORD
from tcpwatch.model.lifecycle.closed_rows import rows_from_records
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.history import (
    History,
    Moment,
    StatePeriod,
    build_history,
    first_known_of_record,
    record_begin,
    record_end,
)
from tcpwatch.model.lifecycle.transitions import Origin, Transition
from tcpwatch.model.query.timeline_arrangement import TimelineArrangement
from tcpwatch.model.sockets.rows import Mark, Rows
from tcpwatch.model.states import Role, State

Endpoint = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Timeline:
    """One flow, as it was at `now`."""

    now: float
    """Unix seconds of the sample."""
    cookie: int
    mark: Mark
    local: Endpoint
    remote: Endpoint
    role: Role
    process: str
    """`nginx[12] +1`; empty, `?` or `…` where none is known."""
    pid: int | None
    state: State | None
    """The present one, or the last that is known."""
    live: bool
    """The kernel's table has it still; perhaps in TIME_WAIT."""
    begin: Moment
    began_earlier: bool
    """It was there when we began to look: it began earlier."""
    end: Moment | None
    """When its full socket ended; None while it has not."""
    ending: Ending | None
    """How; None while it has not."""
    stretches: tuple[StatePeriod, ...]
    incidents: tuple[Transition, ...]
    received_bytes: int | None
    sent_bytes: int | None
    """Bytes, as tcp_info counts them: that came in order, and that the peer acknowledged."""

    @property
    def length_s(self) -> float:
        """How long the full socket lived, or has lived till now."""
        return max(0.0, (self.end.time if self.end is not None else self.now) - self.begin.time)

    @property
    def line_end_s(self) -> float:
        """Where its line ends."""
        if self.live:
            return self.now
        last = self.stretches[-1].end if self.stretches else None
        ends = [moment.time for moment in (last, self.end) if moment is not None]
        return max(ends, default=self.begin.time)


def timelines_at(chosen: TimelineArrangement, first: int, last: int) -> list[Timeline]:
    """The flows at the places `first` … `last - 1`, as far as there are any; what is told of all is read once."""
    indices = chosen.order[max(first, 0) : max(last, 0)]
    here = indices < len(chosen.view.rows)
    live, closed = indices[here], indices[~here] - len(chosen.view.rows)
    cookies = [chosen.cookie(first + i) for i in range(len(indices))]
    told = chosen.view.archive.transitions_of(cookies)
    made = iter(_live(chosen, live, told)), iter(_closed(chosen, closed, told))
    return [next(made[0] if lives else made[1]) for lives in here.tolist()]


TransitionsByCookie = dict[int, tuple[Transition, ...]]


def _closed(chosen: TimelineArrangement, indices: NDArray[np.intp], told: TransitionsByCookie) -> list[Timeline]:
    records = _records(chosen, indices)
    if not len(records):
        return []
    rows = rows_from_records(chosen.view.archive, chosen.view.rows, records)
    facts = _facts(rows, _bytes_of(records))
    return [_ended(chosen, fact, record, told) for fact, record in zip(facts, records, strict=True)]


def _ended(chosen: TimelineArrangement, fact: Timeline, record: np.void, told: TransitionsByCookie) -> Timeline:
    """With what the record and the transitions say."""
    begin, end = record_begin(record), record_end(record)
    known = _closed_off(build_history(told[fact.cookie], first_known_of_record(record)), end)
    fresh = end.time > chosen.view.sample.time - (chosen.view.elapsed_s or 0.0)
    mark = Mark.CLOSED if fresh else Mark.NONE
    fact = replace(fact, end=end, ending=Ending(int(record["ending"])), live=False, mark=mark)
    return _with(fact, known, begin, bool(np.isnan(begin.slack_s)))


def _closed_off(known: History, end: Moment) -> History:
    """What has ended lasts no longer, though nothing of that is kept."""
    if not known.periods or known.periods[-1].end is not None:
        return known
    last = known.periods[-1]
    until = end if end.time >= last.begin.time else last.begin
    return replace(known, periods=(*known.periods[:-1], replace(last, end=until)))


def _live(chosen: TimelineArrangement, indices: NDArray[np.intp], told: TransitionsByCookie) -> list[Timeline]:
    rows = chosen.view.rows.take(indices)
    facts = _facts(rows, _bytes_told(rows))
    at = _record_of(chosen, rows.cookie)
    records = iter(_records(chosen, at[at >= 0]))
    between = np.nan if chosen.view.elapsed_s is None else chosen.view.elapsed_s
    made = []
    for i, fact in enumerate(facts):
        record = next(records) if at[i] >= 0 else None
        first_seen, born = float(rows.first_seen[i]), bool(rows.begin_seen[i])
        begin = Moment(first_seen, Origin.POLL, between if born else 0.0)
        since = Moment(float(rows.since[i]), Origin.POLL, np.nan)
        changed = since.time > first_seen
        # Of a flow whose story is forgotten the state that it is in is all there is.
        here = since if changed and not told[fact.cookie] else begin
        first = StatePeriod(fact.state or State.CLOSED, here, None, not born or (changed and here is since))
        known = build_history(told[fact.cookie], first, fact.state)
        if record is not None:
            fact = _recorded(fact, record, chosen)
        elif fact.state is State.TIME_WAIT:
            fact = replace(fact, end=_last_begin(known))
        made.append(_with(fact, known, record_begin(record) if record is not None else begin, not born))
    return made


def _recorded(fact: Timeline, record: np.void, chosen: TimelineArrangement) -> Timeline:
    """In TIME_WAIT a socket has neither owner nor figures any more; the record knows them."""
    owner = chosen.view.archive.owner(int(record["owner"]))
    named = replace(fact, process=_name(owner), pid=owner.processes[0].pid) if owner is not None else fact
    received, sent = _bytes_of(np.array([record], record.dtype))[0]
    return replace(
        named,
        role=fact.role or Role(int(record["role"])),
        end=record_end(record),
        ending=Ending(int(record["ending"])),
        received_bytes=received,
        sent_bytes=sent,
    )


def _last_begin(known: History) -> Moment | None:
    return known.periods[-1].begin if known.periods else None


def _with(fact: Timeline, known: History, begin: Moment, least: bool) -> Timeline:
    """With its story; what that tells of the beginning is the best there is."""
    if known.periods:
        begin, least = known.periods[0].begin, known.periods[0].began_earlier
    return replace(fact, begin=begin, began_earlier=least, stretches=known.periods, incidents=known.incidents)


# Many at once


def _facts(rows: Rows, figures: Sequence[tuple[int | None, int | None]]) -> list[Timeline]:
    """What the rows themselves tell."""
    nothing = Moment(0.0, Origin.POLL)
    columns = zip(
        rows.cookie.tolist(),
        map(Mark, rows.mark.tolist()),
        endpoints("idiag_src", "idiag_sport")(rows),
        endpoints("idiag_dst", "idiag_dport")(rows),
        map(Role, rows.role.tolist()),
        owner_cells(rows),
        [rows.owners[code].processes[0].pid if code >= 0 else None for code in rows.owner.tolist()],
        [State(state) if state else None for state in rows.state.tolist()],
        figures,
        strict=True,
    )
    return [
        Timeline(
            now=rows.time, cookie=cookie, mark=mark, local=local, remote=remote, role=role, process=process, pid=pid,
            state=state, live=True, begin=nothing, began_earlier=False, end=None, ending=None, stretches=(),
                incidents=(),
            received_bytes=received, sent_bytes=sent,
        )
        for cookie, mark, local, remote, role, process, pid, state, (received, sent) in columns
    ]  # fmt: skip


def _name(owner: Owner) -> str:
    others = len(owner.processes) - 1
    return f"{owner}" + (f" +{others}" if others else "")


def _records(chosen: TimelineArrangement, indices: NDArray[np.intp]) -> NDArray[np.void]:
    """The closed records at these indices, in that order."""
    chunks = chosen.view.archive.records
    starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])
    which = np.searchsorted(starts, indices, side="right") - 1
    found = np.empty(len(indices), RECORD)
    for i, (chunk, at) in enumerate(zip(which.tolist(), (indices - starts[which]).tolist(), strict=True)):
        found[i] = chunks[chunk][at]
    return found


def _record_of(chosen: TimelineArrangement, cookies: NDArray[np.uint64]) -> NDArray[np.intp]:
    """For each of these the index of its last closed record; -1 where there is none."""
    found = np.full(len(cookies), -1)
    places = {int(cookie): i for i, cookie in enumerate(cookies)}
    for at in np.flatnonzero(np.isin(chosen.closed_cookie, cookies)).tolist():
        found[places[int(chosen.closed_cookie[at])]] = at
    return found


_RECEIVED, _SENT = "tcpi_bytes_received", "tcpi_bytes_acked"


def _bytes_of(records: NDArray[np.void]) -> list[tuple[int | None, int | None]]:
    figures = zip(
        records["info_bytes"].tolist(),
        records["info"][_RECEIVED].tolist(),
        records["info"][_SENT].tolist(),
        strict=True,
    )
    return [
        (received if has_field(_RECEIVED, told) else None, sent if has_field(_SENT, told) else None)
        for told, received, sent in figures
    ]


def _bytes_told(rows: Rows) -> list[tuple[int | None, int | None]]:
    """Of live rows, as far as the last answer has them."""
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
