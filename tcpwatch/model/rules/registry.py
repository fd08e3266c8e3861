"""Registry of the rules, and the documentation in their docstrings.

A rule is one function in any module below this folder, decorated with @rule. Nothing else lists the rules.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model import rules
from tcpwatch.model.finding import Candidate
from tcpwatch.model.view import View
from tcpwatch.sample import Sample

RuleFunction = Callable[[View, Thresholds], Iterator[Candidate]]
_SECTIONS = ("Warning", "Critical", "Source")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule's function with its documentation. `meaning` is the first paragraph of the docstring."""

    name: str
    """Public and stable, as in `syn-flood`."""
    rank: int
    """Orders findings of the same severity. A rule whose finding explains others has a small rank."""
    check: RuleFunction
    meaning: str
    warning: str
    """The condition of a warning; empty if the rule has none."""
    critical: str
    """The condition of a critical finding; empty if the rule has none."""
    source: str
    """The RFC, kernel file or document."""
    needs: tuple[str, ...] = ()
    """The data that the rule judges: capabilities of the source, counters, sysctls, `trace`, and tracepoints."""

    def lacking(self, sample: Sample) -> tuple[str, ...]:
        """Return what the rule needs and this sample does not have."""
        return tuple(need for need in self.needs if not _has(sample, need))


def _has(sample: Sample, need: str) -> bool:
    if need == "trace":
        return sample.trace_events is not None
    if "/" in need:  # a tracepoint
        return sample.trace_events is None or need not in sample.trace_events.missing
    return getattr(sample.capabilities, need, need in sample.counters or need in sample.sysctls)


_registered: dict[str, Rule] = {}


def rule(name: str, rank: int, needs: tuple[str, ...] = ()) -> Callable[[RuleFunction], RuleFunction]:
    """Register the decorated function as a rule, and set the name of its findings; `needs` as in Rule.

    Its docstring begins with what a finding means. Then follow the sections `Warning:`, `Critical:` and `Source:`, of
    which the first or the second may be absent.
    """

    def register(check: RuleFunction) -> RuleFunction:
        if name in _registered:
            raise ValueError(f"two rules are called {name}")

        @functools.wraps(check)
        def named(view: View, limits: Thresholds) -> Iterator[Candidate]:
            for candidate in check(view, limits):
                yield replace(candidate, finding=replace(candidate.finding, rule=name))

        _registered[name] = Rule(name, rank, named, *_sections(inspect.getdoc(check) or ""), needs)
        return named

    return register


def _sections(docstring: str) -> tuple[str, str, str, str]:
    """Return the first paragraph and the texts of the sections, each on one line."""
    meaning, _, rest = docstring.partition("\n\n")
    texts, section = dict.fromkeys(("", *_SECTIONS), ""), ""
    for line in rest.splitlines():
        head, colon, words = line.partition(": ")
        section, line = (head, words) if colon and head in _SECTIONS else (section, line)
        texts[section] = f"{texts[section]} {line.strip()}".strip()
    return " ".join(meaning.split()), texts["Warning"], texts["Critical"], texts["Source"]


@functools.cache
def all_rules() -> tuple[Rule, ...]:
    """Import every module below this folder and return the rules found, by rank."""
    for module in pkgutil.walk_packages(rules.__path__, f"{rules.__name__}."):
        importlib.import_module(module.name)
    return tuple(sorted(_registered.values(), key=lambda rule: rule.rank))
