"""Rule about ephemeral ports: `port-exhaustion`.

Source: __inet_hash_connect in net/ipv4/inet_hashtables.c; ip-sysctl.rst (ip_local_port_range, tcp_tw_reuse).
"""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.analyses.ephemeral_ports import Destination, EphemeralPorts
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, Severity
from tcpwatch.model.view import View


def port_exhaustion(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """Most ports toward one destination are in use."""
    ports = view.ephemeral_ports
    if ports is None:
        return
    for one in ports.destinations:
        if one.share < limits.ports_share:
            return  # the fullest come first
        rising = one.runs_out_in_s is not None
        critical = one.share >= limits.ports_exhausted_share or (one.share >= limits.ports_critical_share and rising)
        yield Candidate(_finding(one, ports, view, Severity.CRITICAL if critical else Severity.WARNING))


def _finding(one: Destination, ports: EphemeralPorts, view: View, severity: Severity) -> Finding:
    span = ports.range
    return Finding(
        "port-exhaustion",
        severity,
        FindingSubject("destination", f"{one.remote} from {one.local_address}"),
        _headline(one),
        {
            "used": Figure(one.used, "ports"),
            "usable": Figure(one.usable, "ports"),
            "left": Figure(one.free, "ports"),
            "time_wait": Figure(one.time_wait, "ports"),
            "reusable": Figure(one.reusable, "ports"),
            "next_free_in": Figure(one.next_free_s, "s"),
            "exhausted_in": Figure(one.runs_out_in_s, "s"),
            "process": Figure(one.process or None),
            "range": Figure(f"{span.low}-{span.high}"),
            "reserved": Figure(span.reserved, "ports"),
            "held_by_bind": Figure(span.held, "ports"),
            "tcp_tw_reuse": Figure(view.sample.sysctls.get("tcp_tw_reuse")),
        },
        "Each connection to the same address and port needs a local port of its own. When none is left, connect() "
        "fails with EADDRNOTAVAIL; from half on it searches longer, as it tries every other port first.",
        _advice(one, ports, view),
        f"raddr:{one.remote_address} rport:{one.remote_port} laddr:{one.local_address}",
    )


def _headline(one: Destination) -> str:
    said = [f"{units.share(one.share)} of {units.count(one.usable)} ports used, {units.count(one.free)} left"]
    if one.time_wait:
        said.append(f"{units.count(one.time_wait)} TIME_WAIT")
    if one.runs_out_in_s is not None and one.free:
        said.append(f"exhausted in {units.duration(one.runs_out_in_s)}")
    if one.next_free_s is not None and not one.free:
        said.append(f"next free in {units.duration(one.next_free_s)}")
    if one.process:
        said.append(one.process)
    return ", ".join(said)


def _advice(one: Destination, ports: EphemeralPorts, view: View) -> tuple[str, ...]:
    pool = "Keep connections open and use them again (a pool, keep-alive)."
    waits = one.time_wait > one.used / 2 and view.sample.sysctls.get("tcp_tw_reuse") != 1
    reuse = "net.ipv4.tcp_tw_reuse=1 lets connect() take ports of TIME_WAITs after a second." if waits else None
    wider = "net.ipv4.ip_local_port_range gives more ports; a second local or remote address gives as many again."
    bound = (
        "Programs seem to bind() before connect(), so that a port serves one destination only: IP_BIND_ADDRESS_NO_PORT."
        if ports.bound_before_connect
        else None
    )
    return tuple(filter(None, (pool, reuse, bound, wider)))
