"""Rule about tcpwatch itself: `data-incomplete`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, Severity
from tcpwatch.model.lifecycle.trace.stats import lost_events
from tcpwatch.model.rules.registry import Rule, rule
from tcpwatch.model.rules.remarks import blind_rules, lack_of_data
from tcpwatch.model.view import View

_NAME, _SUBJECT = "data-incomplete", FindingSubject("tcpwatch", "")
_WHY = "tcpwatch does not show everything, or shows it late: other findings may be missing."


@rule(_NAME, rank=150)
def data_incomplete(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """tcpwatch shows incomplete or late data, so other findings may be missing.

    Warning: the kernel interrupted a dump or data could not be read (also: sock_diag is not available, a watcher has
        ended), events were lost, or a poll takes longer than the interval.
    Source: sock_diag(7), NLM_F_DUMP_INTR and ENOBUFS in netlink(7).
    """
    completeness, pace = view.sample.completeness, view.pace
    late = pace.duration_s > pace.interval_s
    lost = lost_events(view.trace.events_lost_in_step, view.trace.destroy_events_lost_in_step)
    if completeness.complete and not late and not lost:
        return
    slow = f"a poll takes {units.duration(pace.duration_s)}, the interval is {units.duration(pace.interval_s)}"
    blind = [rule.name for rule in blind_rules(view.sample)] if completeness.reasons else []
    problems = [completeness.words] * (not completeness.complete) + [*lost] + [slow] * late
    problems += [f"rules without all their data: {', '.join(blind)}"] * bool(blind)
    advice = ["Use a longer interval (+): then the kernel has time between two dumps."] * late
    advice += ["Events came faster than tcpwatch reads them: some endings and changes of state are not shown."] * bool(
        lost
    )
    finding = Finding(
        Severity.WARNING,
        _SUBJECT,
        "; ".join(problems),
        {
            "step": Figure(pace.duration_s, "s"),
            "interval": Figure(pace.interval_s, "s"),
            "missing": Figure(completeness.words or None),
            "rules_without_data": Figure(", ".join(blind) or None),
            "trace_events_lost": Figure(view.trace.events_lost_in_step, "events"),
            "destroy_events_lost": Figure(view.trace.destroy_events_lost_in_step, "events"),
        },
        _WHY,
        tuple(advice),
    )
    # The source has retried an interrupted dump, and losses are counted; one slow poll may be an accident.
    yield Candidate(finding, Severity.WARNING if lost or not completeness.complete else None)


def rules_lack_data(lacking: Mapping[Rule, str]) -> Finding:
    """Return the finding that these rules lack data; for a check, whose silence means that all is well.

    In a monitor it is no finding: a host that lacks a counter, or an ordinary user who has no trace, would always have
    it.
    """
    return Finding(
        Severity.WARNING,
        _SUBJECT,
        f"{lack_of_data(lacking)}; --skip leaves a rule out",
        {"rules_without_data": Figure(", ".join(rule.name for rule in lacking))},
        _WHY,
        ("Give tcpwatch the privilege, where that is missing; or leave these rules out: check --skip RULE.",),
        rule=_NAME,
    )
