"""Situations from public bug reports on the real kernel: each has exactly the findings that it should have."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from threading import Event

import pytest

from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Finding
from tcpwatch.model.states import Role, State
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import open_source
from tests import lab
from tests.lab.reports.situations import SITUATIONS, Situation, connections_outlive_their_listener
from tests.lab.reports.stage import Stage

INTERVAL_S = 0.3
STEPS_TO_FIND = 30


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A new namespace for each situation."""
    lab.require(lab.namespaces, lab.tun, lab.program("ip"))
    with lab.Namespace() as namespace, ExitStack() as stack:
        yield Stage(namespace, stack)


def texts(finding: Finding) -> str:
    """Return all that a person may read of a finding."""
    return "\n".join((finding.rule, str(finding.subject), finding.headline, finding.why, *finding.advice))


def check(situation: Situation, findings: tuple[Finding, ...]) -> bool:
    """Fail if a finding is wrong; return whether all that are expected are there."""
    found = Counter(f"{finding.rule} {finding.severity.name.lower()}" for finding in findings)
    expected = Counter(situation.expect)
    early = Counter(each.replace("critical", "warning") for each in situation.expect)  # may become critical later
    for finding in findings:
        text = texts(finding)
        known = f"{finding.rule} {finding.severity.name.lower()}"
        assert known in expected or known in early, text
        assert not any(re.search(pattern, text) for pattern in situation.never), text
    return found == expected


@pytest.mark.parametrize("situation", SITUATIONS, ids=[situation.make.__name__ for situation in SITUATIONS])
def test_findings_of_a_situation(situation: Situation, stage: Stage) -> None:
    situation.make(stage)
    with closing(Monitor(open_source("sock_diag"), thresholds=Thresholds(**situation.thresholds))) as monitor:
        more = situation.steps
        for _ in range(STEPS_TO_FIND):
            findings = monitor.step().findings
            complete = check(situation, findings)
            more -= complete
            if not more:
                break
            Event().wait(INTERVAL_S)
        assert complete, findings
        text = "\n".join(map(texts, findings))
        for pattern in situation.says:
            assert re.search(pattern, text), text


def test_connections_keep_their_role_when_their_listener_is_closed(stage: Stage) -> None:
    connections_outlive_their_listener(stage)
    with closing(Monitor(open_source("sock_diag"))) as monitor:
        rows = monitor.step().rows
        server = (rows.state == State.ESTABLISHED) & (rows.table["idiag_sport"] == 8088)
        assert rows.role[server].tolist() == [Role.SERVER] * 5
