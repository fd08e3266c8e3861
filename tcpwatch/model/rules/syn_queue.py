"""Rules about SYN queues: `syn-queue-full` and `syn-flood`.

Sources: tcp_conn_request and tcp_syn_flood_action in net/ipv4/tcp_input.c, reqsk_timer_handler in
net/ipv4/inet_connection_sock.c; ip-sysctl.rst (tcp_syncookies); RFC 4987. Tried on Linux 6.18.
"""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, ListenerSubject, Severity
from tcpwatch.model.listeners.half_open import HalfOpenSummary
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_limits import LimitSource
from tcpwatch.model.view import View

COOKIES_NEVER, COOKIES_WHEN_FULL, COOKIES_ALWAYS = 0, 1, 2
"""Values of tcp_syncookies."""


def syn_queue_full(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """The queue is at its limit, or the kernel says that one is, and this is the one."""
    for one in group_listeners(view):
        full = is_full(one, view, limits)
        if full or one.syn_queue.share >= limits.syn_queue_share:
            yield Candidate(_queue_finding(one, view, Severity.CRITICAL if full else Severity.WARNING))
    if _kernel_says_full(view) and not any(_lately_crowded(one, limits) for one in group_listeners(view)):
        yield Candidate(_between_polls(view))


def syn_flood(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """A full SYN queue whose members do not answer, while the application accepts; or cookies that do not come back."""
    unreturned = cookies_unreturned(view, limits)
    crowded = [one for one in group_listeners(view) if is_full(one, view, limits)]
    for one in crowded:
        if is_flooded(one, view, limits):
            yield Candidate(_flood_finding(one, view))
    if unreturned and not crowded:
        yield Candidate(_host_finding(view))


def is_flooded(one: Listener, view: View, limits: Thresholds) -> bool:
    """Whether a SYN queue is full of connections that do not answer, though the application accepts."""
    # Behind a full accept queue honest clients stay half-open and repeat too.
    silent = cookies_unreturned(view, limits) or retransmitted_share(one) > limits.flood_repeated_share
    return silent and is_full(one, view, limits) and not is_accept_queue_backed_up(view, one, limits)


def group_listeners(view: View) -> list[Listener]:
    """One listener for each address and port: members of a SO_REUSEPORT group share the SYN queue's figures."""
    return list({one.key: one for one in reversed(view.listeners)}.values())[::-1]


def is_full(one: Listener, view: View, limits: Thresholds) -> bool:
    """Whether a SYN queue is full, or was in the last steps and the kernel goes on to say so.

    About every 7 s half of a flooded queue expires at once: a moment of room does not mean that it is over.
    """
    queue = one.syn_queue
    still = queue.share >= limits.syn_queue_share / 2
    return queue.is_over_limit or (still and _lately_crowded(one, limits) and _kernel_says_full(view))


def _lately_crowded(one: Listener, limits: Thresholds) -> bool:
    """Whether the SYN queue was nearly full in the last seconds."""
    limit = one.syn_queue.limit
    return limit is not None and one.syn_peak >= limits.syn_queue_share * max(limit, 1)


def _kernel_says_full(view: View) -> bool:
    """SYNs met a full SYN queue since the step before, of whichever listener.

    With tcp_syncookies=2 the counter of cookies rises with every SYN and means nothing.
    """
    mode, rates = view.sample.sysctls.get("tcp_syncookies"), view.rates
    if mode == COOKIES_ALWAYS:
        return False
    said = rates.get("TCPReqQFullDoCookies", 0) + rates.get("TCPReqQFullDrop", 0)
    return said > 0 or (mode == COOKIES_NEVER and _dropped_for_the_last_quarter(view) > 0)


def _dropped_for_the_last_quarter(view: View) -> float:
    """SYNs per second that were dropped without a counter of their own: three quarters of tcp_max_syn_backlog."""
    drops, overflows, full = (view.rates.get(name, 0) for name in ("ListenDrops", "ListenOverflows", "TCPReqQFullDrop"))
    return max(0.0, drops - overflows - full)


def cookies_unreturned(view: View, limits: Thresholds) -> bool:
    """Many cookies are sent and few come back."""
    sent, returned = (view.rates.get(name, 0) for name in ("SyncookiesSent", "SyncookiesRecv"))
    return sent >= limits.flood_cookies_per_s and returned < limits.flood_cookies_returned * sent


def is_accept_queue_backed_up(view: View, one: Listener, limits: Thresholds) -> bool:
    """Whether an accept queue of this address and port is full or nearly so."""
    return any(
        member.accept_full or member.accept_queue.share >= limits.accept_queue_share
        for member in view.listeners
        if member.key == one.key
    )


def retransmitted_share(one: Listener) -> float:
    """Of its half-open connections, those whose SYN+ACK was repeated."""
    return one.retransmitted / one.syn_queue.depth if one.syn_queue.depth else 0.0


def queue_headline(one: Listener, view: View) -> str:
    """`257 of 256 half-open, 740 SYNs/s answered by cookies`."""
    cookies, dropped = _met_a_full_queue(view)
    headline = f"{units.count(one.syn_queue.depth)} of {units.count(one.syn_queue.limit)} half-open"
    if cookies:
        headline += f", {units.rate(cookies)} SYNs/s answered by cookies"
    if dropped:
        headline += f", {units.rate(dropped)} SYNs/s dropped"
    return headline


def _met_a_full_queue(view: View) -> tuple[float | None, float | None]:
    """SYNs per second that met a full SYN queue: answered by cookies, and dropped."""
    cookies, dropped = (view.rates.get(name) for name in ("TCPReqQFullDoCookies", "TCPReqQFullDrop"))
    if dropped is not None and view.sample.sysctls.get("tcp_syncookies") == COOKIES_NEVER:
        dropped += _dropped_for_the_last_quarter(view)
    return cookies, dropped


def _queue_finding(one: Listener, view: View, severity: Severity) -> Finding:
    queue, mode = one.syn_queue, view.sample.sysctls.get("tcp_syncookies")
    cookies, dropped = _met_a_full_queue(view)
    return Finding(
        "syn-queue-full",
        severity,
        FindingSubject("listener", ListenerSubject(one.key)),
        queue_headline(one, view),
        {
            "syn_queue": Figure(queue.depth, "connections"),
            "syn_queue_limit": Figure(queue.limit, "connections"),
            "limit_set_by": Figure(one.syn_limit_source.value),
            "repeated": Figure(one.retransmitted, "connections"),
            "cookies_for_full_queue": Figure(cookies, "SYNs/s"),
            "dropped_for_full_queue": Figure(dropped, "SYNs/s"),
            "tcp_syncookies": Figure(mode),
        },
        _WHY_FULL + _SURPLUS.get(mode if mode is not None else COOKIES_WHEN_FULL, ""),
        _queue_advice(one, mode),
        f"state:syn-rcvd {one.key.local_filter}",
    )


def _between_polls(view: View) -> Finding:
    """A SYN queue that is full for moments only: no poll sees whose it is."""
    cookies, dropped = view.rates.get("TCPReqQFullDoCookies", 0.0), view.rates.get("TCPReqQFullDrop", 0.0)
    mode = view.sample.sysctls.get("tcp_syncookies")
    fate = "answered by cookies" if cookies else "dropped"
    return Finding(
        "syn-queue-full",
        Severity.WARNING if cookies else Severity.CRITICAL,
        FindingSubject("host", view.sample.host),
        f"{units.rate(cookies or dropped)} SYNs/s met a full SYN queue and were {fate}; between the polls it has room",
        {
            "cookies_for_full_queue": Figure(cookies, "SYNs/s"),
            "dropped_for_full_queue": Figure(dropped, "SYNs/s"),
            "tcp_syncookies": Figure(mode),
        },
        (_WHY_FULL + _SURPLUS.get(COOKIES_WHEN_FULL if mode is None else mode, "")).strip(),
        ("Screen 3 lists the limits: a burst of clients fills the smallest one first. Raise its backlog.",),
        "state:syn-rcvd",
    )


_WHY_FULL = "The SYN queue holds connections that had their SYN+ACK and not yet sent the last ACK of the handshake. "
_SURPLUS = {
    COOKIES_NEVER: "SYNs beyond its limit are dropped: clients wait a second or more and try again.",
    COOKIES_WHEN_FULL: "SYNs beyond its limit are answered by cookies: connections still open, without a place in it.",
}


def _queue_advice(one: Listener, mode: int | None) -> tuple[str, ...]:
    said = {
        LimitSource.SOMAXCONN: "The limit is net.core.somaxconn: raise it, "
        "then the application has to call listen() anew.",
        LimitSource.LISTEN: "The limit is the application's argument of listen(): raise its backlog and restart it.",
        LimitSource.SYN_BACKLOG: "The limit is three quarters of net.ipv4.tcp_max_syn_backlog "
        "(tcp_syncookies is 0): raise it.",
    }
    cookies = "Set net.ipv4.tcp_syncookies=1, so that a full queue refuses nobody." if mode == COOKIES_NEVER else None
    burst = "Screen 4 tells a flood from a burst: a burst of honest clients only needs a larger queue."
    return tuple(filter(None, (said.get(one.syn_limit_source), cookies, burst)))


def flood_headline(one: Listener, view: View) -> str:
    """`1,000 SYNs/s, 257 of 256 half-open from 256 addresses, 96 % without an answer, 3 of 740 cookies/s returned`."""
    found = view.half_open_by_listener.get(one.key, view.half_open)
    sent, returned = view.rates.get("SyncookiesSent"), view.rates.get("SyncookiesRecv")
    headline = (
        f"{units.rate(view.syn_arrivals_per_s)} SYNs/s, {units.count(one.syn_queue.depth)} of "
        f"{units.count(one.syn_queue.limit)} half-open from {units.count(found.sources.distinct)} addresses, "
        f"{units.share(retransmitted_share(one))} without an answer"
    )
    return headline + (f", {units.rate(returned)} of {units.rate(sent)} cookies/s returned" if sent else "")


def _flood_finding(one: Listener, view: View) -> Finding:
    found = view.half_open_by_listener.get(one.key, view.half_open)
    return Finding(
        "syn-flood",
        Severity.CRITICAL,
        FindingSubject("listener", ListenerSubject(one.key)),
        flood_headline(one, view),
        {**_rates(view), **_members(found)},
        "Most of those in the SYN queue do not answer its SYN+ACKs, though the application accepts: their addresses "
        "are spoofed, or they do not mean to connect (RFC 4987).",
        _flood_advice(view.sample.sysctls.get("tcp_syncookies"), found),
        f"state:syn-rcvd {one.key.local_filter}",
    )


def cookies_headline(view: View) -> str:
    """`740 SYN cookies/s sent, 3/s returned`."""
    sent, returned = view.rates.get("SyncookiesSent"), view.rates.get("SyncookiesRecv")
    always = view.sample.sysctls.get("tcp_syncookies") == COOKIES_ALWAYS
    blind = "; with tcp_syncookies=2 no socket names the port" if always else ""
    return f"{units.rate(sent)} SYN cookies/s sent, {units.rate(returned)}/s returned{blind}"


def _host_finding(view: View) -> Finding:
    return Finding(
        "syn-flood",
        Severity.CRITICAL,
        FindingSubject("host", view.sample.host),
        cookies_headline(view),
        _rates(view),
        "SYNs are answered by cookies, of which few come back as the last ACK of a handshake: their senders are "
        "spoofed, or do not mean to connect (RFC 4987).",
        ("Look at the SYNs' ports and sources in a packet capture: tcpdump -n 'tcp[tcpflags] == tcp-syn'.",
         "Filter the sources before they reach this host; the cookies keep the service reachable meanwhile."),
        "state:syn-rcvd",
    )  # fmt: skip


def _rates(view: View) -> dict[str, Figure]:
    names = {
        "cookies_sent": "SyncookiesSent",
        "cookies_returned": "SyncookiesRecv",
        "cookies_failed": "SyncookiesFailed",
    }
    return {
        "arrivals": Figure(view.syn_arrivals_per_s, "SYNs/s"),
        **{name: Figure(view.rates.get(counter), "cookies/s") for name, counter in names.items()},
        "tcp_syncookies": Figure(view.sample.sysctls.get("tcp_syncookies")),
    }


def _members(found: HalfOpenSummary) -> dict[str, Figure]:
    four, six = found.sources.largest("/24"), found.sources.largest("/64")
    return {
        "half_open": Figure(found.count, "connections"),
        "repeated_share": Figure(found.retransmitted_share, "share"),
        "oldest": Figure(found.oldest_s, "s"),
        "sources": Figure(found.sources.distinct, "addresses"),
        "distinct_share": Figure(found.sources.distinct_share, "share"),
        "largest_24": Figure(four.prefix if four else None),
        "largest_24_share": Figure(four.share if four else None, "share"),
        "largest_64": Figure(six.prefix if six else None),
        "largest_64_share": Figure(six.share if six else None, "share"),
    }


def _flood_advice(mode: int | None, found: HalfOpenSummary) -> tuple[str, ...]:
    largest = max(
        filter(None, (found.sources.largest(name) for name in ("/16", "/48"))), key=lambda it: it.share, default=None
    )
    cookies = (
        "Set net.ipv4.tcp_syncookies=1: then a full SYN queue refuses no honest client."
        if mode == COOKIES_NEVER
        else "SYN cookies keep the service reachable; a larger backlog would only be flooded too."
    )
    near = largest is not None and largest.share >= 0.5
    where = (
        f"{units.share(largest.share)} come from {largest.prefix}: filter it before it reaches this host."
        if near and largest is not None
        else "The sources are spread: filter by rate, or upstream; single addresses are not worth a rule."
    )
    return cookies, where
