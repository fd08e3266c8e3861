"""The registry finds every rule, reads its docstring, and the README shows what it says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from docs.rules_table import BEGIN, END, README, with_current_table
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Candidate
from tcpwatch.model.rules import registry
from tcpwatch.model.rules.registry import all_rules, rule
from tcpwatch.model.view import View

NAMES = [
    "syn-flood", "accept-queue-full", "accept-stalled", "syn-queue-full", "listener-drops", "port-exhaustion",
    "peer-silent", "connect-stuck", "close-wait-leak", "time-wait-buildup", "zero-window", "retransmissions",
    "tcp-memory", "orphans", "half-closed", "port-scan", "resets", "data-incomplete",
]  # fmt: skip


def test_all_rules_by_rank() -> None:
    assert [rule.name for rule in all_rules()] == NAMES, "public names, and the order of findings"
    assert len({rule.rank for rule in all_rules()}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_are_complete(name: str) -> None:
    (documented,) = (rule for rule in all_rules() if rule.name == name)
    assert documented.meaning.endswith(".")
    assert documented.source.endswith(".")
    assert documented.warning or documented.critical
    assert not documented.warning or documented.warning.endswith(".")
    assert not documented.critical or documented.critical.endswith(".")


def test_sections_of_a_docstring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})

    @rule("example", rank=1)
    def example(view: View, limits: Thresholds) -> Iterator[Candidate]:
        """Something is wrong.

        Warning: a figure is high: above
            its limit.
        Source: RFC 9293.
        """
        yield from ()

    found = registry._registered["example"]
    assert (found.meaning, found.warning, found.critical, found.source) == (
        "Something is wrong.", "a figure is high: above its limit.", "", "RFC 9293.",
    )  # fmt: skip
    with pytest.raises(ValueError, match="two rules are called example"):
        rule("example", rank=2)(example)


def test_the_table_in_the_readme_is_current() -> None:
    readme = README.read_text(encoding="utf-8")
    assert readme.count(BEGIN) == readme.count(END) == 1
    assert readme == with_current_table(readme), "write it anew: python -m docs.rules_table"
