"""The rules about the host and about tcpwatch itself."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tcpwatch.model.diagnosis.completeness import data_incomplete
from tcpwatch.model.diagnosis.finding import Severity
from tcpwatch.model.diagnosis.resets import resets
from tcpwatch.model.sample import Completeness
from tcpwatch.model.view import Pace, RateTrend
from tcpwatch.thresholds import DEFAULT
from tests.views import make_view

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
    view = make_view(rate_trend=RateTrend(1.0, {"OutRsts": tuple(per_s)}))
    assert [one.finding.rule for one in resets(view, DEFAULT)] == ["resets"] * said


def test_resets_are_told_with_their_numbers() -> None:
    view = make_view(rate_trend=RateTrend(1.0, {"OutRsts": (1.0,) * 60 + (40.0,) * 10}), rates={"EmbryonicRsts": 3.0})
    (one,) = resets(view, DEFAULT)
    assert one.finding.headline == "40 resets/s sent in the last 10 s, 1/s in the minute before"
    assert one.finding.evidence["resets_in_handshake"] == (3.0, "connections/s")
    assert (one.finding.severity, one.at_once) == (Severity.WARNING, None)


@pytest.mark.parametrize(
    ("completeness", "duration_s", "headline", "at_once"),
    [
        (Completeness(), 0.5, None, None),
        (Completeness(retried=True), 0.5, None, None),
        (Completeness(interrupted=True), 0.5, "interrupted dump", Severity.WARNING),
        (Completeness(lost=True), 0.5, "answers lost", Severity.WARNING),
        (Completeness(reasons=("no counters",)), 0.5, "no counters", Severity.WARNING),
        (Completeness(), 2.5, "a step takes 2.5 s, one is due every 2 s", None),
        (Completeness(lost=True), 2.5, "answers lost; a step takes 2.5 s, one is due every 2 s", Severity.WARNING),
    ],
)
def test_incomplete_data(
    completeness: Completeness, duration_s: float, headline: str | None, at_once: Severity | None
) -> None:
    view = make_view(pace=Pace(duration_s, 0.1, 1.0, 2.0))
    view = replace(view, sample=replace(view.sample, completeness=completeness))
    found = list(data_incomplete(view, DEFAULT))
    assert [one.finding.headline for one in found] == [headline] * (headline is not None)
    assert [one.at_once for one in found] == [at_once] * (headline is not None)
