"""Rule about port scans: `port-scan`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.analyses.port_scans import MAX_SCANS, PortScan
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, Severity
from tcpwatch.model.rules.registry import rule
from tcpwatch.model.view import View

SOURCES = 5
"""Sources with a finding each. A scan from more hosts at once is one finding, which does not hide others."""
_NAMED = 3


@rule("port-scan", rank=130, needs=("trace", "tcp/tcp_send_reset"))
def port_scan(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """One source probes this host for open ports. Needs the kernel's tracepoints.

    Warning: this host sent resets to one source from 20 ports within 10 s.
    Source: RFC 9293, section 3.10.7.1 (a segment to a closed port is answered with a reset), nmap(1).
    """
    scans = [scan for scan in view.port_scans if scan.ports >= limits.port_scan_ports]
    if len(scans) > SOURCES:
        yield Candidate(_many(view, scans, limits))
        return
    for scan in scans:
        yield Candidate(_finding(scan, len(scans)))


_WHY = (
    "The kernel answers a segment to a port without a listener with a reset. Scanners send single SYN, FIN or empty "
    "(NULL) segments to find open ports. A client of services that have stopped looks the same."
)
_YOURS = "a vulnerability scanner, a monitoring system, a client of a stopped service."


def _many(view: View, scans: Sequence[PortScan], limits: Thresholds) -> Finding:
    """Return one finding for all sources; the analysis lists MAX_SCANS of them at most."""
    cut = len(scans) >= MAX_SCANS
    names = ", ".join(scan.source for scan in scans[:_NAMED])
    return Finding(
        Severity.WARNING,
        FindingSubject("host", view.sample.host),
        f"{'at least ' * cut}{units.plural(len(scans), 'source')} got resets from "
        f"{units.plural(round(limits.port_scan_ports), 'port')} or more each in {units.duration(scans[0].window_s)}: "
        f"{names}, …",
        {
            "sources": Figure(None if cut else len(scans), "addresses"),
            "ports": Figure(scans[0].ports, "ports"),
            "window": Figure(scans[0].window_s, "s"),
        },
        _WHY,
        (
            f"Check whether some are yours: {_YOURS}",
            "If not, look at their open connections and limit new connections in the firewall.",
        ),
        f"raddr:{','.join(scan.source for scan in scans)}",
    )


def _finding(scan: PortScan, sources: int) -> Finding:
    namespace = "" if scan.in_namespace else " (maybe of another network namespace)"
    examples = ", ".join(map(str, scan.examples)) + (", …" if scan.ports > len(scan.examples) else "")
    ports = units.plural(scan.ports, "port")
    return Finding(
        Severity.WARNING,
        FindingSubject("source", scan.source),
        f"got resets from {ports} in {units.duration(scan.window_s)}{namespace}: {examples}",
        {
            "ports": Figure(scan.ports, "ports"),
            "resets": Figure(scan.resets, "segments"),
            "window": Figure(scan.window_s, "s"),
            "examples": Figure(examples),
            "sources": Figure(sources, "addresses"),
        },
        _WHY,
        (
            f"Check whether it is one of yours: {_YOURS}",
            f"If not, look at its open connections (filter below) and block {scan.source} in the firewall.",
        ),
        f"raddr:{scan.source}",
    )
