"""How long a condition must hold before it is shown, and how long it stays: no flicker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Candidate, Finding, FindingSubject, Severity
from tcpwatch.model.rules.engine import LISTED, RuleEngine
from tcpwatch.model.rules.registry import Rule, RuleFunction
from tcpwatch.model.view import View
from tests.support.views import make_view

SEVERITIES = {"w": Severity.WARNING, "W": Severity.WARNING, "c": Severity.CRITICAL, "C": Severity.CRITICAL}
VIEW = make_view()


def as_rule(name: str, check: RuleFunction, rank: int = 0) -> Rule:
    return Rule(name, rank, check, "", "", "", "")


def shown(conditions: str) -> str:
    """One letter a step: w, c: the condition of a warning, of something critical; in capitals: proved by a counter.

    Returns what is shown after each step, in the same letters.
    """
    steps = iter(conditions)

    def rule(view: View, limits: Thresholds) -> Iterator[Candidate]:
        letter = next(steps)
        if letter != ".":
            severity = SEVERITIES[letter]
            finding = Finding(severity, FindingSubject("host", ""), letter, {}, "", (), rule="rule")
            yield Candidate(finding, severity if letter.isupper() else None)

    diagnosis = RuleEngine([as_rule("rule", rule)])
    answers = [diagnosis.step(VIEW) for _ in conditions]
    return "".join(answer[0].severity.name[0].lower() if answer else "." for answer in answers)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ("......", "......"),
        ("w.....", "......"),
        ("w.w.w.", "......"),
        ("ww....", ".wwwww"),
        ("ww.....", ".wwwww."),
        ("ww....ww.....", ".wwwwwwwwwww."),
        ("W.....", "wwwww."),
        ("cc......", ".ccccc.."),
        ("wc......", ".wwwww.."),
        ("wcc.....", ".wccccc."),
        ("ccwwwwwwww", ".cccccwwww"),
        ("C.....", "ccccc."),
        ("wC.....", ".ccccc."),
    ],
)
def test_two_in_five_out(conditions: str, expected: str) -> None:
    assert shown(conditions) == expected


def test_a_finding_that_does_not_stay() -> None:
    conditions = iter([True, True, False, True, True, False])

    def rule(view: View, limits: Thresholds) -> Iterator[Candidate]:
        if next(conditions):
            yield Candidate(
                Finding(Severity.WARNING, FindingSubject("host", ""), "", {}, "", (), rule="rule"), stays=False
            )

    diagnosis = RuleEngine([as_rule("rule", rule)])
    assert [len(diagnosis.step(VIEW)) for _ in range(6)] == [0, 1, 0, 0, 1, 0]


@given(st.text(alphabet=".wcWC", max_size=40))
def test_what_is_shown_has_a_reason(conditions: str) -> None:
    answer = shown(conditions)
    for at, letter in enumerate(answer):
        recent = conditions[max(0, at - 4 - 1) : at + 1]
        assert letter == "." or any(one != "." for one in recent), "what is shown was true lately"
        if at and set(conditions[at - 1 : at + 1]) <= set("cC"):
            assert letter == "c", "what holds for two steps is shown"


def test_the_newest_numbers_under_the_severity_that_is_shown() -> None:
    def rule(view: View, limits: Thresholds) -> Iterator[Candidate]:
        severity = Severity.CRITICAL if view.step < 3 else Severity.WARNING
        yield Candidate(Finding(severity, FindingSubject("host", ""), f"step {view.step}", {}, "", (), rule="rule"))

    diagnosis = RuleEngine([as_rule("rule", rule)])
    answers = [diagnosis.step(replace(VIEW, step=step)) for step in (1, 2, 3)]
    assert [(one.headline, one.severity) for (one,) in answers[1:]] == [
        ("step 2", Severity.CRITICAL), ("step 3", Severity.CRITICAL),
    ]  # fmt: skip


def test_the_most_severe_first_then_what_explains_others() -> None:
    def rule(name: str, severity: Severity, *subjects: str) -> RuleFunction:
        def say(view: View, limits: Thresholds) -> Iterator[Candidate]:
            for subject in subjects:
                yield Candidate(Finding(severity, FindingSubject("host", subject), "", {}, "", (), rule=name), severity)

        return say

    rules = {
        "first": rule("first", Severity.WARNING, "b", "a"),
        "second": rule("second", Severity.CRITICAL, "a"),
        "third": rule("third", Severity.CRITICAL, "a"),
        "fourth": rule("fourth", Severity.INFO, "a"),
    }
    found = RuleEngine([as_rule(name, check, rank) for rank, (name, check) in enumerate(rules.items())]).step(VIEW)
    assert [f"{one.rule} {one.subject.name}" for one in found] == [
        "second a", "third a", "first a", "first b", "fourth a",
    ]  # fmt: skip


def test_one_rule_lists_a_hundred_findings_and_says_that_there_are_more() -> None:
    made = 0

    def rule(view: View, limits: Thresholds) -> Iterator[Candidate]:
        nonlocal made
        for made in range(1, 50_000):
            subject = FindingSubject("destination", f"192.0.2.1:{made}")
            finding = Finding(Severity.WARNING, subject, "", {}, "", (), "state:listen", rule="rule")
            yield Candidate(finding, Severity.WARNING)

    *listed, more = sorted(RuleEngine([as_rule("rule", rule)]).step(VIEW), key=lambda one: one.subject.kind)
    assert (len(listed), made) == (LISTED, LISTED + 1)
    assert (more.subject.kind, more.headline) == (
        "tcpwatch", "more than 100 findings of this rule: only the first 100 are listed",
    )  # fmt: skip
