"""`tcpwatch events`: one line per event of a connection, as it becomes known; for pipes.

The keys and values of its JSON are a public contract. The events of one step are sorted by time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from tcpwatch import units
from tcpwatch.model.columns.columns import unsupported_columns
from tcpwatch.model.columns.socket_values import show_endpoint
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.trace.stats import TraceStats
from tcpwatch.model.lifecycle.transitions import Origin, TransitionKind
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.states import State
from tcpwatch.model.view import View
from tcpwatch.report.ansi import STATE_COLOURS, coloured
from tcpwatch.report.new_transitions import NewTransitions, new_transitions

BLOCK = 5_000
"""Number of events that are formatted at once."""
_ENDPOINT, _CHANGE, _ORIGIN, _OWNER = 21, 25, 5, 15  # widths in cells


class EventReporter:
    """Reports each event once."""

    def __init__(
        self,
        as_json: bool,
        wanted: Filter | None = None,
        *,
        trace: bool = True,
        exact: bool = False,
        colour: bool = False,
    ) -> None:
        """`wanted` selects connections; with `trace`, a missing trace is reported."""
        self._as_json = as_json
        self._wanted = wanted
        self._exact = exact
        self._colour = colour
        self._trace = trace
        self._reported = self._events_lost = self._destroy_events_lost = 0
        self._missing = ""

    def step(self, view: View) -> tuple[Iterator[str], list[str]]:
        """Return the new events, in blocks of lines, and messages about missing ones; call this with each View."""
        new = new_transitions(view, self._reported, self._wanted)
        losses = [*self._notices(view), *self._losses(view, new.missed)]
        self._reported = view.archive.transitions_total
        return self._lines(view, new), losses

    def _notices(self, view: View) -> Iterator[str]:
        if self._trace and not view.trace.on:
            why = view.trace.why_no_trace
            yield f"no trace ({why}): events between two polls are missing, or have the time of the poll"
        self._trace = False  # report it once
        missing = view.sample.completeness.words
        if missing and missing != self._missing:
            yield f"incomplete: {missing}"
        self._missing = missing

    def _losses(self, view: View, missed: int) -> Iterator[str]:
        events, destroy_events = view.trace.events_lost, view.trace.destroy_events_lost
        counts = events - self._events_lost, destroy_events - self._destroy_events_lost
        self._events_lost, self._destroy_events_lost = events, destroy_events
        for count, noun in zip(counts, ("trace event", "destroy event"), strict=True):
            if count > 0:
                yield f"{units.plural(count, noun)} lost"
        if missed:
            yield f"{units.plural(missed, 'event')} did not fit into memory; see --memory"

    def _lines(self, view: View, new: NewTransitions) -> Iterator[str]:
        hidden = unsupported_columns(view.sample.capabilities)
        for begin in range(0, len(new), BLOCK):
            facts = [_fact(row, view.trace) for row in new.rows(begin, begin + BLOCK)]
            if self._as_json:
                yield "".join([f"{json.dumps(_shown(fact, hidden))}\n" for fact in facts])
            else:
                yield "".join([f"{self._line(fact)}\n" for fact in facts])

    def _line(self, fact: Mapping[str, Any]) -> str:
        moment = datetime.fromtimestamp(fact["unix_s"]).strftime("%H:%M:%S.%f")[:-3]
        endpoints = [_endpoint(fact, side, self._exact).ljust(_ENDPOINT) for side in ("local", "remote")]
        state = fact["new"] or fact["old"]
        code = STATE_COLOURS[State[state]] if state else None
        change = coloured(_change(fact).ljust(_CHANGE), code, self._colour)
        pid = "" if fact["pid"] is None else f"[{fact['pid']}]"
        owner = units.UNKNOWN if fact["process"] is None else f"{fact['process']}{pid}"
        owner_and_ending = [owner] if fact["ending"] is None else [owner.ljust(_OWNER), _TEXTS[fact["ending"]]]
        return "  ".join([moment, *endpoints, change, fact["origin"].ljust(_ORIGIN), *owner_and_ending])


def _fact(row: tuple[Any, ...], trace: TraceStats) -> dict[str, Any]:
    """Return one event with the keys of the JSON, and `unix_s`. None means none, or unknown."""
    time, slack, cookie, old, new, origin, kind, reason, ending, *connection = row
    local_address, local_port, remote_address, remote_port, process, pid = connection
    return {
        "unix_s": time,
        "time": datetime.fromtimestamp(time, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "cookie": cookie,
        "local_address": local_address,
        "local_port": local_port,
        "remote_address": remote_address,
        "remote_port": remote_port,
        "old": State(old).name if old else None,
        "new": State(new).name if new else None,
        "origin": _ORIGINS[origin],
        "slack_ms": round(1000 * slack, 3) if slack == slack else None,
        "what": _KINDS[kind],
        "reason": trace.reasons(TransitionKind(kind)).get(reason, str(reason)) if reason else None,
        "process": process,
        "pid": pid,
        "ending": Ending(ending).word if ending is not None else None,
    }


_TEXTS = {ending.word: ending.text for ending in Ending}
_ORIGINS = {int(origin): origin.name.lower() for origin in Origin}
_KINDS = {int(kind): kind.name.lower() for kind in TransitionKind}


def _shown(fact: dict[str, Any], hidden: frozenset[str]) -> dict[str, Any]:
    del fact["unix_s"]
    return fact if not hidden else {key: None if key in hidden else value for key, value in fact.items()}


def _endpoint(fact: Mapping[str, Any], side: str, exact: bool) -> str:
    address = fact[f"{side}_address"]
    return units.UNKNOWN if address is None else show_endpoint((address, fact[f"{side}_port"]), exact)


def _change(fact: Mapping[str, Any]) -> str:
    """Return `SYN_RCVD → ESTABLISHED`, `TIME_WAIT → freed`, or `ESTABLISHED reset sent (TCP_ABORT_ON_CLOSE)`."""
    if fact["what"] == "state":
        return f"{fact['old'] or units.UNKNOWN} → {fact['new'] or 'freed'}"
    words = [fact["new"] or fact["old"], fact["what"].replace("_", " ")]
    words += [f"({fact['reason']})"] * (fact["reason"] is not None)
    return " ".join(filter(None, words))
