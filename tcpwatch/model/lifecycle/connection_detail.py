"""ConnectionDetail: what is known of one connection, from its transitions, its row while it exists, and its record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.history import (
    History,
    Moment,
    StatePeriod,
    build_history,
    first_known,
    first_known_of_record,
    record_begin,
    record_end,
)
from tcpwatch.model.lifecycle.transitions import Transition
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import State


@dataclass(frozen=True, slots=True, eq=False)
class ConnectionDetail:
    """The states of one connection and how it ended."""

    history: History
    """Empty for a closed connection whose transitions are not kept any more."""
    first: StatePeriod | None
    """The state in which it was first known, as far as its row or its record has it."""
    begin: Moment | None
    began_earlier: bool
    """The connection existed before the first sample: it began before `begin`."""
    end: Moment | None
    """When its full socket ended; None while it exists."""
    ending: Ending | None


def connection_detail(
    transitions: Sequence[Transition], rows: Rows, row: int | None, record: np.void | None, slack_s: float
) -> ConnectionDetail:
    """Return what is known of a connection.

    `transitions` are its own, in the order of time; `row` is its index in `rows`, None when it is closed; `record` is
    its last archive.RECORD, if there is one; `slack_s` is the time between two polls.
    """
    end = record_end(record) if record is not None else None
    first: StatePeriod | None
    if row is not None:
        first = first_known(rows, row, slack_s, state_only=not transitions)
        history = build_history(transitions, first, State(int(rows.state[row])))
    else:
        first = first_known_of_record(record) if record is not None else None
        history = build_history(transitions, first) if transitions else History()
        history = _ended(history, end) if end is not None else history
    periods = history.periods or ((first,) if first else ())
    begin = record_begin(record) if record is not None else None
    earlier = begin is not None and math.isnan(begin.slack_s)
    if periods:
        begin, earlier = periods[0].begin, periods[0].began_earlier
    return ConnectionDetail(
        history, first, begin, earlier, end, Ending(int(record["ending"])) if record is not None else None
    )


def _ended(history: History, end: Moment) -> History:
    """Return the history with an end of its last period, where no transition reported one."""
    if not history.periods or history.periods[-1].end is not None:
        return history
    last = history.periods[-1]
    end = end if end.time >= last.begin.time else last.begin
    return replace(history, periods=(*history.periods[:-1], replace(last, end=end)))
