"""Counters of two samples as rates."""

from __future__ import annotations

import pytest

from tcpwatch.model.poll import rates
from tcpwatch.sample import Sample
from tests.support.views import make_rows, make_sample

ROWS = make_rows([])


def sample(monotonic: float, **counters: int) -> Sample:
    # The wall clock may be set back meanwhile: rates do not care.
    return make_sample(ROWS, time=1000.0 - monotonic, monotonic=monotonic, counters=counters)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (sample(10, InSegs=5), sample(12, InSegs=9), {"InSegs": 2.0}),
        (sample(10, InSegs=5), sample(10.5, InSegs=5), {"InSegs": 0.0}),
        (sample(10, InSegs=5), sample(12, OutSegs=9), {}),  # a counter that one of them lacks is no 0
        (sample(10, InSegs=5), sample(12, InSegs=4), {}),  # it was reset
        (sample(10, InSegs=5), sample(10, InSegs=9), {}),
        (sample(10, InSegs=5), sample(9, InSegs=9), {}),
        (sample(10, CurrEstab=5, TCP_inuse=1, TCP6_inuse=1), sample(12, CurrEstab=9, TCP_inuse=2, TCP6_inuse=7), {}),
        (sample(10, InSegs=5, OutSegs=2), sample(14, InSegs=6, OutSegs=1), {"InSegs": 0.25}),
    ],
)
def test_rates(before: Sample, after: Sample, expected: dict[str, float]) -> None:
    assert rates(before, after) == expected
