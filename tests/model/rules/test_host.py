"""Rules about the host and about tcpwatch itself."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tcpwatch.config.thresholds import DEFAULT
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEvents
from tcpwatch.model.finding import Severity
from tcpwatch.model.lifecycle.trace.stats import TraceStats
from tcpwatch.model.rules.completeness import data_incomplete
from tcpwatch.model.rules.registry import all_rules
from tcpwatch.model.rules.remarks import remarks, rules_without_data
from tcpwatch.model.rules.resets import resets
from tcpwatch.model.view import Pace
from tcpwatch.sample import Completeness, SourceInfo
from tcpwatch.sources.psutil import PSUTIL_CAPABILITIES
from tests.support.views import make_view

NAN = math.nan

RESETS = {
    "calm": ([1.0] * 70, False),
    "a storm": ([1.0] * 60 + [11.0] * 10, True),
    "a storm, out of nothing": ([0.0] * 60 + [5.0] * 10, True),
    "ten times as many is not yet more": ([1.0] * 60 + [10.0] * 10, False),
    "below the floor": ([0.0] * 60 + [4.9] * 10, False),
    "it has always been so": ([900.0] * 70, False),
    "too little is known": ([0.0] * 19 + [900.0] * 10, False),
    "enough is known": ([0.0] * 20 + [900.0] * 10, True),
    "gaps count for nothing": ([NAN, 0.0] * 30 + [NAN, 900.0] * 5, True),
    "older than the minute": ([900.0] * 30 + [0.0] * 60 + [5.0] * 10, True),
    "nothing is known": ([], False),
}


@pytest.mark.parametrize(("per_s", "said"), RESETS.values(), ids=RESETS)
def test_resets(per_s: list[float], said: bool) -> None:
    view = make_view(rate_trend={"OutRsts": tuple(per_s)})
    assert [one.finding.rule for one in resets(view, DEFAULT)] == ["resets"] * said


def test_figures_of_resets() -> None:
    view = make_view(rate_trend={"OutRsts": (1.0,) * 60 + (40.0,) * 10}, rates={"EmbryonicRsts": 3.0})
    (one,) = resets(view, DEFAULT)
    assert one.finding.headline == "40 resets/s sent in the last 10 s, 1/s in the minute before"
    assert one.finding.evidence["resets_in_handshake"] == (3.0, "connections/s")
    assert (one.finding.severity, one.immediate_severity) == (Severity.WARNING, None)


@pytest.mark.parametrize(
    ("completeness", "duration_s", "headline", "at_once"),
    [
        (Completeness(), 0.5, None, None),
        (Completeness(retried=True), 0.5, None, None),
        (Completeness(interrupted=True), 0.5, "interrupted dump", Severity.WARNING),
        (Completeness(answers_lost=True), 0.5, "answers lost", Severity.WARNING),
        (Completeness(reasons=("no counters",)), 0.5, "no counters", Severity.WARNING),
        (Completeness(), 2.5, "a poll takes 2.5 s, the interval is 2 s", None),
        (
            Completeness(answers_lost=True),
            2.5,
            "answers lost; a poll takes 2.5 s, the interval is 2 s",
            Severity.WARNING,
        ),
    ],
)
def test_incomplete_data(
    completeness: Completeness, duration_s: float, headline: str | None, at_once: Severity | None
) -> None:
    view = make_view(pace=Pace(duration_s, 0.1, 1.0, 2.0))
    figures = dict.fromkeys(("OutRsts", "somaxconn"), 1)
    view = replace(view, sample=replace(view.sample, completeness=completeness, counters=figures, sysctls=figures))
    found = list(data_incomplete(view, DEFAULT))
    assert [one.finding.headline for one in found] == [headline] * (headline is not None)
    assert [one.immediate_severity for one in found] == [at_once] * (headline is not None)


def test_the_rules_that_a_source_cannot_serve_are_named() -> None:
    reasons = ("no queues, timers, tcp_info or cookies",)
    figures = dict.fromkeys(("OutRsts", "somaxconn"), 1)
    view = make_view()
    source = SourceInfo("psutil", "root", why_no_trace="not with psutil")
    sample = replace(view.sample, source=source, capabilities=PSUTIL_CAPABILITIES, counters=figures, sysctls=figures)
    (one,) = data_incomplete(replace(view, sample=replace(sample, completeness=Completeness(reasons=reasons))), DEFAULT)
    headline = one.finding.headline
    assert headline.startswith("no queues, timers, tcp_info or cookies; rules without all their data: syn-flood, ")
    assert "accept-queue-full" in headline and "resets" not in headline
    counters = replace(view.sample, completeness=Completeness(reasons=("no counters",)), sysctls={"somaxconn": 1})
    (one,) = data_incomplete(replace(view, sample=counters), DEFAULT)
    assert "resets" in one.finding.headline


def test_remarks() -> None:
    figures = {need: 1 for rule in all_rules() for need in rule.needs}
    sample = replace(make_view().sample, counters=figures, sysctls=figures)
    assert remarks(sample) == ()
    assert remarks(replace(sample, other_namespaces=0)) == ()
    assert remarks(replace(sample, other_namespaces=1)) == (
        "1 other network namespace with TCP sockets is not watched",
    )
    assert remarks(replace(sample, other_namespaces=3)) == (
        "3 other network namespaces with TCP sockets are not watched",
    )
    destroyed = DestroyedSockets(np.empty(0, uapi.SOCKET), np.empty(0, uapi.TCP_INFO), np.empty(0), 280, forged=2)
    assert remarks(replace(sample, destroyed=destroyed)) == (
        "ignored: 2 forged destroy events, sent by a process that is not the kernel",
    )
    del figures["tcp_max_orphans"]
    user = replace(sample, source=SourceInfo("sock_diag", "user", why_no_trace="needs root"), other_namespaces=2)
    assert remarks(user) == (
        "at least 2 other network namespaces with TCP sockets are not watched",
        "rules without all their data: orphans (no tcp_max_orphans), port-scan (no trace: needs root)",
    )
    assert rules_without_data(replace(sample, trace_events=TraceEvents(np.empty(0, TRACE_EVENT)))).keys() == {
        rule for rule in all_rules() if rule.name == "orphans"
    }


TOO_FAST = "Events came faster than tcpwatch reads them: some endings and changes of state are not shown."
LOST = {
    "trace": (TraceStats(events_lost=500, events_lost_in_step=123), "123 trace events lost"),
    "ends": (TraceStats(destroy_events_lost=9, destroy_events_lost_in_step=1), "1 destroy event lost"),
    "both": (
        TraceStats(events_lost_in_step=1, destroy_events_lost_in_step=2_000),
        "1 trace event lost; 2,000 destroy events lost",
    ),
    "long ago": (TraceStats(events_lost=500, destroy_events_lost=9), None),
}


@pytest.mark.parametrize(("trace", "headline"), LOST.values(), ids=LOST)
def test_lost_events(trace: TraceStats, headline: str | None) -> None:
    found = list(data_incomplete(make_view(trace=trace), DEFAULT))
    assert [one.finding.headline for one in found] == [headline] * (headline is not None)
    assert [one.immediate_severity for one in found if one.immediate_severity != Severity.WARNING] == []
    for one in found:
        assert one.finding.evidence["trace_events_lost"].value == trace.events_lost_in_step
        assert one.finding.advice == (TOO_FAST,)


def test_late_polls_and_lost_events() -> None:
    view = make_view(trace=TraceStats(events_lost_in_step=5), pace=Pace(2.5, 0.1, 1.0, 2.0))
    (one,) = data_incomplete(view, DEFAULT)
    assert one.finding.headline == "5 trace events lost; a poll takes 2.5 s, the interval is 2 s"
    assert one.finding.advice == ("Use a longer interval (+): then the kernel has time between two dumps.", TOO_FAST)
