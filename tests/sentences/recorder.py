"""Record what the rules say while a test runs."""

import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tcpwatch.model.finding import Finding
from tcpwatch.model.rules.engine import RuleEngine
from tcpwatch.model.rules.half_open.verdict import half_open_verdict
from tcpwatch.model.rules.half_open.verdict_kinds import VerdictKind
from tcpwatch.model.rules.registry import all_rules
from tcpwatch.model.rules.remarks import remarks
from tcpwatch.model.view import View
from tests.sentences.derive import pattern
from tests.sentences.listed import Claims, claims

_URGENT = {VerdictKind.FLOOD, VerdictKind.SLOW_APPLICATION, VerdictKind.BURST, VerdictKind.UNKNOWN}
"""Verdicts of the module `verdict`, with texts of rules; those of `calm` are the others, and both can be unknown."""
_said: dict[str, set[str]] = defaultdict(set)
"""Module → texts."""


def note(findings: Iterable[Finding]) -> None:
    """Record findings of a test that calls rules itself; those of each step of a RuleEngine are recorded anyway."""
    for finding in findings:
        units = (figure.unit for figure in finding.evidence.values())
        for module in (_modules()[finding.rule], "engine"):
            note_texts(module, (finding.headline, finding.why, *finding.advice, *units))


def note_texts(module: str, texts: Iterable[str]) -> None:
    """Record what a module says in another process, or in a verdict about a listener that has closed."""
    _said[module].update(texts)


@functools.cache
def _modules() -> dict[str, str]:
    return {rule.name: rule.check.__module__.rpartition(".")[2] for rule in all_rules()}


def _note_view(view: View) -> None:
    for key in (None, *dict.fromkeys(listener.key for listener in view.listeners)):
        verdict = half_open_verdict(view, key)
        modules = ["verdict", "syn_flood", "syn_queue"] * (verdict.kind in _URGENT)
        for module in [*modules, *["calm"] * (verdict.kind is VerdictKind.UNKNOWN or not modules)]:
            note_texts(module, (verdict.headline, verdict.why))
    _said["remarks"].update(remarks(view.sample))


@contextmanager
def recorded(test: str) -> Iterator[None]:
    """Record what the rules say, and fail at the end if it is not what the list of sentences claims of the test."""
    if test not in claims():
        yield
        return
    step = RuleEngine.step

    def step_and_note(engine: RuleEngine, view: View) -> tuple[Finding, ...]:
        found = step(engine, view)
        note(found)
        _note_view(replace(view, findings=found))
        return found

    _said.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RuleEngine, "step", step_and_note)
        yield
    _check(claims()[test])


def _check(claimed: Claims) -> None:
    missing = [f"{module}: {sentence}" for module, sentence in sorted(claimed.said) if not _find(module, sentence)]
    wrong = [f"{module}: {found}" for module, sentence in sorted(claimed.never) if (found := _find(module, sentence))]
    assert not missing, f"not said, though tests/sentences claims it: {missing}"
    assert not wrong, f"said, though tests/sentences claims that it is false here: {wrong}"


def _find(module: str, sentence: str) -> str:
    """Return a text of that module with the sentence, or nothing."""
    wanted = pattern(sentence)
    return next((text for text in _said[module] if wanted.search(text)), "")
