"""Rule about ephemeral ports: `port-exhaustion`."""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.analyses.ephemeral_ports import Destination, EphemeralPorts
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, Severity
from tcpwatch.model.rules.registry import rule
from tcpwatch.model.view import View


@rule("port-exhaustion", rank=40)
def port_exhaustion(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """The host runs out of ephemeral ports toward one destination.

    Warning: 50 % of the ports usable toward the destination are in use.
    Critical: 80 % are in use and the number rises, or 95 % are in use.
    Source: __inet_hash_connect (net/ipv4/inet_hashtables.c), ip-sysctl.rst (ip_local_port_range, tcp_tw_reuse).
    """
    ports = view.ephemeral_ports
    if ports is None:
        return
    for destination in ports.destinations:
        share = destination.share
        if share < limits.ports_share:
            return  # the fullest come first
        rising = destination.runs_out_in_s is not None
        critical = share >= limits.ports_exhausted_share or (share >= limits.ports_critical_share and rising)
        yield Candidate(_finding(destination, ports, view, Severity.CRITICAL if critical else Severity.WARNING))


def _finding(destination: Destination, ports: EphemeralPorts, view: View, severity: Severity) -> Finding:
    port_range = ports.range
    return Finding(
        severity,
        FindingSubject("destination", f"{destination.remote} from {destination.local_address}"),
        _headline(destination),
        {
            "used": Figure(destination.used, "ports"),
            "usable": Figure(destination.usable, "ports"),
            "left": Figure(destination.free, "ports"),
            "time_wait": Figure(destination.time_wait, "ports"),
            "reusable": Figure(destination.reusable, "ports"),
            "next_free_in": Figure(destination.next_free_s, "s"),
            "exhausted_in": Figure(destination.runs_out_in_s, "s"),
            "process": Figure(destination.process or None),
            "range": Figure(f"{port_range.low}-{port_range.high}"),
            "reserved": Figure(port_range.reserved, "ports"),
            "held_by_bind": Figure(port_range.held, "ports"),
            "tcp_tw_reuse": Figure(view.sample.sysctls.get("tcp_tw_reuse")),
        },
        "Each connection to the same address and port needs its own local port. When none is left, connect() fails "
        "with EADDRNOTAVAIL. From 50 % on connect() takes longer, as it first tries only every second port.",
        _advice(destination, ports, view),
        f"raddr:{destination.remote_address} rport:{destination.remote_port} laddr:{destination.local_address}",
    )


def _headline(destination: Destination) -> str:
    used, usable = units.share(destination.share), units.count(destination.usable)
    parts = [f"{used} of {usable} ports used, {units.count(destination.free)} left"]
    if destination.time_wait:
        parts.append(f"{units.count(destination.time_wait)} TIME_WAIT")
    if destination.runs_out_in_s is not None and destination.free:
        parts.append(f"runs out in {units.duration(destination.runs_out_in_s)}")
    if destination.next_free_s is not None and not destination.free:
        parts.append(f"next free in {units.duration(destination.next_free_s)}")
    if destination.process:
        parts.append(destination.process)
    return ", ".join(parts)


def _advice(destination: Destination, ports: EphemeralPorts, view: View) -> tuple[str, ...]:
    pool = "Keep connections open and reuse them (a connection pool, keep-alive)."
    mostly_waiting = destination.time_wait > destination.used / 2 and view.sample.sysctls.get("tcp_tw_reuse") != 1
    reuse = "With net.ipv4.tcp_tw_reuse=1 connect() takes the port of a TIME_WAIT after one second."
    bind = (
        "Programs seem to call bind() before connect(), so that each port serves one destination only: "
        "use IP_BIND_ADDRESS_NO_PORT."
    )
    more = "Widen net.ipv4.ip_local_port_range; a second local or remote address doubles the number of ports."
    return (pool, *([reuse] if mostly_waiting else []), *([bind] if ports.bound_before_connect else []), more)
