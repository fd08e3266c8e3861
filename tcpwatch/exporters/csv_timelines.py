"""Timelines as CSV (RFC 4180, lines ended by a newline alone): a flow a line, block by block."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from tcpwatch.exporters.csv_sockets import BLOCK
from tcpwatch.model.lifecycle.history import Moment, begins_with_last_ack
from tcpwatch.model.query.timeline import Timeline, timelines_at
from tcpwatch.model.query.timeline_arrangement import TimelineArrangement
from tcpwatch.model.states import STATE_ORDER, State

_STATES = tuple(state for state in STATE_ORDER if state not in (State.LISTEN, State.CLOSED))


def values_of(row: Timeline) -> dict[str, Any]:
    """Column → value, None where it is not known; times in Unix seconds.

    `begin_known` and `end_known` say by whom: poll, event (a destroy event) or trace; `_slack_s` how much earlier it
    may have been, empty where nobody knows. A state's column is the time that the flow spent in it.
    """
    spent = dict.fromkeys(_STATES, 0.0)
    for stretch in row.stretches:
        if stretch.state in spent:
            spent[stretch.state] += max(0.0, stretch.duration_s(row.now))
    seen = {stretch.state for at, stretch in enumerate(row.stretches) if not begins_with_last_ack(stretch, at == 0)}
    return {
        "cookie": row.cookie,
        "local_address": row.local[0],
        "local_port": row.local[1],
        "remote_address": row.remote[0],
        "remote_port": row.remote[1],
        "role": row.role.word if row.role else None,
        "process": row.process or None,
        "pid": row.pid,
        "live": row.live,
        "state": row.state.name if row.state is not None else None,
        "ending": row.ending.word if row.ending is not None else None,
        "received_bytes": row.received_bytes,
        "sent_bytes": row.sent_bytes,
        "length_s": round(row.length_s, 6),
        **_moment("begin", row.begin, row.began_earlier),
        **_moment("end", row.end, False),
        **{f"{state.name.lower()}_s": round(spent[state], 6) if state in seen else None for state in _STATES},
    }


def _moment(name: str, moment: Moment | None, least: bool) -> dict[str, Any]:
    if moment is None:
        return dict.fromkeys((name, f"{name}_known", f"{name}_slack_s"))
    known = not least and moment.slack_s == moment.slack_s
    return {
        name: round(moment.time, 6),
        f"{name}_known": moment.origin.name.lower(),
        f"{name}_slack_s": round(moment.slack_s, 6) if known else None,
    }


def timelines_csv(chosen: TimelineArrangement) -> Iterator[str]:
    """A line of the columns' keys, then a line for each flow, in the order that was chosen."""
    headed = False
    for first in range(0, len(chosen), BLOCK):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in timelines_at(chosen, first, first + BLOCK):
            values = values_of(row)
            if not headed:
                writer.writerow(values)
                headed = True
            writer.writerow(values.values())
        yield text.getvalue()
