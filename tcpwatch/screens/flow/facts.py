"""Facts: the last that is known of one flow, gathered from View to View, live or from the record of its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tcpwatch import units
from tcpwatch.model.columns.columns import BY_KEY
from tcpwatch.model.lifecycle.closed_rows import rows_from_records, with_recorded_owners
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.history import History, Moment, StatePeriod
from tcpwatch.model.lifecycle.records import tcp_info_of
from tcpwatch.model.lifecycle.trace_stats import TraceStats
from tcpwatch.model.lifecycle.transitions import Origin
from tcpwatch.model.sockets.flow_graphs import FlowGraph
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import State
from tcpwatch.model.view import View
from tcpwatch.sample import Capabilities

_SMALL = (State.TIME_WAIT, State.FIN_WAIT_2)
"""States in which a flow may go on when its full socket has ended."""


@dataclass(frozen=True, slots=True, eq=False)
class FlowFacts:
    """The last that is known of a flow."""

    row: Rows
    """Of one row."""
    tcp_info: Mapping[str, int] | None = None
    tcp_info_time: float | None = None
    """Unix seconds at which the kernel told `tcp_info`."""
    detail_polled: bool = False
    """A poll was taken that looked for its detail."""
    detail_history: History = field(default_factory=History)
    """What the last detail said of its states."""
    has_detail: bool = False
    """There was one, since it is watched."""
    history: History = field(default_factory=History)
    """The same, or what the row alone tells where that is empty; with an end where the flow has gone."""
    ending: Ending | None = None
    """How its full socket ended; None while it has not."""
    graph: FlowGraph | None = None
    ended_at: float | None = None
    """Unix seconds of its end, as far as that is known."""
    capabilities: Capabilities = field(default_factory=Capabilities)
    no_trace: str = ""
    """Why there is no trace; empty where there is one."""
    trace: TraceStats = field(default_factory=TraceStats)

    @property
    def state(self) -> State:
        """The last one."""
        return State(int(self.row.state[0]))

    @property
    def last_full_state(self) -> State | None:
        """The last one of the full socket, which TIME_WAIT has not."""
        states = [one.state for one in self.history.periods if one.state is not State.TIME_WAIT]
        return states[-1] if states else None if self.state is State.TIME_WAIT else self.state

    def value(self, key: str) -> object:
        """A column's value."""
        return BY_KEY[key].values(self.row)[0]

    def number(self, key: str) -> float | None:
        """Return a column's value if it is a number."""
        value = self.value(key)
        return value if isinstance(value, int | float) else None

    def cell(self, key: str, exact: bool = False) -> str:
        """A column's value as the table shows it; `–` for what is not known."""
        column = BY_KEY[key]
        if not self.capabilities.supports(column.needs):
            return units.UNKNOWN
        return column.show(column.values(self.row)[0], exact) or units.UNKNOWN


def updated_facts(facts: FlowFacts | None, view: View, cookie: int) -> FlowFacts | None:
    """What was known, and what this View adds to it; None where nothing knows the flow."""
    at = view.rows.find(cookie)
    record = view.archive.last_record(cookie) if at is None or view.rows.state[at] in _SMALL else None
    row, gone = (view.rows.take(slice(at, at + 1)), None) if at is not None else _last(facts, view, cookie, record)
    if row is None:
        return None
    if record is not None:  # TIME_WAIT has no process: show the one that had the connection
        row = with_recorded_owners(row, view.archive, np.array([record]))
    facts = replace(
        facts or FlowFacts(row),
        row=row,
        ended_at=gone,
        capabilities=view.sample.capabilities,
        no_trace=view.sample.source.why_no_trace,
        trace=view.trace,
    )
    if record is not None:
        facts = _recorded(facts, record)
    return _storied(_detailed(facts, view, cookie), view, record is not None)


def _last(facts: FlowFacts | None, view: View, cookie: int, record: np.void | None) -> tuple[Rows | None, float | None]:
    """The row as it was last, where anybody has it, and when it ended."""
    if record is not None:
        row = _row_of(record, view)
        if facts is not None and row.owner[0] < 0:
            row = replace(row, owner=facts.row.owner, owners=facts.row.owners)
        return row, float(record["end"])
    if facts is not None and facts.ended_at is not None:
        return facts.row, facts.ended_at
    found = np.flatnonzero(view.closed.cookie == np.uint64(cookie))
    if len(found):
        return view.closed.take(slice(found[0], found[0] + 1)), view.sample.time
    return (facts.row, view.sample.time) if facts else (None, None)


def _row_of(record: np.void, view: View) -> Rows:
    """Return the record as a row whose ages count back from its end."""
    row = rows_from_records(view.archive, view.rows, np.array([record]))
    state = int(record["state"]) or int(record["row"]["idiag_state"]) or State.CLOSED
    return replace(row, time=float(record["end"]), state=np.array([state], np.uint8))


def _recorded(facts: FlowFacts, record: np.void) -> FlowFacts:
    """What the record of its end adds: how it ended, and the tcp_info that it took along."""
    facts = replace(facts, ending=Ending(int(record["ending"])), detail_polled=True)
    info = tcp_info_of(record)
    if info is None or (facts.tcp_info_time or 0.0) > float(record["end"]):
        return facts
    return replace(facts, tcp_info=info, tcp_info_time=float(record["end"]))


def _detailed(facts: FlowFacts, view: View, cookie: int) -> FlowFacts:
    """What was told because the flow is watched."""
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
    return replace(facts, tcp_info=detail.tcp_info, tcp_info_time=view.sample.time)


def _storied(facts: FlowFacts, view: View, recorded: bool) -> FlowFacts:
    """With a story even where nobody told one: that of the row, unless it is a record's, which has one moment only."""
    stretches = facts.detail_history.periods
    slack_s = view.pace.interval_s if view.elapsed_s is None else view.elapsed_s
    if not stretches and not recorded:
        since = float(facts.row.since[0])
        earlier = not facts.row.begin_seen[0] and since <= float(facts.row.first_seen[0])
        stretches = (StatePeriod(facts.state, Moment(since, Origin.POLL, slack_s), None, began_earlier=earlier),)
    gone = facts.ended_at
    if stretches and gone is not None:
        end = stretches[-1].end or Moment(gone, Origin.POLL, slack_s)
        stretches, gone = (*stretches[:-1], replace(stretches[-1], end=end)), end.time
    return replace(facts, history=History(stretches, facts.detail_history.incidents), ended_at=gone)
