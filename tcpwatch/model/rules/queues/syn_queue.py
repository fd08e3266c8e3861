"""Rule about SYN queues: `syn-queue-full`, and the checks that it shares with `syn-flood` and the verdicts."""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, ListenerSubject, Severity
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_limits import SYN_QUEUE_SYSCTLS, LimitSource
from tcpwatch.model.rules.queues.syn_counters import (
    COOKIES_NEVER,
    COOKIES_WHEN_FULL,
    counters_of,
    counters_of_host,
)
from tcpwatch.model.rules.registry import rule
from tcpwatch.model.view import View


@rule(
    "syn-queue-full",
    rank=30,
    needs=(
        "queues", "TCPReqQFullDoCookies", "TCPReqQFullDrop", "ListenDrops", "ListenOverflows", *SYN_QUEUE_SYSCTLS,
    ),
)  # fmt: skip
def syn_queue_full(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """More handshakes are in progress than a listener's SYN queue holds.

    Warning: a SYN queue holds 80 % of its limit; or the kernel answers SYNs with cookies for a queue that is full only
        between the polls.
    Critical: a SYN queue is over its limit, or the kernel drops SYNs because one is full.
    Source: tcp_conn_request (net/ipv4/tcp_input.c), reqsk_timer_handler (net/ipv4/inet_connection_sock.c),
        ip-sysctl.rst (tcp_syncookies, tcp_max_syn_backlog).
    """
    any_full = False
    for listener in group_listeners(view):
        full = is_full(listener, view, limits)
        any_full |= full
        if full or listener.syn_queue.share >= limits.syn_queue_share:
            yield Candidate(_queue_finding(listener, view, Severity.CRITICAL if full else Severity.WARNING))
    if not any_full and counters_of_host(view).show_full_queue:
        yield Candidate(_between_polls_finding(view))


# Checks -------------------------------------------------------------------------------------------


def group_listeners(view: View) -> list[Listener]:
    """Return one listener per address and port, the deepest SYN queue first, without those that are empty for long.

    The members of a SO_REUSEPORT group share a SYN queue.
    """
    busy = [each for each in view.busy_listeners
            if each.syn_queue.depth or each.syn_peak or each.retransmitted or each.syn_queue.limit is None]  # fmt: skip
    groups = list({listener.key: listener for listener in reversed(busy)}.values())[::-1]
    return sorted(groups, key=lambda listener: -(listener.syn_queue.depth or 0))


def is_full(listener: Listener, view: View, limits: Thresholds) -> bool:
    """Return whether a SYN queue is full, or was in the last seconds and the counters prove that it still is.

    About every 7 s half of a flooded queue expires at once, so a moment with room does not mean that the flood is over.
    """
    queue = listener.syn_queue
    if queue.is_over_limit:
        return True
    half_full = queue.share >= limits.syn_queue_share / 2
    return half_full and _was_nearly_full(listener, limits) and counters_of(listener, view, limits).show_full_queue


def _was_nearly_full(listener: Listener, limits: Thresholds) -> bool:
    """Return whether the SYN queue was nearly full at some moment of the last seconds."""
    limit = listener.syn_queue.limit
    return limit is not None and listener.syn_peak >= limits.syn_queue_share * max(limit, 1)


def is_accept_queue_backed_up(view: View, listener: Listener, limits: Thresholds) -> bool:
    """Return whether an accept queue of this address and port is full or nearly full."""
    return any(
        member.accept_full or member.accept_queue.share >= limits.accept_queue_share
        for member in view.group_of(listener)
    )


def retransmitted_share(listener: Listener) -> float:
    """Return the share of a listener's half-open connections whose SYN+ACK was retransmitted."""
    return listener.retransmitted / listener.syn_queue.depth if listener.syn_queue.depth else 0.0


# Texts -----------------------------------------------------------------------------------------


def queue_headline(listener: Listener, view: View) -> str:
    """`257 of 256 half-open, 740 SYNs/s answered with cookies`."""
    own, host = counters_of(listener, view, view.thresholds), counters_of_host(view)
    headline = f"{units.count(listener.syn_queue.depth)} of {units.count(listener.syn_queue.limit)} half-open"
    if own.cookies:
        headline += f", {units.plural_rate(own.cookies, 'SYN')} answered with cookies"
    if own.dropped:
        headline += f", {units.plural_rate(own.dropped, 'SYN')} dropped"
    if own.cookies is None and host.cookies:
        headline += f"; this host answers {units.plural_rate(host.cookies, 'SYN')} with cookies"
    return headline


# Findings -----------------------------------------------------------------------------------------


def _queue_finding(listener: Listener, view: View, severity: Severity) -> Finding:
    own, host = counters_of(listener, view, view.thresholds), counters_of_host(view)
    return Finding(
        severity,
        FindingSubject("listener", ListenerSubject(listener.key)),
        queue_headline(listener, view),
        {
            "syn_queue": Figure(listener.syn_queue.depth, "connections"),
            "syn_queue_limit": Figure(listener.syn_queue.limit, "connections"),
            "limit_set_by": Figure(listener.syn_limit_source.value),
            "repeated": Figure(listener.retransmitted, "connections"),
            "cookies_for_full_queue": Figure(own.cookies, "SYNs/s"),
            "dropped_for_full_queue": Figure(own.dropped, "SYNs/s"),
            "host_cookies_for_full_queue": Figure(host.cookies, "SYNs/s"),
            "host_dropped_for_full_queue": Figure(host.dropped, "SYNs/s"),
            "tcp_syncookies": Figure(view.sample.sysctls.get("tcp_syncookies")),
        },
        _queue_why(view),
        _queue_advice(listener, view),
        f"state:syn-rcvd {listener.key.local_filter}",
    )


def _between_polls_finding(view: View) -> Finding:
    """Build the finding about a SYN queue that is full only for moments, so that no poll shows which one it is."""
    host = counters_of_host(view)
    cookies, dropped = host.cookies or 0.0, host.dropped or 0.0
    effect = "answered with cookies" if cookies else "dropped"
    return Finding(
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
    effect: dict[int | None, str] = {
        COOKIES_NEVER: "The kernel drops SYNs beyond its limit: clients retry after a second or more.",
        COOKIES_WHEN_FULL: "The kernel answers SYNs beyond its limit with cookies: clients can still connect, without "
        "a place in the queue.",
    }
    mode = view.sample.sysctls.get("tcp_syncookies")
    queue = "The SYN queue holds connections that got a SYN+ACK and have not completed the handshake."
    return f"{queue} {effect.get(mode, '')}".strip()


def _queue_advice(listener: Listener, view: View) -> tuple[str, ...]:
    limit = {
        LimitSource.SOMAXCONN: "The limit equals net.core.somaxconn: raise it, then restart the application with a "
        "larger backlog, as listen() takes the smaller of the two.",
        LimitSource.LISTEN: "The limit is from listen(): the backlog that the application passed, or "
        "net.core.somaxconn at that time. Raise the backlog and restart.",
        LimitSource.SYN_BACKLOG: "The limit is three quarters of net.ipv4.tcp_max_syn_backlog "
        "(tcp_syncookies is 0): raise it.",
    }
    never = view.sample.sysctls.get("tcp_syncookies") == COOKIES_NEVER
    cookies = "Set net.ipv4.tcp_syncookies=1, so that a full queue refuses no client." if never else None
    burst = "The Half-open screen distinguishes a flood from a burst: a burst only needs a larger queue."
    return tuple(filter(None, (limit.get(listener.syn_limit_source), cookies, burst)))
