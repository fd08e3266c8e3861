"""The rule about port scans."""

from __future__ import annotations

import pytest

from tcpwatch.config.thresholds import DEFAULT, Thresholds
from tcpwatch.model.analyses.port_scans import MAX_SCANS, PortScan
from tcpwatch.model.finding import Figure, Severity
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.rules.engine import STEPS_IN, RuleEngine
from tcpwatch.model.rules.port_scan import SOURCES, port_scan
from tests.support.views import make_rows, make_view, sock


def scan(ports: int, source: str = "192.0.2.9", here: bool = True) -> PortScan:
    return PortScan(source, ports, 2 * ports, 10.0, tuple(range(1, min(ports, 4) + 1)), here)


SCANS = {
    "nobody": ([], []),
    "some ports": ([scan(19)], []),
    "enough ports": ([scan(20)], ["192.0.2.9"]),
    "two sources": ([scan(65_535, "2001:db8::9"), scan(1024), scan(3, "192.0.2.1")], ["2001:db8::9", "192.0.2.9"]),
    "few sources": (
        [scan(30, f"192.0.2.{at}") for at in range(SOURCES)],
        [f"192.0.2.{at}" for at in range(SOURCES)],
    ),
}


@pytest.mark.parametrize(("scans", "sources"), SCANS.values(), ids=SCANS)
def test_which_sources_have_a_finding(scans: list[PortScan], sources: list[str]) -> None:
    found = list(port_scan(make_view(port_scans=tuple(scans)), DEFAULT))
    assert [str(one.finding.subject) for one in found] == [f"source {source}" for source in sources]
    assert all(one.finding.severity is Severity.WARNING and one.immediate_severity is None for one in found)


@pytest.mark.parametrize(
    ("count", "headline"),
    [
        (SOURCES + 1, "6 sources got resets from 20 ports or more each in 10 s: ::0, ::1, ::2, …"),
        (
            MAX_SCANS,
            "at least 20 sources got resets from 20 ports or more each in 10 s: ::0, ::1, ::2, …",
        ),
    ],
)
def test_many_sources_are_one_finding(count: int, headline: str) -> None:
    (one,) = port_scan(make_view(port_scans=tuple(scan(30, f"::{at:x}") for at in range(count))), DEFAULT)
    assert (str(one.finding.subject), one.finding.headline) == ("host web-1", headline)
    assert one.finding.evidence["sources"].value == (None if count == MAX_SCANS else count)
    Filter.parse(one.finding.filter)


def test_headline_and_evidence() -> None:
    (one,) = port_scan(make_view(port_scans=(scan(1_024),)), DEFAULT)
    assert one.finding.headline == "got resets from 1,024 ports in 10 s: 1, 2, 3, 4, …"
    assert one.finding.evidence["ports"] == Figure(1_024, "ports")
    assert one.finding.evidence["resets"] == Figure(2_048, "segments")
    (elsewhere,) = port_scan(make_view(port_scans=(scan(4, here=False),)), Thresholds(port_scan_ports=4))
    assert elsewhere.finding.headline == (
        "got resets from 4 ports in 10 s (maybe of another network namespace): 1, 2, 3, 4"
    )


def test_the_filter_selects_what_the_source_has_open() -> None:
    (one,) = port_scan(make_view(port_scans=(scan(30),)), DEFAULT)
    rows = make_rows([sock("ESTAB", "10.0.0.1:22", "192.0.2.9:1"), sock("ESTAB", "10.0.0.1:22", "192.0.2.99:1")])
    assert Filter.parse(one.finding.filter).mask(rows).tolist() == [True, False]
    (v6,) = port_scan(make_view(port_scans=(scan(30, "2001:db8::9"),)), DEFAULT)
    Filter.parse(v6.finding.filter)


def test_the_engine_applies_the_rule() -> None:
    diagnosis, view = RuleEngine(), make_view(port_scans=(scan(30),))
    found = [diagnosis.step(view) for _ in range(STEPS_IN)][-1]
    assert [str(one.subject) for one in found] == ["source 192.0.2.9"]
