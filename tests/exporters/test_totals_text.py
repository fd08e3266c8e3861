"""Lifetimes in words."""

from __future__ import annotations

import pytest

from tcpwatch.exporters.totals_text import lifetime_text, short_duration
from tests.support.totals import totals


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (None, "–"), (0, "0 µs"), (0.045, "45 µs"), (0.9994, "999 µs"), (0.9996, "1.0 ms"), (1.24, "1.2 ms"),
        (9.94, "9.9 ms"), (9.95, "10 ms"), (340, "340 ms"), (999.4, "999 ms"), (999.6, "1.0 s"), (182_000, "182 s"),
        (999_600, "17 m"), (3.6e6, "60 m"), (6e7, "17 h"), (1e9, "278 h"),
    ],
)  # fmt: skip
def test_spans(ms: float | None, words: str) -> None:
    assert short_duration(ms) == words
    assert len(words) <= 6


def test_what_is_not_exact_is_at_most_so_long() -> None:
    assert lifetime_text(totals(exact=1.0), "p90") == "336 ms"
    assert lifetime_text(totals(exact=0.999), "p90") == "≤336 ms"
    assert lifetime_text(totals(p50_ms=None), "p90") == "–"
