"""FlowFacts: the last known facts of one connection, updated with each View, live or from its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tcpwatch import units
from tcpwatch.model.columns.columns import BY_KEY
from tcpwatch.model.lifecycle.closed_rows import rows_from_records, with_recorded_owners
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.history import History, Moment, StatePeriod
from tcpwatch.model.lifecycle.records import tcp_info_of
from tcpwatch.model.lifecycle.trace.stats import TraceStats
from tcpwatch.model.lifecycle.transitions import Origin
from tcpwatch.model.sockets.flow_graphs import FlowGraph
from tcpwatch.model.sockets.payload import without_control_bytes
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import SMALL_SOCKET_STATES, Role, State
from tcpwatch.model.view import View
from tcpwatch.sample import Capabilities


@dataclass(frozen=True, slots=True, eq=False)
class FlowFacts:
    """The last known facts of one connection."""

    row: Rows
    """Its last known row."""
    tcp_info: Mapping[str, int] | None = None
    """Its bytes_received and bytes_acked are bytes of data."""
    tcp_info_time: float | None = None
    """Unix seconds of `tcp_info`."""
    detail_polled: bool = False
    """Whether a poll has asked for its detail."""
    detail_history: History = field(default_factory=History)
    """The history of the last FlowDetail that had one."""
    has_detail: bool = False
    """Whether any View had a FlowDetail of it."""
    history: History = field(default_factory=History)
    """`detail_history`, or the state of the row if that is empty; it has an end if the connection has ended."""
    ending: Ending | None = None
    """How its full socket ended; None while it exists."""
    graph: FlowGraph | None = None
    ended_at: float | None = None
    """Unix seconds of the end of its last socket; None while that exists."""
    capabilities: Capabilities = field(default_factory=Capabilities)
    no_trace: str = ""
    """Why there is no trace; empty if there is one."""
    trace: TraceStats = field(default_factory=TraceStats)

    @property
    def state(self) -> State:
        """The present or the last known state."""
        return State(int(self.row.state[0]))

    @property
    def last_full_state(self) -> State | None:
        """The last state of the full socket, so never TIME_WAIT; None if unknown."""
        states = [period.state for period in self.history.periods if period.state is not State.TIME_WAIT]
        return states[-1] if states else None if self.state is State.TIME_WAIT else self.state

    def value(self, key: str) -> Any:
        """Return the value of a column; None if unknown."""
        return BY_KEY[key].values(self.row)[0]

    def cell(self, key: str, exact: bool = False) -> str:
        """Return the value of a column as the table shows it; `–` if unknown."""
        column = BY_KEY[key]
        if not self.capabilities.supports(column.needs):
            return units.UNKNOWN
        return column.show(self.value(key), exact) or units.UNKNOWN


def updated_facts(facts: FlowFacts | None, view: View, cookie: int) -> FlowFacts | None:
    """Return the facts with those of this View; None if the connection is unknown."""
    at = view.rows.find(cookie)
    record = view.archive.last_record(cookie) if at is None or view.rows.state[at] in SMALL_SOCKET_STATES else None
    row, ended_at = _last_row(facts, view, cookie, record) if at is None else (view.rows.take(slice(at, at + 1)), None)
    if row is None:
        return None
    if record is not None:  # TIME_WAIT has no process: show the one that had the connection
        row = with_recorded_owners(row, view.archive, np.array([record]))
    facts = replace(
        facts or FlowFacts(row),
        row=row,
        ended_at=ended_at,
        capabilities=view.sample.capabilities,
        no_trace=view.sample.source.why_no_trace,
        trace=view.trace,
    )
    if record is not None:
        facts = _with_record(facts, record)
    return _with_history(_with_detail(facts, view, cookie), view, record is not None)


def _last_row(
    facts: FlowFacts | None, view: View, cookie: int, record: np.void | None
) -> tuple[Rows | None, float | None]:
    """Return the last row of a closed connection, if any is known, and when it ended."""
    if record is not None:
        row = _row_of(record, view)
        if facts is not None and row.owner[0] < 0:
            row = replace(row, owner=facts.row.owner, owners=facts.row.owners)
        return row, float(record["end"])
    if facts is not None and facts.ended_at is not None:
        return facts.row, facts.ended_at
    closed = np.flatnonzero(view.closed.cookie == np.uint64(cookie))
    if len(closed):
        return view.closed.take(slice(closed[0], closed[0] + 1)), view.sample.time
    return (facts.row, view.sample.time) if facts else (None, None)


def _row_of(record: np.void, view: View) -> Rows:
    """Return the record as a row whose ages count back from its end."""
    row = rows_from_records(view.archive, view.rows, np.array([record]))
    state = int(record["state"]) or int(record["row"]["idiag_state"]) or State.CLOSED
    return replace(row, time=float(record["end"]), state=np.array([state], np.uint8))


def _with_record(facts: FlowFacts, record: np.void) -> FlowFacts:
    """Add the ending and the final tcp_info of the record."""
    facts = replace(facts, ending=Ending(int(record["ending"])), detail_polled=True)
    info = tcp_info_of(record)
    if info is None or (facts.tcp_info_time or 0.0) > float(record["end"]):
        return facts
    return replace(facts, tcp_info=info, tcp_info_time=float(record["end"]))


def _with_detail(facts: FlowFacts, view: View, cookie: int) -> FlowFacts:
    """Add the FlowDetail of the View, if it has one."""
    detail = view.details.get(cookie)
    if detail is None:
        return facts
    facts = replace(
        facts,
        detail_polled=True,
        has_detail=True,
        detail_history=detail.history if detail.history.periods or detail.history.incidents else facts.detail_history,
        ending=facts.ending if detail.ending is None else detail.ending,
        graph=detail.graph or facts.graph,
    )
    if detail.tcp_info is None:
        return facts
    info = without_control_bytes(detail.tcp_info, client=facts.row.role[0] == Role.CLIENT)
    return replace(facts, tcp_info=info, tcp_info_time=view.sample.time)


def _with_history(facts: FlowFacts, view: View, recorded: bool) -> FlowFacts:
    """Set the history: that of the details, or else the state of the row, unless the row is that of a record."""
    periods = facts.detail_history.periods
    slack_s = view.pace.interval_s if view.elapsed_s is None else view.elapsed_s
    if not periods and not recorded:
        since = float(facts.row.since[0])
        earlier = not facts.row.begin_seen[0] and since <= float(facts.row.first_seen[0])
        periods = (StatePeriod(facts.state, Moment(since, Origin.POLL, slack_s), None, began_earlier=earlier),)
    ended_at = facts.ended_at
    if periods and ended_at is not None:
        end = periods[-1].end or Moment(ended_at, Origin.POLL, slack_s)
        periods, ended_at = (*periods[:-1], replace(periods[-1], end=end)), end.time
    return replace(facts, history=History(periods, facts.detail_history.incidents), ended_at=ended_at)
