"""Rule about resets that this host sends: `resets`."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, Severity
from tcpwatch.model.rules.registry import rule
from tcpwatch.model.view import View

_RECENT_S, _EARLIER_S, _LEAST_KNOWN_S = 10, 60, 20
"""The last seconds, the seconds before them, and how many of the latter must be known."""


@rule("resets", rank=140, needs=("OutRsts",))
def resets(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """The host suddenly refuses or tears down many connections.

    Warning: it sent 10 times as many resets per second in the last 10 s as in the minute before, and at least 5/s.
    Source: snmp_counter.rst (TcpOutRsts, TcpEstabResets), tcp_send_active_reset and tcp_v4_send_reset (net/ipv4).
    """
    per_s = view.rate_trend.get("OutRsts", ())
    before = per_s[-_RECENT_S - _EARLIER_S : -_RECENT_S]
    recent, earlier = _mean(per_s[-_RECENT_S:]), _mean(before)
    known_s = sum(not math.isnan(value) for value in before)
    if recent is None or earlier is None or known_s < _LEAST_KNOWN_S:
        return
    if recent >= limits.resets_per_s and recent > limits.resets_factor * earlier:
        yield Candidate(_finding(view, recent, earlier))


def _mean(values: tuple[float, ...]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else None


def _finding(view: View, recent: float, earlier: float) -> Finding:
    embryonic, established = (view.rates.get(name) for name in ("EmbryonicRsts", "EstabResets"))
    return Finding(
        Severity.WARNING,
        FindingSubject("host", view.sample.host),
        f"{units.rate(recent)} resets/s sent in the last {_RECENT_S} s, {units.rate(earlier)}/s in the minute before",
        {
            "resets_sent": Figure(recent, "segments/s"),
            "resets_sent_before": Figure(earlier, "segments/s"),
            "resets_in_handshake": Figure(embryonic, "connections/s"),
            "established_reset": Figure(established, "connections/s"),
        },
        "This host refuses or tears down connections: segments to closed ports or sockets, sockets closed with unread "
        "data or SO_LINGER 0, or a full accept queue with tcp_abort_on_overflow.",
        ("Check whether a service stopped listening: the Listeners screen shows every listener.",
         "Resets to one source from many ports are a scan: see tcpdump -n 'tcp[tcpflags] & tcp-rst != 0'."),
    )  # fmt: skip
