"""Rule about ephemeral ports: `port-exhaustion`."""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.analyses.ephemeral_ports import Destination, EphemeralPorts
from tcpwatch.model.analyses.port_facts import FailedConnects
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, Severity
from tcpwatch.model.rules.registry import rule
from tcpwatch.model.view import View


@rule("port-exhaustion", rank=40, needs=("timers", "ip_local_port_range_low"))
def port_exhaustion(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """The host runs out of ephemeral ports toward one destination, or altogether because of bind().

    Warning: 50 % of the ports usable toward the destination are in use; or 50 % of the range is, and bind() has chosen
        a quarter of it; or all ports of a gapless block that connect() would not have chosen.
    Critical: 80 % are in use and the number rises, or 95 % are in use; or the trace shows that connect() found no port.
    Source: __inet_hash_connect (net/ipv4/inet_hashtables.c), ip-sysctl.rst (ip_local_port_range, tcp_tw_reuse).
    """
    ports = view.ephemeral_ports
    if ports is None:
        return
    least = 0.0
    if ports.chosen_by_bind and ports.occupied_share >= limits.ports_share:
        severity = _severity(ports.occupied_share, ports.runs_out_in_s is not None, limits)
        yield Candidate(_range_finding(ports, view, severity))
        least = limits.ports_share * ports.range.size  # what the range explains is not reported again
    listed = set()
    for to in ports.destinations:
        listed.add((to.local_address, to.remote_address, to.remote_port))
        if to.failed:
            yield Candidate(_finding(to, ports, view, Severity.CRITICAL), Severity.CRITICAL)
        elif to.share >= limits.ports_share and to.used >= least:
            yield Candidate(_finding(to, ports, view, _severity(to.share, to.runs_out_in_s is not None, limits)))
        elif to.block or _unlikely_to_be_reused(to, view, limits):
            yield Candidate(_finding(to, ports, view, Severity.WARNING))
    for calls in ports.failed:
        if calls.ends not in listed:
            yield Candidate(_failed_finding(calls, ports), Severity.CRITICAL)


def _severity(share: float, rising: bool, limits: Thresholds) -> Severity:
    exhausted = share >= limits.ports_exhausted_share or (share >= limits.ports_critical_share and rising)
    return Severity.CRITICAL if exhausted else Severity.WARNING


def _unlikely_to_be_reused(to: Destination, view: View, limits: Thresholds) -> bool:
    """Return whether the ports are exhausted if the TIME_WAITs of which nothing is known had no timestamps.

    That is likely where other connections of the host, or to this destination, have none.
    """
    unlikely = view.sample.sysctls.get("tcp_timestamps", 1) == 0 or to.without_timestamps > 0
    return unlikely and to.used + to.unproven >= limits.ports_share * to.usable


_WHY = (
    "Each connection to the same address and port needs its own local port. When none is left, connect() fails "
    "with EADDRNOTAVAIL."
)


def _finding(to: Destination, ports: EphemeralPorts, view: View, severity: Severity) -> Finding:
    why = f"{_WHY} From 50 % on connect() takes longer, as it first tries only every second port."
    if to.block:
        why = (
            "connect() takes every second port first, so something else chose these ports: callers with a range of "
            "their own (IP_LOCAL_PORT_RANGE) or bind(). Callers that may use only these ports get EADDRNOTAVAIL."
        )
    if not to.exact:
        why += _unclear(to)
    on = f" on {to.interface}" if to.interface else ""
    return Finding(
        severity,
        FindingSubject("destination", f"{to.remote} from {to.local_address}{on}"),
        _headline(to),
        {
            "used": Figure(to.used, "ports"),
            "usable": Figure(to.usable, "ports"),
            "left": Figure(to.free, "ports"),
            "left_at_least": Figure(to.free_least, "ports"),
            "time_wait": Figure(to.time_wait, "ports"),
            "reusable": Figure(to.reusable, "ports"),
            "reusable_unproven": Figure(to.unproven, "ports"),
            "next_free_in": Figure(to.next_free_s, "s"),
            "exhausted_in": Figure(to.runs_out_in_s, "s"),
            "failed_connects": Figure(to.failed, "calls"),
            "process": Figure(to.process or None),
            **_range_evidence(ports),
            "tcp_tw_reuse": Figure(view.sample.sysctls.get("tcp_tw_reuse")),
            "tcp_tw_reuse_delay": Figure(view.sample.sysctls.get("tcp_tw_reuse_delay"), "ms"),
        },
        why,
        _advice(to, ports, view),
        f"raddr:{to.remote_address} rport:{to.remote_port} laddr:{to.local_address}",
    )


def _range_evidence(ports: EphemeralPorts) -> dict[str, Figure]:
    span = ports.range
    return {
        "range": Figure(f"{span.low}-{span.high}"),
        "reserved": Figure(span.reserved, "ports"),
        "held_by_bind": Figure(span.held, "ports"),
    }


def _unclear(to: Destination) -> str:
    reasons = []
    if to.unproven:
        reasons.append("whether the connections in TIME_WAIT had timestamps, without which their ports are not reused")
    if to.unclear:
        reasons.append("whether bind() chose ports that are in TIME_WAIT or in use elsewhere")
    return f" The kernel does not show {', or '.join(reasons)}: fewer ports may be left."


def _headline(to: Destination) -> str:
    used = f"{units.share(to.share)} of {units.count(to.usable)} ports used"
    if to.block:
        first, last = to.block
        used = f"all {units.count(last - first + 1)} usable ports from {first} to {last} are used"
    parts = [used, f"{to.free_text} left"] if not to.block else [used]
    if to.failed:
        parts.insert(0, "connect() fails with EADDRNOTAVAIL")
    if to.time_wait:
        parts.append(f"{units.count(to.time_wait)} TIME_WAIT")
    if to.unproven and not to.block and to.used + to.unproven >= to.usable / 2:
        parts.append(f"{units.count(to.unproven)} TIME_WAIT perhaps not reusable")
    if to.runs_out_in_s is not None and to.free:
        parts.append(f"runs out in {units.duration(to.runs_out_in_s)}")
    if to.next_free_s is not None and not to.free:
        parts.append(f"next free in {units.duration(to.next_free_s)}")
    if to.process:
        parts.append(to.process)
    return ", ".join(parts)


_POOL = "Keep connections open and reuse them (a connection pool, keep-alive)."
_BIND = (
    "Programs seem to call bind() before connect(), so that each port serves one destination only: "
    "use IP_BIND_ADDRESS_NO_PORT."
)
_MORE = "Widen net.ipv4.ip_local_port_range; a second local or remote address doubles the number of ports."


def _advice(to: Destination, ports: EphemeralPorts, view: View) -> tuple[str, ...]:
    advice = [_POOL]
    delay_ms = view.sample.sysctls.get("tcp_tw_reuse_delay", 1000)
    if to.without_timestamps > to.used / 2:
        advice.append("The connections in TIME_WAIT had no TCP timestamps, so tcp_tw_reuse does not free their ports.")
    elif to.time_wait > to.used / 2 and view.sample.sysctls.get("tcp_tw_reuse") != 1:
        after = f"after {units.duration(delay_ms / 1000)}" if delay_ms != 1000 else "after one second"
        advice.append(f"With net.ipv4.tcp_tw_reuse=1 connect() takes the port of a TIME_WAIT {after}.")
    elif to.time_wait > to.used / 2 and delay_ms > 1000:
        advice.append(
            f"net.ipv4.tcp_tw_reuse_delay keeps the port of a TIME_WAIT for {units.duration(delay_ms / 1000)}."
        )
    if to.block:
        advice.append("See which range the callers set (IP_LOCAL_PORT_RANGE, the source ports of a proxy).")
    if ports.bound_before_connect:
        advice.append(_BIND)
    return (*advice, _MORE)


def _range_finding(ports: EphemeralPorts, view: View, severity: Severity) -> Finding:
    span, unused = ports.range, ports.range.size - ports.occupied
    parts = [f"{units.share(ports.occupied_share)} of all {units.count(span.size)} ports in use"]
    if span.held:
        parts.append(f"{units.count(span.held)} held by bind()")
    if ports.distinct:
        parts.append(f"{units.count(ports.distinct)} by connections to {units.plural(ports.count, 'destination')}")
    parts.append(f"{units.count(unused)} unused")
    if ports.runs_out_in_s is not None and unused:
        parts.append(f"runs out in {units.duration(ports.runs_out_in_s)}")
    if ports.owner:
        parts.append(str(ports.owner))
    return Finding(
        severity,
        FindingSubject("host", view.sample.host),
        ", ".join(parts),
        {
            "used": Figure(ports.occupied, "ports"),
            "usable": Figure(span.size, "ports"),
            "left": Figure(unused, "ports"),
            "exhausted_in": Figure(ports.runs_out_in_s, "s"),
            "destinations": Figure(ports.count),
            "not_chosen_by_connect": Figure(span.held + ports.not_by_connect, "ports"),
            "process": Figure(str(ports.owner) if ports.owner else None),
            **_range_evidence(ports),
        },
        "A port that bind() chose serves no other connection, whatever its destination. When no port is unused, bind() "
        "to port 0 fails with EADDRINUSE; when bind() has chosen all, connect() fails with EADDRNOTAVAIL.",
        (_BIND, _POOL, _MORE),
        f"lport:{span.low}-{span.high}",
    )


def _failed_finding(calls: FailedConnects, ports: EphemeralPorts) -> Finding:
    """Return the finding about a destination toward which no usable port is in use."""
    local, remote, port = calls.ends
    return Finding(
        Severity.CRITICAL,
        FindingSubject("destination", f"{units.endpoint(remote, port)} from {local}"),
        f"connect() fails with EADDRNOTAVAIL, {units.count(ports.range.held)} of {units.count(ports.range.size)} "
        "ports held by bind()",
        {"failed_connects": Figure(calls.count, "calls"), **_range_evidence(ports)},
        _WHY,
        (_BIND, _POOL, _MORE),
        f"raddr:{remote} rport:{port}",
    )
