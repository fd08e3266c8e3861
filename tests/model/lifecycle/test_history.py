"""The history of one connection, from transitions of all origins."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from tcpwatch.model.lifecycle.archive import RECORD
from tcpwatch.model.lifecycle.history import (
    Moment,
    StatePeriod,
    begins_with_last_ack,
    build_history,
    first_known_of_record,
)
from tcpwatch.model.lifecycle.transitions import Origin, Transition, TransitionKind
from tcpwatch.model.states import State

ORIGINS = {"poll": Origin.POLL, "event": Origin.EVENT, "trace": Origin.TRACE}
SHORT = {
    "SS": State.SYN_SENT, "SR": State.SYN_RCVD, "ES": State.ESTABLISHED, "F1": State.FIN_WAIT_1,
    "F2": State.FIN_WAIT_2, "TW": State.TIME_WAIT, "CW": State.CLOSE_WAIT, "LA": State.LAST_ACK,
    "CG": State.CLOSING, "CL": State.CLOSED, "-": None,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """`reported` is `time origin old>new`s, polls with 1 s of slack; `seen` is `state begin origin`, last the end."""

    reported: str
    seen: str
    now: str = "-"
    first: tuple[str, float, bool] | None = None


CASES = {
    "polls alone": Case(
        "1 poll ->ES | 5 poll ES>CW | 6 poll CW>LA | 7 poll LA>-",
        "ES 1 poll | CW 5 poll | LA 6 poll | end 7 poll",
    ),
    "polls of an open connection": Case("1 poll ->SS | 2 poll SS>ES", "SS 1 poll | ES 2 poll", now="ES"),
    "it was there before us": Case("5 poll ES>CW", "ES 0.5 poll least | CW 5 poll", now="CW", first=("ES", 0.5, True)),
    "the trace is more exact": Case(
        "0.2 trace ->SS | 0.3 trace SS>ES | 1 poll ->ES | 4.1 trace ES>CW | 4.2 trace CW>LA | 4.3 trace LA>CL"
        " | 5 poll ES>- | 4.5 event LA>CL",
        "SS 0.2 trace | ES 0.3 trace | CW 4.1 trace | LA 4.2 trace | end 4.3 trace",
    ),
    "a poll that is late among exact times": Case(
        "0.2 trace ->SS | 0.3 trace SS>ES | 4.1 trace ES>CW | 4.15 trace CW>LA | 4.2 poll ES>CW",
        "SS 0.2 trace | ES 0.3 trace | CW 4.1 trace | LA 4.15 trace",
        now="LA",
    ),
    "half-open is what polls alone see": Case(
        "1 poll ->SR | 2.5 trace ->SR | 2.5 trace SR>ES | 3 poll SR>ES",
        "SR 1 poll | ES 2.5 trace",
        now="ES",
    ),
    "TIME_WAIT begins where the full socket ended": Case(
        "4.1 trace ES>F1 | 4.2 trace F1>F2 | 4.25 trace F2>CL | 5 poll ES>TW | 64 poll TW>-",
        "ES 4.1 trace least | F1 4.1 trace | F2 4.2 trace | TW 4.25 trace | end 64 poll",
    ),
    "TIME_WAIT that began after the full socket had ended: an orphan was in FIN_WAIT_2 between two polls": Case(
        "4.1 trace ES>F1 | 4.2 trace F1>F2 | 4.25 trace F2>CL | 5.5 poll ES>TW",
        "ES 4.1 trace least | F1 4.1 trace | F2 4.2 trace | TW 5.5 poll",
        now="TW",
    ),
    "a destroy event may come before TIME_WAIT": Case(
        "1 poll ->ES | 4.25 event ES>CL | 5 poll ES>TW", "ES 1 poll | TW 5 poll", now="TW"
    ),
    "a late event changes nothing": Case(
        "1 poll ->ES | 5 poll ES>TW | 5.2 event ES>CL", "ES 1 poll | TW 5 poll", now="TW"
    ),
    "an orphan's FIN_WAIT_2 goes on": Case(
        "4.1 trace ES>F1 | 4.2 trace F1>F2 | 4.21 trace F2>CL | 5 poll ES>F2",
        "ES 4.1 trace least | F1 4.1 trace | F2 4.2 trace",
        now="F2",
    ),
    "an orphan's FIN_WAIT_2 that ends when it is known": Case(
        "4.1 trace ES>F1 | 4.2 trace F1>F2 | 5 trace F2>CL | 5 poll F2>-",
        "ES 4.1 trace least | F1 4.1 trace | F2 4.2 trace | end 5 poll",
    ),
    "and turns into TIME_WAIT": Case(
        "4.2 trace F1>F2 | 4.21 trace F2>CL | 5 poll ES>F2 | 9 poll F2>TW",
        "F1 4.2 trace least | F2 4.2 trace | TW 9 poll",
        now="TW",
    ),
    "or ends": Case(
        "4.2 trace F1>F2 | 4.21 trace F2>CL | 5 poll ES>F2 | 9 poll F2>-",
        "F1 4.2 trace least | F2 4.2 trace | end 9 poll",
    ),
    "a dead socket that was held": Case("1 poll ->ES | 5 poll ES>- | 90 event ES>CL", "ES 1 poll | end 5 poll"),
    "a trace of TIME_WAIT that polls have not seen yet": Case(
        "4.2 trace F1>F2 | 4.25 trace F2>CL", "F1 4.2 trace least | F2 4.2 trace | TW 4.25 trace", now="TW"
    ),
    "a poll that reports a state after the trace reported the end": Case(
        "1 poll ->ES | 4.3 trace LA>CL | 5 poll ES>CW", "ES 1 poll | end 4.3 trace"
    ),
    "the last state and the end at the same time": Case(
        "0.2 trace ->ES | 4.2 trace ES>CW | 4.3 trace CW>LA | 4.3 trace LA>CL",
        "ES 0.2 trace | CW 4.2 trace | LA 4.3 trace | end 4.3 trace",
    ),
    "nothing but the end": Case("4 event ->CL", ""),
    "nothing at all": Case("", "ES 2 poll least", now="ES", first=("ES", 2.0, True)),
}


def transition(text: str) -> Transition:
    time, origin, change = text.split()
    old, new = change.split(">") if not change.startswith("->") else ("-", change[2:])
    slack = 1.0 if origin == "poll" else 0.3 if origin == "event" else 0.0
    return Transition(float(time), SHORT[old], SHORT[new], ORIGINS[origin], slack)


@pytest.mark.parametrize("name", CASES)
def test_history(name: str) -> None:
    case = CASES[name]
    reported = sorted((transition(part) for part in case.reported.split("|") if part.strip()), key=lambda one: one.time)
    first = None
    if case.first:
        state, begin, least = case.first
        first = StatePeriod(SHORT[state] or State.CLOSED, Moment(begin, Origin.POLL), None, least)
    seen = build_history(reported, first, SHORT[case.now])
    words = [
        f"{short(one.state)} {one.begin.time:g} {one.begin.origin.name.lower()}" + " least" * one.began_earlier
        for one in seen.periods
    ]
    last = seen.periods[-1] if seen.periods else None
    if last is not None and last.end is not None:
        words.append(f"end {last.end.time:g} {last.end.origin.name.lower()}")
    assert " | ".join(words) == case.seen
    for one, after in zip(seen.periods, seen.periods[1:], strict=False):
        assert one.end == after.begin


def short(state: State) -> str:
    return next(name for name, it in SHORT.items() if it is state)


def test_incidents_are_not_states() -> None:
    again = Transition(2.5, State.ESTABLISHED, State.ESTABLISHED, Origin.TRACE, kind=TransitionKind.RETRANSMITTED)
    seen = build_history([transition("1 poll ->ES"), again, transition("4 trace ES>CW")], None, State.CLOSE_WAIT)
    assert [one.state for one in seen.periods] == [State.ESTABLISHED, State.CLOSE_WAIT]
    assert seen.incidents == (again,)


def test_a_closed_flow_began_before_its_first_transition() -> None:
    """The first sample had it already, so the trace has its end only."""
    (record,) = np.zeros(1, RECORD)
    assert first_known_of_record(record) is None
    record["state"], record["begin"], record["begin_slack"], record["end"] = State.SYN_SENT, 5.0, math.nan, 9.0
    end = Transition(9.0, State.SYN_SENT, State.CLOSED, Origin.TRACE)
    (only,) = build_history((end,), first_known_of_record(record)).periods
    assert (only.state, only.begin.time, only.began_earlier, only.end) == (
        State.SYN_SENT,
        5.0,
        True,
        Moment(9.0, Origin.TRACE),
    )


@pytest.mark.parametrize(
    ("state", "origin", "first", "expected"),
    [
        (State.SYN_RCVD, Origin.TRACE, True, True),
        (State.SYN_RCVD, Origin.TRACE, False, False),
        (State.SYN_RCVD, Origin.POLL, True, False),
        (State.ESTABLISHED, Origin.TRACE, True, False),
    ],
)
def test_how_long_a_handshake_took_is_unknown_where_the_trace_alone_saw_it(
    state: State, origin: Origin, first: bool, expected: bool
) -> None:
    assert begins_with_last_ack(StatePeriod(state, Moment(1.0, origin), None), first) is expected
