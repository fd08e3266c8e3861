"""Rule about tcpwatch itself: `data-incomplete`."""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import text
from tcpwatch.model.diagnosis.finding import Candidate, Figure, Finding, Severity, Subject
from tcpwatch.model.view import View
from tcpwatch.thresholds import Thresholds


def data_incomplete(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """Something could not be read, or a step takes longer than the time between two."""
    completeness, pace = view.sample.completeness, view.pace
    late = pace.duration_s > pace.interval_s
    if completeness.complete and not late:
        return
    slow = f"a step takes {text.duration(pace.duration_s)}, one is due every {text.duration(pace.interval_s)}"
    said = [completeness.words] * (not completeness.complete) + [slow] * late
    finding = Finding(
        "data-incomplete",
        Severity.WARNING,
        Subject("tcpwatch", ""),
        "; ".join(said),
        {
            "step": Figure(pace.duration_s, "s"),
            "interval": Figure(pace.interval_s, "s"),
            "missing": Figure(completeness.words or None),
        },
        "What tcpwatch shows is not all that there is, or comes late: other findings may be missing.",
        ("A longer interval (+) gives the kernel time between two dumps.",) if late else (),
        "",
    )
    # An interrupted or overrun dump was made twice already; a slow step may be an accident.
    yield Candidate(finding, None if completeness.complete else Severity.WARNING)
