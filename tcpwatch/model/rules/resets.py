"""Rule about connections that are refused or torn down: `resets`.

Source: snmp_counter.rst (TcpOutRsts, TcpEstabResets), tcp_send_active_reset and tcp_v4_send_reset in net/ipv4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, Severity
from tcpwatch.model.view import View

_NOW_S, _BEFORE_S, _KNOWN_S = 10, 60, 20
"""The last seconds, those before them, and how many of the latter must be known."""


def resets(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """Far more resets are sent than in the minute before."""
    slots = view.rate_trend.per_s.get("OutRsts", ())
    now_slots, before_slots = (round(seconds / view.rate_trend.slot_s) for seconds in (_NOW_S, _BEFORE_S))
    now = _mean(slots[-now_slots:])
    earlier = slots[-now_slots - before_slots : -now_slots]
    before = _mean(earlier)
    known_s = view.rate_trend.slot_s * sum(not math.isnan(value) for value in earlier)
    if now is None or before is None or known_s < _KNOWN_S:
        return
    if now >= limits.resets_per_s and now > limits.resets_factor * before:
        yield Candidate(_finding(view, now, before))


def _mean(values: tuple[float, ...]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else None


def _finding(view: View, now: float, before: float) -> Finding:
    embryonic, established = (view.rates.get(name) for name in ("EmbryonicRsts", "EstabResets"))
    return Finding(
        "resets",
        Severity.WARNING,
        FindingSubject("host", view.sample.host),
        f"{units.rate(now)} resets/s sent in the last {_NOW_S} s, {units.rate(before)}/s in the minute before",
        {
            "resets_sent": Figure(now, "segments/s"),
            "resets_sent_before": Figure(before, "segments/s"),
            "resets_in_handshake": Figure(embryonic, "connections/s"),
            "established_reset": Figure(established, "connections/s"),
        },
        "This host refuses or tears down connections: SYNs to ports where nobody listens, sockets closed with unread "
        "data, or a full accept queue with tcp_abort_on_overflow.",
        ("Did a service stop listening? Screen 3 lists who listens.",
         "Many ports from one source is a scan: tcpdump -n 'tcp[tcpflags] & tcp-rst != 0' shows them."),
        "",
    )  # fmt: skip
