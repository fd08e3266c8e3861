"""`tcpwatch events`: a line for each thing that happened to a flow, as it becomes known; for pipes.

The keys and values of its JSON are a public contract. What became known with one step is sorted by time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tcpwatch import units
from tcpwatch.model.columns.columns import unsupported_columns
from tcpwatch.model.columns.socket_values import show_endpoint
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.trace_stats import TraceStats
from tcpwatch.model.lifecycle.transitions import Origin, TransitionKind
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.states import FACTS, State
from tcpwatch.model.view import View
from tcpwatch.report.ansi import PHASE_COLOURS, coloured
from tcpwatch.report.new_transitions import NewTransitions, new_transitions

BLOCK = 5_000
"""Events that become text at once."""
_ENDPOINT, _CHANGE, _ORIGIN, _OWNER = 21, 25, 5, 15


@dataclass(frozen=True, slots=True)
class EventLines:
    """What one step brought."""

    lines: Iterator[str]
    """In pieces of many lines."""
    losses: Sequence[str]
    """What is missing among them, for people; a line each."""


class EventReporter:
    """Tells of each event once, however many Views have it."""

    def __init__(
        self,
        as_json: bool,
        wanted: Filter | None = None,
        *,
        trace: bool = True,
        exact: bool = False,
        colour: bool = False,
    ) -> None:
        """`trace`: it was asked for, so that it is worth a word where there is none."""
        self._as_json = as_json
        self._wanted = wanted
        self._exact = exact
        self._colour = colour
        self._trace = trace
        self._told = self._lost = self._ends_lost = 0
        self._missing = ""

    def step(self, view: View) -> EventLines:
        """What is new in this View; every View has to be shown, in its order."""
        found = new_transitions(view, self._told, self._wanted)
        losses = [*self._notices(view), *self._losses(view, found.missed)]
        self._told = view.archive.transitions_total
        return EventLines(self._lines(view, found), losses)

    def _notices(self, view: View) -> Iterator[str]:
        if self._trace and not view.trace.on:
            why = view.trace.why_no_trace
            yield f"no trace ({why}): what happens between two polls is told with their times, or not"
        self._trace = False  # said once
        words = view.sample.completeness.words
        if words and words != self._missing:
            yield f"incomplete: {words}"
        self._missing = words

    def _losses(self, view: View, missed: int) -> Iterator[str]:
        trace = view.trace
        lost, ends_lost = trace.events_lost - self._lost, trace.destroy_events_lost - self._ends_lost
        self._lost, self._ends_lost = trace.events_lost, trace.destroy_events_lost
        for count, what in ((lost, "trace event"), (ends_lost, "destroy event")):
            if count > 0:
                yield f"{count:,} {what}{' was' if count == 1 else 's were'} lost"
        if missed:
            yield f"{missed:,} more events came at once than there is memory for; see --memory"

    def _lines(self, view: View, found: NewTransitions) -> Iterator[str]:
        hidden = unsupported_columns(view.sample.capabilities)
        for begin in range(0, len(found), BLOCK):
            facts = [_fact(row, view.trace) for row in found.rows(begin, begin + BLOCK)]
            if self._as_json:
                yield "".join([f"{json.dumps(_shown(fact, hidden))}\n" for fact in facts])
            else:
                yield "".join([f"{self._line(fact)}\n" for fact in facts])

    def _line(self, fact: Mapping[str, Any]) -> str:
        moment = datetime.fromtimestamp(fact["unix_s"]).strftime("%H:%M:%S.%f")[:-3]
        ends = [_endpoint(fact, side, self._exact).ljust(_ENDPOINT) for side in ("local", "remote")]
        state = fact["new"] or fact["old"]
        code = PHASE_COLOURS.get(FACTS[State[state]].phase.value) if state else None
        change = coloured(_change(fact).ljust(_CHANGE), code, self._colour)
        owner = f"{fact['process']}[{fact['pid']}]" if fact["process"] is not None else units.UNKNOWN
        known = [fact["origin"].ljust(_ORIGIN), owner]
        if fact["ending"] is not None:
            known = [known[0], owner.ljust(_OWNER), fact["ending"]]
        return "  ".join([moment, *ends, change, *known])


def _fact(row: tuple[Any, ...], trace: TraceStats) -> dict[str, Any]:
    """One event; the keys are those of the JSON, and `unix_s`. None stands for none, and for what is not known."""
    time, slack, cookie, old, new, origin, what, reason, ending, *flow = row
    local_address, local_port, remote_address, remote_port, process, pid = flow
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
        "what": _WHATS[what],
        "reason": trace.reasons(TransitionKind(what)).get(reason, str(reason)) if reason else None,
        "process": process,
        "pid": pid,
        "ending": Ending(ending).word if ending is not None else None,
    }


_ORIGINS = {int(origin): origin.name.lower() for origin in Origin}
_WHATS = {int(what): what.name.lower() for what in TransitionKind}


def _shown(fact: dict[str, Any], hidden: frozenset[str]) -> dict[str, Any]:
    del fact["unix_s"]
    return fact if not hidden else {key: None if key in hidden else value for key, value in fact.items()}


def _endpoint(fact: Mapping[str, Any], side: str, exact: bool) -> str:
    address = fact[f"{side}_address"]
    return units.UNKNOWN if address is None else show_endpoint((address, fact[f"{side}_port"]), exact)


def _change(fact: Mapping[str, Any]) -> str:
    """`SYN_RCVD → ESTABLISHED`, `TIME_WAIT → gone`, `ESTABLISHED reset sent (TCP_ABORT_ON_CLOSE)`."""
    if fact["what"] == "state":
        return f"{fact['old'] or units.UNKNOWN} → {fact['new'] or 'gone'}"
    said = [fact["new"] or fact["old"] or "", fact["what"].replace("_", " ")]
    said += [f"({fact['reason']})"] * (fact["reason"] is not None)
    return " ".join(filter(None, said))
