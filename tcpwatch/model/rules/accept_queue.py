"""Rule about accept queues: `accept-queue-full`.

Sources: sk_acceptq_is_full in include/net/sock.h, tcp_conn_request and tcp_check_req in net/ipv4; listen(2);
ip-sysctl.rst (somaxconn, tcp_abort_on_overflow). Tried on Linux 6.18.
"""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, ListenerSubject, Severity
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_limits import LimitSource
from tcpwatch.model.view import View


def accept_queue_full(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """Each listener by itself: one lazy member among four hides in the sum of a SO_REUSEPORT group."""
    for one in view.listeners:
        refused = one.accept_full and _refuses(one, view)
        if one.accept_queue.is_over_limit or refused:
            # The counters have told: once is enough, also where the queue was full between two polls only.
            yield Candidate(_finding(one, view, Severity.CRITICAL), Severity.CRITICAL if refused else None)
        elif one.accept_queue.share >= limits.accept_queue_share:
            yield Candidate(_finding(one, view, Severity.WARNING))


def _refuses(one: Listener, view: View) -> bool:
    """Whether this listener dropped something for a full accept queue.

    Its own drops alone prove nothing: they count SYNs that met a full SYN queue, and with TCP_DEFER_ACCEPT each last
    ACK without data. ListenOverflows is all listeners'.
    """
    told = [rate for rate in (view.rates.get("ListenOverflows"), one.drops_per_s) if rate is not None]
    return bool(told) and all(rate > 0 for rate in told)


def _finding(one: Listener, view: View, severity: Severity) -> Finding:
    queue = one.accept_queue
    overflows = view.rates.get("ListenOverflows")
    return Finding(
        "accept-queue-full",
        severity,
        _subject(one),
        _headline(one),
        {
            "accept_queue": Figure(queue.depth, "connections"),
            "accept_queue_limit": Figure(queue.limit, "connections"),
            "accept_queue_peak": Figure(one.accept_peak, "connections"),
            "limit_set_by": Figure(one.accept_limit_source.value),
            "process": Figure(one.process or None),
            "oldest_waits": Figure(one.waiting_s, "s"),
            "clients_given_up": Figure(one.client_closed, "connections"),
            "accepted": Figure(one.accepted_per_s, "connections/s"),
            "drops": Figure(one.drops_per_s, "segments/s"),
            "listen_overflows": Figure(overflows, "segments/s"),
        },
        _why(one, view),
        _advice(one, view),
        f"state:established,close-wait inode:0 {one.key.local_filter}",
    )


def _subject(one: Listener) -> FindingSubject:
    return FindingSubject("listener", ListenerSubject(one.key, one.inode if one.group_size > 1 else 0))


def _headline(one: Listener) -> str:
    queue, depth = one.accept_queue, one.accept_queue.depth
    said = [f"{units.count(depth)} of {units.count(queue.limit)} waiting"]
    if one.accept_peak is not None and depth is not None and one.accept_peak > depth:
        said.append(f"peak {units.count(one.accept_peak)}")
    if one.process:
        said.insert(0, one.process)
    if one.drops_per_s:
        said.append(f"{units.rate(one.drops_per_s)} drops/s")
    if one.waiting_s is not None:
        said.append(f"oldest {'over ' if one.waiting_is_minimum else ''}{units.duration(one.waiting_s)}")
    if one.client_closed:
        said.append(f"{units.count(one.client_closed)} gave up")
    return ", ".join(said)


def _why(one: Listener, view: View) -> str:
    aborts = view.sample.sysctls.get("tcp_abort_on_overflow")
    fate = (
        "with tcp_abort_on_overflow=1 they are reset"
        if aborts
        else "the last ACK of their handshake is dropped, and they believe to be connected"
    )
    pace = "has stopped calling accept()" if one.accepted_per_s == 0 else "calls accept() more slowly than clients come"
    return f"The application {pace}. Clients beyond the limit are refused: {fate}."


def _advice(one: Listener, view: View) -> tuple[str, ...]:
    who = one.process or "the application"
    somaxconn = view.sample.sysctls.get("somaxconn")
    cap = {
        LimitSource.SOMAXCONN: f"The limit is net.core.somaxconn ({somaxconn}): "
        f"raise it, then {who} has to listen() anew.",
        LimitSource.LISTEN: f"The limit is {who}'s backlog in listen() "
        f"(somaxconn is {somaxconn}): raise it and restart.",
    }
    blocked = f"See what {who} does instead of accept(): a lock, a slow backend, all workers busy, no descriptors left."
    larger = "A longer queue helps against bursts only; clients that wait too long give up anyway."
    return tuple(filter(None, (blocked, cap.get(one.accept_limit_source), larger)))
