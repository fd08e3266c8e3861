"""What the trace and the destroy events reported, added up step by step."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind, TraceEvents
from tcpwatch.model.lifecycle.trace.stats import TraceStats, TraceStatsCounter
from tcpwatch.model.lifecycle.tracker import NOTHING_HAPPENED
from tcpwatch.model.lifecycle.transitions import TransitionKind
from tcpwatch.sample import Sample, SourceInfo
from tests.support.polls import first_poll
from tests.support.views import make_rows, make_sample

RESETS, DROPS = {1: "TCP_ABORT_ON_CLOSE"}, {3: "TCP_LISTEN_OVERFLOW"}


def traced(events: Sequence[tuple[TraceEventKind, int]] = (), lost: int = 0) -> TraceEvents:
    table = np.zeros(len(events), TRACE_EVENT)
    for row, (kind, reason) in zip(table, events, strict=True):
        row["kind"], row["reason"] = kind, reason
    return TraceEvents(table, lost, RESETS, DROPS)


def sample(trace: TraceEvents | None = None, ends_lost: int | None = None) -> Sample:
    nothing = np.empty(0, uapi.SOCKET), np.empty(0, uapi.TCP_INFO), np.empty(0)
    ends = None if ends_lost is None else DestroyedSockets(*nothing, 0, ends_lost)
    source = SourceInfo("sock_diag", "root", why_no_trace="" if trace else "needs root")
    return make_sample(make_rows([]), source=source, trace_events=trace, destroyed=ends)


def step(
    counter: TraceStatsCounter, sample: Sample, elapsed_s: float | None, foreign: int = 0, unmatched: int = 0
) -> TraceStats:
    lifecycle = replace(NOTHING_HAPPENED, foreign_sockets=foreign, unmatched_sockets=unmatched)
    return counter.step(first_poll(sample, elapsed_s=elapsed_s), lifecycle)


def test_without_a_trace() -> None:
    state = step(TraceStatsCounter(), sample(), 1.0)
    assert (state.on, state.why_no_trace, state.events_lost, state.destroy_events_lost) == (False, "needs root", 0, 0)
    assert (state.retransmitted_per_s, state.resets_sent_per_s, state.resets_received_per_s) == (0.0, 0.0, 0.0)
    assert state.drops_per_s == {}


def test_lost_events_are_added_up() -> None:
    trace = TraceStatsCounter()
    steps = [step(trace, sample(traced(lost=lost), ends), 1.0) for lost, ends in ((3, 5), (4, None), (0, 6))]
    assert [(one.events_lost, one.events_lost_in_step) for one in steps] == [(3, 3), (7, 4), (7, 0)]
    assert [(one.destroy_events_lost, one.destroy_events_lost_in_step) for one in steps] == [
        (5, 5), (5, 0), (11, 6),
    ]  # fmt: skip


EVENTS = [
    *[(TraceEventKind.RETRANSMIT, 0)] * 3,
    (TraceEventKind.SYNACK_RETRANSMIT, 0),
    *[(TraceEventKind.RESET_SENT, 1)] * 5,
    *[(TraceEventKind.RESET_RECEIVED, 0)] * 6,
    *[(TraceEventKind.DROP, 3)] * 7,
    (TraceEventKind.DROP, 9),
    (TraceEventKind.STATE, 9),
    (TraceEventKind.ERROR, errno.ECONNREFUSED),
]


@pytest.mark.parametrize("elapsed_s", [2.0, 0.5])
def test_rates_are_per_second(elapsed_s: float) -> None:
    state = step(TraceStatsCounter(), sample(traced(EVENTS)), elapsed_s, 4, 5)
    assert (state.on, state.why_no_trace, state.foreign_sockets, state.unmatched_sockets) == (True, "", 4, 5)
    assert state.retransmitted_per_s == 4 / elapsed_s
    assert state.resets_sent_per_s == 5 / elapsed_s
    assert state.resets_received_per_s == 6 / elapsed_s
    assert state.drops_per_s == {"TCP_LISTEN_OVERFLOW": 7 / elapsed_s, "reason 9": 1 / elapsed_s}


def test_what_did_not_happen_in_a_step_has_the_rate_zero() -> None:
    state = step(TraceStatsCounter(), sample(traced([(TraceEventKind.STATE, 0)])), 1.0)
    assert (state.retransmitted_per_s, state.resets_sent_per_s, state.resets_received_per_s) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("elapsed_s", [None, 0.0])
def test_the_first_step_knows_no_rates(elapsed_s: float | None) -> None:
    state = step(TraceStatsCounter(), sample(traced(EVENTS)), elapsed_s)
    assert (state.on, state.retransmitted_per_s, state.drops_per_s) == (True, 0.0, {})


def test_names_of_reasons() -> None:
    state = step(TraceStatsCounter(), sample(traced(EVENTS)), 1.0)
    assert state.reasons(TransitionKind.DROPPED) == DROPS
    assert state.reasons(TransitionKind.RESET_SENT) == RESETS
    assert state.reasons(TransitionKind.ERROR)[errno.ECONNREFUSED] == "ECONNREFUSED"
    assert TraceStats().reasons(TransitionKind.RESET_SENT) == {}
