"""Remarks: what is not looked at although nothing has failed, names not read, forged events; they are no findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from tcpwatch import units
from tcpwatch.model.rules.registry import Rule, all_rules
from tcpwatch.sample import Capabilities, Sample

_CAPABILITIES = frozenset(field.name for field in fields(Capabilities))
_NOT_WANTED = ("not asked for", "switched off")
"""Reasons why there is no trace that need no remark."""


def remarks(sample: Sample) -> tuple[str, ...]:
    """Return what is not looked at or was forged, in words."""
    lacking = {rule: words for rule, words in missing_data(sample).items() if rule not in blind_rules(sample)}
    return (*host_remarks(sample), *[lack_of_data(lacking)] * bool(lacking))


def host_remarks(sample: Sample) -> tuple[str, ...]:
    """Return what was forged, which names are not read, and that other namespaces are not watched, in words."""
    words = list(sample.unanswered)
    if forged := forged_events(sample):
        words.append(f"ignored: {forged}, sent by a process that is not the kernel")
    if sample.other_namespaces:
        verb = "is" if sample.other_namespaces == 1 else "are"
        at_least = "" if sample.source.privilege == "root" else "at least "  # those of other users are hidden
        namespaces = units.plural(sample.other_namespaces, "other network namespace")
        words.append(f"{at_least}{namespaces} with TCP sockets {verb} not watched")
    return tuple(words)


def lack_of_data(lacking: Mapping[Rule, str]) -> str:
    """Return rules and what they lack as one text."""
    return "rules without all their data: " + ", ".join(f"{rule.name} ({words})" for rule, words in lacking.items())


def missing_data(sample: Sample) -> dict[Rule, str]:
    """Return what rules lack, in words, by rank; without a trace that nobody wants."""
    unwanted = ("trace",) if sample.source.why_no_trace in _NOT_WANTED else ()
    return {
        rule: ", ".join(_shown(sample, need) for need in needs)
        for rule, needs in rules_without_data(sample).items()
        if needs != unwanted
    }


def forged_events(sample: Sample) -> str:
    """Return `3 forged destroy events`; empty if there were none since the start."""
    forged = sample.destroyed.forged if sample.destroyed else 0
    return units.plural(forged, "forged destroy event") if forged else ""


def _shown(sample: Sample, need: str) -> str:
    return f"no trace: {sample.source.why_no_trace}" if need == "trace" else f"no {need}"


def rules_without_data(sample: Sample) -> dict[Rule, tuple[str, ...]]:
    """Return the rules that this sample does not have all data for, and what they lack, by rank."""
    lacking = {rule: rule.lacking(sample) for rule in all_rules()}
    return {rule: needs for rule, needs in lacking.items() if needs}


def blind_rules(sample: Sample) -> tuple[Rule, ...]:
    """Return the rules that lack data which every host has, because the source cannot read it."""
    return tuple(rule for rule, needs in rules_without_data(sample).items() if _is_blind(sample, needs))


def _is_blind(sample: Sample, needs: tuple[str, ...]) -> bool:
    nothing_read = not sample.counters or not sample.sysctls
    return any(need in _CAPABILITIES or (nothing_read and need != "trace") for need in needs)
