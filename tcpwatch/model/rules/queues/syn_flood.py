"""Rule about SYN floods: `syn-flood`, and the checks and texts that it shares with the verdicts."""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, ListenerSubject, Severity
from tcpwatch.model.listeners.half_open import HalfOpenSummary
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_limits import SYN_QUEUE_SYSCTLS
from tcpwatch.model.rules.queues.syn_counters import (
    COOKIES_ALWAYS,
    COOKIES_NEVER,
    SynCounters,
    counters_of,
    counters_of_host,
)
from tcpwatch.model.rules.queues.syn_queue import (
    group_listeners,
    is_accept_queue_backed_up,
    is_full,
    retransmitted_share,
)
from tcpwatch.model.rules.registry import rule
from tcpwatch.model.view import View


@rule("syn-flood", rank=10, needs=("queues", "timers", "SyncookiesSent", "SyncookiesRecv", *SYN_QUEUE_SYSCTLS))
def syn_flood(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """Clients send SYNs and do not complete the handshake.

    Critical: a SYN queue is full while the accept queue is not, and more than half of its half-open connections do not
        answer the SYN+ACK; or this host sends 50 SYN cookies per second and less than half come back.
    Source: RFC 4987; tcp_syn_flood_action (net/ipv4/tcp_input.c), ip-sysctl.rst (tcp_syncookies).
    """
    for listener in group_listeners(view):
        if is_flooded(listener, view, limits):
            yield Candidate(_flood_finding(listener, view))
    if is_host_flooded(view, limits):
        yield Candidate(_host_flood_finding(view))


def is_flooded(listener: Listener, view: View, limits: Thresholds) -> bool:
    """Return whether a SYN queue is full of connections that do not answer, though the application accepts."""
    # Behind a full accept queue the SYN+ACKs to honest clients are retransmitted too.
    if not is_full(listener, view, limits) or is_accept_queue_backed_up(view, listener, limits):
        return False
    if retransmitted_share(listener) > limits.flood_repeated_share:
        return True
    return counters_of(listener, view, limits).are_unreturned(limits)


def is_host_flooded(view: View, limits: Thresholds) -> bool:
    """Return whether this host sends many cookies, few come back, and no SYN queue explains it."""
    return counters_of_host(view).are_unreturned(limits) and not any(
        is_full(listener, view, limits) and _explains_cookies(listener, view, limits)
        for listener in group_listeners(view)
    )


def _explains_cookies(listener: Listener, view: View, limits: Thresholds) -> bool:
    """Return whether the unreturned cookies are those of this listener, or it is flooded in any case.

    Of a flooded queue more than half was retransmitted, except for a moment after many of its connections expired.
    """
    if 2 * retransmitted_share(listener) > limits.flood_repeated_share:
        return True
    return counters_of(listener, view, limits).are_unreturned(limits)


def flood_headline(listener: Listener, view: View) -> str:
    """`1,000 SYNs/s, 257 of 256 half-open from 256 addresses, 96 % unanswered, 3 of 740 cookies/s returned`."""
    summary = view.half_open_by_listener.get(listener.key)
    own = counters_of(listener, view, view.thresholds)
    sources = f" from {units.plural(summary.sources.distinct, 'address', 'addresses')}" if summary else ""
    headline = (
        f"{_syn_rate(listener, view)}, {units.count(listener.syn_queue.depth)} of "
        f"{units.count(listener.syn_queue.limit)} half-open{sources}, "
        f"{units.share(retransmitted_share(listener))} unanswered"
    )
    if own.sent:
        return headline + f", {units.rate(own.returned)} of {units.rate(own.sent)} cookies/s returned"
    host = counters_of_host(view)
    if own.sent is None and host.sent:
        headline += f"; this host sends {units.rate(host.sent)} SYN cookies/s, {units.rate(host.returned)}/s returned"
    return headline


def _syn_rate(listener: Listener, view: View) -> str:
    own = counters_of(listener, view, view.thresholds)
    at_least = own.sent is None and bool(counters_of_host(view).sent)
    return ("≥ " if at_least else "") + units.plural_rate(_flood_syns_per_s(listener, view), "SYN")


def _flood_syns_per_s(listener: Listener, view: View) -> float | None:
    """Return the SYNs per second to a listener that were not answered; a minimum if its cookies are not known.

    The sum of new half-open connections, cookies that did not come back, and dropped SYNs.
    """
    summary = view.half_open_by_listener.get(listener.key)
    if summary is None or not view.elapsed_s:
        return None
    own = counters_of(listener, view, view.thresholds)
    unreturned = max(0.0, (own.sent or 0.0) - (own.returned or 0.0))
    return summary.arrived / view.elapsed_s + unreturned + (own.dropped or 0.0)


def cookies_headline(view: View) -> str:
    """`740 SYN cookies/s sent, 3/s returned`."""
    sent, returned = view.rates.get("SyncookiesSent"), view.rates.get("SyncookiesRecv")
    always = view.sample.sysctls.get("tcp_syncookies") == COOKIES_ALWAYS
    unknown_port = "; port unknown, as tcp_syncookies=2 leaves the SYN queues empty" if always else ""
    return f"{units.rate(sent)} SYN cookies/s sent, {units.rate(returned)}/s returned{unknown_port}"


FLOOD_WHY = (
    "Most clients do not answer the SYN+ACK, though the accept queue has room: spoofed senders (RFC 4987), or clients "
    "that do not get it."
)
UNRETURNED_WHY = (
    "The kernel answers SYNs with cookies, and few come back as the last ACK: spoofed senders (RFC 4987), or clients "
    "that do not get them."
)


def _flood_finding(listener: Listener, view: View) -> Finding:
    summary = view.half_open_by_listener.get(listener.key)
    return Finding(
        Severity.CRITICAL,
        FindingSubject("listener", ListenerSubject(listener.key)),
        flood_headline(listener, view),
        {
            "arrivals": Figure(_flood_syns_per_s(listener, view), "SYNs/s"),
            **_cookie_figures(counters_of(listener, view, view.thresholds), view),
            **(_half_open_figures(summary) if summary else {}),
        },
        FLOOD_WHY,
        _flood_advice(view.sample.sysctls.get("tcp_syncookies"), summary),
        f"state:syn-rcvd {listener.key.local_filter}",
    )


def _host_flood_finding(view: View) -> Finding:
    return Finding(
        Severity.CRITICAL,
        FindingSubject("host", view.sample.host),
        cookies_headline(view),
        {
            "arrivals": Figure(view.syn_arrivals_per_s, "SYNs/s"),
            **_cookie_figures(counters_of_host(view), view),
        },
        UNRETURNED_WHY,
        ("Find the ports and sources of the SYNs in a packet capture: tcpdump -n 'tcp[tcpflags] == tcp-syn'.",
         "Block the sources before they reach this host; meanwhile the cookies keep the service reachable."),
        "state:syn-rcvd",
    )  # fmt: skip


def _cookie_figures(counters: SynCounters, view: View) -> dict[str, Figure]:
    return {
        "cookies_sent": Figure(counters.sent, "cookies/s"),
        "cookies_returned": Figure(counters.returned, "cookies/s"),
        "host_cookies_sent": Figure(view.rates.get("SyncookiesSent"), "cookies/s"),
        "host_cookies_returned": Figure(view.rates.get("SyncookiesRecv"), "cookies/s"),
        "cookies_failed": Figure(view.rates.get("SyncookiesFailed"), "cookies/s"),
        "tcp_syncookies": Figure(view.sample.sysctls.get("tcp_syncookies")),
    }


def _half_open_figures(summary: HalfOpenSummary) -> dict[str, Figure]:
    slash_24, slash_64 = summary.sources.largest("/24"), summary.sources.largest("/64")
    return {
        "half_open": Figure(summary.count, "connections"),
        "repeated_share": Figure(summary.retransmitted_share, "share"),
        "oldest": Figure(summary.oldest_s, "s"),
        "sources": Figure(summary.sources.distinct, "addresses"),
        "distinct_share": Figure(summary.sources.distinct_share, "share"),
        "largest_24": Figure(slash_24.prefix if slash_24 else None),
        "largest_24_share": Figure(slash_24.share if slash_24 else None, "share"),
        "largest_64": Figure(slash_64.prefix if slash_64 else None),
        "largest_64_share": Figure(slash_64.share if slash_64 else None, "share"),
    }


def _flood_advice(mode: int | None, summary: HalfOpenSummary | None) -> tuple[str, ...]:
    networks = filter(None, (summary.sources.largest("/16"), summary.sources.largest("/48"))) if summary else ()
    largest = max(networks, key=lambda network: network.share, default=None)
    cookies = (
        "Set net.ipv4.tcp_syncookies=1: then a full SYN queue refuses no honest client."
        if mode == COOKIES_NEVER
        else "SYN cookies keep the service reachable; a larger backlog would only be flooded too."
    )
    if summary is None:
        return (cookies,)
    block = (
        f"{units.share(largest.share)} come from {largest.prefix}: block it before it reaches this host."
        if largest is not None and largest.share >= 0.5
        else "The sources are widely spread: limit the rate, or block upstream; rules for single addresses do not help."
    )
    return cookies, block
