"""Rules about SYN queues: `syn-queue-full` and `syn-flood`, and the checks that they share with the verdicts."""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, ListenerSubject, Severity
from tcpwatch.model.listeners.half_open import HalfOpenSummary
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_limits import LimitSource
from tcpwatch.model.rules.registry import rule
from tcpwatch.model.view import View

COOKIES_NEVER, COOKIES_WHEN_FULL, COOKIES_ALWAYS = 0, 1, 2
"""Values of tcp_syncookies."""


@rule("syn-queue-full", rank=30)
def syn_queue_full(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """More handshakes are in progress than a listener's SYN queue holds.

    Warning: a SYN queue holds 80 % of its limit; or the kernel answers SYNs with cookies for a queue that is full only
        between the polls.
    Critical: a SYN queue is over its limit, or the kernel drops SYNs because one is full.
    Source: tcp_conn_request (net/ipv4/tcp_input.c), reqsk_timer_handler (net/ipv4/inet_connection_sock.c),
        ip-sysctl.rst (tcp_syncookies, tcp_max_syn_backlog).
    """
    listeners = group_listeners(view)
    for listener in listeners:
        full = is_full(listener, view, limits)
        if full or listener.syn_queue.share >= limits.syn_queue_share:
            yield Candidate(_queue_finding(listener, view, Severity.CRITICAL if full else Severity.WARNING))
    if _counters_show_full_queue(view) and not any(_was_nearly_full(listener, limits) for listener in listeners):
        yield Candidate(_between_polls_finding(view))


@rule("syn-flood", rank=10)
def syn_flood(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """Clients send SYNs and do not complete the handshake.

    Critical: a SYN queue is full while the accept queue is not, and more than half of its half-open connections do not
        answer the SYN+ACK; or this host sends 50 SYN cookies per second and less than half come back.
    Source: RFC 4987; tcp_syn_flood_action (net/ipv4/tcp_input.c), ip-sysctl.rst (tcp_syncookies).
    """
    full = [listener for listener in group_listeners(view) if is_full(listener, view, limits)]
    for listener in full:
        if is_flooded(listener, view, limits):
            yield Candidate(_flood_finding(listener, view))
    if cookies_unreturned(view, limits) and not full:
        yield Candidate(_host_flood_finding(view))


# Checks -------------------------------------------------------------------------------------------


def is_flooded(listener: Listener, view: View, limits: Thresholds) -> bool:
    """Return whether a SYN queue is full of connections that do not answer, though the application accepts."""
    # Behind a full accept queue the SYN+ACKs to honest clients are retransmitted too.
    unanswered = cookies_unreturned(view, limits) or retransmitted_share(listener) > limits.flood_repeated_share
    return unanswered and is_full(listener, view, limits) and not is_accept_queue_backed_up(view, listener, limits)


def group_listeners(view: View) -> list[Listener]:
    """Return one listener per address and port: the members of a SO_REUSEPORT group share the SYN queue's figures."""
    return list({listener.key: listener for listener in reversed(view.listeners)}.values())[::-1]


def is_full(listener: Listener, view: View, limits: Thresholds) -> bool:
    """Return whether a SYN queue is full, or was in the last seconds and the counters still show a full queue.

    About every 7 s half of a flooded queue expires at once, so a moment with room does not mean that the flood is over.
    """
    queue = listener.syn_queue
    if queue.is_over_limit:
        return True
    half_full = queue.share >= limits.syn_queue_share / 2
    return half_full and _was_nearly_full(listener, limits) and _counters_show_full_queue(view)


def _was_nearly_full(listener: Listener, limits: Thresholds) -> bool:
    """Return whether the SYN queue was nearly full at some moment of the last seconds."""
    limit = listener.syn_queue.limit
    return limit is not None and listener.syn_peak >= limits.syn_queue_share * max(limit, 1)


def _counters_show_full_queue(view: View) -> bool:
    """Return whether SYNs found a full SYN queue since the last step, at any listener.

    With tcp_syncookies=2 the counter of cookies rises with every SYN and means nothing.
    """
    mode, rates = view.sample.sysctls.get("tcp_syncookies"), view.rates
    if mode == COOKIES_ALWAYS:
        return False
    counted = rates.get("TCPReqQFullDoCookies", 0) + rates.get("TCPReqQFullDrop", 0)
    return counted > 0 or (mode == COOKIES_NEVER and _uncounted_drops_per_s(view) > 0)


def _uncounted_drops_per_s(view: View) -> float:
    """Return the SYNs dropped above three quarters of tcp_max_syn_backlog, which have no counter of their own."""
    drops, overflows, full = (view.rates.get(name, 0) for name in ("ListenDrops", "ListenOverflows", "TCPReqQFullDrop"))
    return max(0.0, drops - overflows - full)


def cookies_unreturned(view: View, limits: Thresholds) -> bool:
    """Return whether this host sends many cookies and few come back."""
    sent, returned = (view.rates.get(name, 0) for name in ("SyncookiesSent", "SyncookiesRecv"))
    return sent >= limits.flood_cookies_per_s and returned < limits.flood_cookies_returned * sent


def is_accept_queue_backed_up(view: View, listener: Listener, limits: Thresholds) -> bool:
    """Return whether an accept queue of this address and port is full or nearly full."""
    return any(
        member.accept_full or member.accept_queue.share >= limits.accept_queue_share
        for member in view.listeners
        if member.key == listener.key
    )


def retransmitted_share(listener: Listener) -> float:
    """Return the share of a listener's half-open connections whose SYN+ACK was retransmitted."""
    return listener.retransmitted / listener.syn_queue.depth if listener.syn_queue.depth else 0.0


# Texts that the verdicts share ---------------------------------------------------------------------


def queue_headline(listener: Listener, view: View) -> str:
    """`257 of 256 half-open, 740 SYNs/s answered with cookies`."""
    cookies, dropped = _full_queue_rates(view)
    headline = f"{units.count(listener.syn_queue.depth)} of {units.count(listener.syn_queue.limit)} half-open"
    if cookies:
        headline += f", {units.plural_rate(cookies, 'SYN')} answered with cookies"
    if dropped:
        headline += f", {units.plural_rate(dropped, 'SYN')} dropped"
    return headline


def flood_headline(listener: Listener, view: View) -> str:
    """`1,000 SYNs/s, 257 of 256 half-open from 256 addresses, 96 % unanswered, 3 of 740 cookies/s returned`."""
    summary = view.half_open_by_listener.get(listener.key, view.half_open)
    sent, returned = view.rates.get("SyncookiesSent"), view.rates.get("SyncookiesRecv")
    headline = (
        f"{units.plural_rate(view.syn_arrivals_per_s, 'SYN')}, {units.count(listener.syn_queue.depth)} of "
        f"{units.count(listener.syn_queue.limit)} half-open from "
        f"{units.plural(summary.sources.distinct, 'address', 'addresses')}, "
        f"{units.share(retransmitted_share(listener))} unanswered"
    )
    return headline + (f", {units.rate(returned)} of {units.rate(sent)} cookies/s returned" if sent else "")


def cookies_headline(view: View) -> str:
    """`740 SYN cookies/s sent, 3/s returned`."""
    sent, returned = view.rates.get("SyncookiesSent"), view.rates.get("SyncookiesRecv")
    always = view.sample.sysctls.get("tcp_syncookies") == COOKIES_ALWAYS
    unknown_port = "; port unknown, as tcp_syncookies=2 leaves the SYN queues empty" if always else ""
    return f"{units.rate(sent)} SYN cookies/s sent, {units.rate(returned)}/s returned{unknown_port}"


FLOOD_WHY = (
    "Most clients do not answer the SYN+ACK, though the application accepts: they are spoofed, or do not intend to "
    "connect (RFC 4987)."
)
UNRETURNED_WHY = (
    "The kernel answers SYNs with cookies, and few come back as the last ACK: the senders are spoofed, or do not "
    "intend to connect (RFC 4987)."
)

# Findings -----------------------------------------------------------------------------------------


def _full_queue_rates(view: View) -> tuple[float | None, float | None]:
    """Return the SYNs per second answered with cookies, and those dropped, because of a full SYN queue."""
    cookies, dropped = (view.rates.get(name) for name in ("TCPReqQFullDoCookies", "TCPReqQFullDrop"))
    if dropped is not None and view.sample.sysctls.get("tcp_syncookies") == COOKIES_NEVER:
        dropped += _uncounted_drops_per_s(view)
    return cookies, dropped


def _queue_finding(listener: Listener, view: View, severity: Severity) -> Finding:
    cookies, dropped = _full_queue_rates(view)
    return Finding(
        "syn-queue-full",
        severity,
        FindingSubject("listener", ListenerSubject(listener.key)),
        queue_headline(listener, view),
        {
            "syn_queue": Figure(listener.syn_queue.depth, "connections"),
            "syn_queue_limit": Figure(listener.syn_queue.limit, "connections"),
            "limit_set_by": Figure(listener.syn_limit_source.value),
            "repeated": Figure(listener.retransmitted, "connections"),
            "cookies_for_full_queue": Figure(cookies, "SYNs/s"),
            "dropped_for_full_queue": Figure(dropped, "SYNs/s"),
            "tcp_syncookies": Figure(view.sample.sysctls.get("tcp_syncookies")),
        },
        _queue_why(view),
        _queue_advice(listener, view),
        f"state:syn-rcvd {listener.key.local_filter}",
    )


def _between_polls_finding(view: View) -> Finding:
    """Build the finding about a SYN queue that is full only for moments, so that no poll shows which one it is."""
    cookies, dropped = view.rates.get("TCPReqQFullDoCookies", 0.0), view.rates.get("TCPReqQFullDrop", 0.0)
    effect = "answered with cookies" if cookies else "dropped"
    return Finding(
        "syn-queue-full",
        Severity.WARNING if cookies else Severity.CRITICAL,
        FindingSubject("host", view.sample.host),
        f"{units.plural_rate(cookies or dropped, 'SYN')} {effect} because a SYN queue was full between the polls",
        {
            "cookies_for_full_queue": Figure(cookies, "SYNs/s"),
            "dropped_for_full_queue": Figure(dropped, "SYNs/s"),
            "tcp_syncookies": Figure(view.sample.sysctls.get("tcp_syncookies")),
        },
        _queue_why(view),
        ("Check the limits on the Listeners screen: a burst of clients fills the smallest queue first. Raise its "
         "backlog.",),
        "state:syn-rcvd",
    )  # fmt: skip


def _queue_why(view: View) -> str:
    effect = {
        COOKIES_NEVER: "The kernel drops SYNs beyond its limit: clients retry after a second or more.",
        COOKIES_WHEN_FULL: "The kernel answers SYNs beyond its limit with cookies: clients can still connect, without "
        "a place in the queue.",
    }
    mode = view.sample.sysctls.get("tcp_syncookies")
    queue = "The SYN queue holds connections that got a SYN+ACK and have not sent the last ACK of the handshake."
    return f"{queue} {effect.get(COOKIES_WHEN_FULL if mode is None else mode, '')}".strip()


def _queue_advice(listener: Listener, view: View) -> tuple[str, ...]:
    limit = {
        LimitSource.SOMAXCONN: "The limit is net.core.somaxconn: raise it, then restart the application, as it must "
        "call listen() again.",
        LimitSource.LISTEN: "The limit is the backlog that the application passes to listen(): raise it and restart.",
        LimitSource.SYN_BACKLOG: "The limit is three quarters of net.ipv4.tcp_max_syn_backlog "
        "(tcp_syncookies is 0): raise it.",
    }
    never = view.sample.sysctls.get("tcp_syncookies") == COOKIES_NEVER
    cookies = "Set net.ipv4.tcp_syncookies=1, so that a full queue refuses no client." if never else None
    burst = "The Half-open screen distinguishes a flood from a burst: a burst only needs a larger queue."
    return tuple(filter(None, (limit.get(listener.syn_limit_source), cookies, burst)))


def _flood_finding(listener: Listener, view: View) -> Finding:
    summary = view.half_open_by_listener.get(listener.key, view.half_open)
    return Finding(
        "syn-flood",
        Severity.CRITICAL,
        FindingSubject("listener", ListenerSubject(listener.key)),
        flood_headline(listener, view),
        {**_cookie_figures(view), **_half_open_figures(summary)},
        FLOOD_WHY,
        _flood_advice(view.sample.sysctls.get("tcp_syncookies"), summary),
        f"state:syn-rcvd {listener.key.local_filter}",
    )


def _host_flood_finding(view: View) -> Finding:
    return Finding(
        "syn-flood",
        Severity.CRITICAL,
        FindingSubject("host", view.sample.host),
        cookies_headline(view),
        _cookie_figures(view),
        UNRETURNED_WHY,
        ("Find the ports and sources of the SYNs in a packet capture: tcpdump -n 'tcp[tcpflags] == tcp-syn'.",
         "Block the sources before they reach this host; meanwhile the cookies keep the service reachable."),
        "state:syn-rcvd",
    )  # fmt: skip


def _cookie_figures(view: View) -> dict[str, Figure]:
    return {
        "arrivals": Figure(view.syn_arrivals_per_s, "SYNs/s"),
        "cookies_sent": Figure(view.rates.get("SyncookiesSent"), "cookies/s"),
        "cookies_returned": Figure(view.rates.get("SyncookiesRecv"), "cookies/s"),
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


def _flood_advice(mode: int | None, summary: HalfOpenSummary) -> tuple[str, ...]:
    networks = filter(None, (summary.sources.largest("/16"), summary.sources.largest("/48")))
    largest = max(networks, key=lambda network: network.share, default=None)
    cookies = (
        "Set net.ipv4.tcp_syncookies=1: then a full SYN queue refuses no honest client."
        if mode == COOKIES_NEVER
        else "SYN cookies keep the service reachable; a larger backlog would only be flooded too."
    )
    block = (
        f"{units.share(largest.share)} come from {largest.prefix}: block it before it reaches this host."
        if largest is not None and largest.share >= 0.5
        else "The sources are widely spread: limit the rate, or block upstream; rules for single addresses do not help."
    )
    return cookies, block
