"""Rule about who looks for open ports: `port-scan`.

Sources: RFC 9293 section 3.10.7.1 (a segment to a CLOSED port is answered by a reset, whatever its flags, RST aside);
nmap(1) on SYN, FIN, NULL and connect() scans. Only the trace tells these resets apart from others.
"""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.analyses.port_scans import PortScan
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, Severity
from tcpwatch.model.view import View

SOURCES = 5
"""Sources that are told; a scan from many hosts at once is not to bury what else is wrong."""


def port_scan(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """One source meets resets at many ports within seconds."""
    scanning = [one for one in view.port_scans if one.ports >= limits.port_scan_ports]
    for one in scanning[:SOURCES]:
        yield Candidate(_finding(one, len(scanning)))


def _finding(one: PortScan, sources: int) -> Finding:
    elsewhere = "" if one.in_namespace else " (maybe of another network namespace)"
    more = ", …" if one.ports > len(one.examples) else ""
    examples = ", ".join(map(str, one.examples)) + more
    return Finding(
        "port-scan",
        Severity.WARNING,
        FindingSubject("source", one.source),
        f"met a reset at {units.count(one.ports)} ports in {units.duration(one.window_s)}{elsewhere}: {examples}",
        {
            "ports": Figure(one.ports, "ports"),
            "resets": Figure(one.resets, "segments"),
            "window": Figure(one.window_s, "s"),
            "examples": Figure(examples),
            "sources": Figure(sources, "addresses"),
        },
        "A segment to a port where nobody listens is answered by a reset: lone SYN, FIN or empty (NULL) segments are "
        "sent to find out which ports are open. A client of services that have stopped looks the same.",
        (
            "Is it one of yours: a vulnerability scanner, a monitoring system, a client of a service that has stopped?",
            f"If not, see what it has open (the filter below) and let the firewall drop what comes from {one.source}.",
        ),
        f"raddr:{one.source}",
    )
