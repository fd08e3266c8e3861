"""Rule about tcpwatch itself: `data-incomplete`."""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, Severity
from tcpwatch.model.view import View


def data_incomplete(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """Something could not be read or was lost, or a step takes longer than the time between two."""
    completeness, pace = view.sample.completeness, view.pace
    late = pace.duration_s > pace.interval_s
    lost = list(_lost(view))
    if completeness.complete and not late and not lost:
        return
    slow = f"a step takes {units.duration(pace.duration_s)}, one is due every {units.duration(pace.interval_s)}"
    said = [completeness.words] * (not completeness.complete) + lost + [slow] * late
    advice = ["A longer interval (+) gives the kernel time between two dumps."] * late
    advice += ["A shorter interval (-) empties the kernel's buffers more often."] * bool(lost and not late)
    finding = Finding(
        "data-incomplete",
        Severity.WARNING,
        FindingSubject("tcpwatch", ""),
        "; ".join(said),
        {
            "step": Figure(pace.duration_s, "s"),
            "interval": Figure(pace.interval_s, "s"),
            "missing": Figure(completeness.words or None),
            "trace_events_lost": Figure(view.trace.events_lost_in_step, "events"),
            "destroy_events_lost": Figure(view.trace.destroy_events_lost_in_step, "events"),
        },
        "What tcpwatch shows is not all that there is, or comes late: other findings may be missing.",
        tuple(advice),
        "",
    )
    # An interrupted or overrun dump was made twice already, and losses are counted; a slow step may be an accident.
    yield Candidate(finding, Severity.WARNING if lost or not completeness.complete else None)


def _lost(view: View) -> Iterator[str]:
    """What was told between the last two polls and did not fit into the kernel's buffers."""
    trace = view.trace
    for count, what in (
        (trace.events_lost_in_step, "trace event"),
        (trace.destroy_events_lost_in_step, "destroy event"),
    ):
        if count:
            yield f"{units.count(count)} {what}{'s' * (count != 1)} lost"
