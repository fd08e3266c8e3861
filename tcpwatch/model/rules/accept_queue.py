"""Rule about accept queues: `accept-queue-full`."""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, ListenerSubject, Severity
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_limits import LimitSource
from tcpwatch.model.rules.registry import rule
from tcpwatch.model.view import View


@rule("accept-queue-full", rank=20)
def accept_queue_full(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """An application accepts connections more slowly than clients open them.

    Warning: an accept queue holds 80 % of its limit. Members of a SO_REUSEPORT group are checked one by one.
    Critical: an accept queue is over its limit, or its listener drops connections because the queue is full.
    Source: sk_acceptq_is_full (include/net/sock.h), tcp_conn_request and tcp_check_req (net/ipv4), listen(2),
        ip-sysctl.rst (somaxconn, tcp_abort_on_overflow).
    """
    for listener in view.listeners:
        dropping = listener.accept_full and _drops_for_full_queue(listener, view)
        if listener.accept_queue.is_over_limit or dropping:
            # A counter rose: one step is enough, also if the queue was full only between two polls.
            yield Candidate(_finding(listener, view, Severity.CRITICAL), Severity.CRITICAL if dropping else None)
        elif listener.accept_queue.share >= limits.accept_queue_share:
            yield Candidate(_finding(listener, view, Severity.WARNING))


def _drops_for_full_queue(listener: Listener, view: View) -> bool:
    """Return whether both the listener's drops and ListenOverflows rise, as far as they are known.

    The listener's drops alone prove nothing: they include SYNs dropped for a full SYN queue and, with TCP_DEFER_ACCEPT,
    each last ACK without data. ListenOverflows counts for all listeners.
    """
    known = [rate for rate in (view.rates.get("ListenOverflows"), listener.drops_per_s) if rate is not None]
    return bool(known) and all(rate > 0 for rate in known)


def _finding(listener: Listener, view: View, severity: Severity) -> Finding:
    queue = listener.accept_queue
    return Finding(
        severity,
        FindingSubject("listener", ListenerSubject(listener.key, listener.inode if listener.group_size > 1 else 0)),
        _headline(listener),
        {
            "accept_queue": Figure(queue.depth, "connections"),
            "accept_queue_limit": Figure(queue.limit, "connections"),
            "accept_queue_peak": Figure(listener.accept_peak, "connections"),
            "limit_set_by": Figure(listener.accept_limit_source.value),
            "process": Figure(listener.process or None),
            **({"holders": Figure(listener.holders)} if listener.holders else {}),
            "oldest_waits": Figure(listener.waiting_s, "s"),
            "clients_given_up": Figure(listener.client_closed, "connections"),
            "accepted": Figure(listener.accepted_per_s, "connections/s"),
            "drops": Figure(listener.drops_per_s, "segments/s"),
            "listen_overflows": Figure(view.rates.get("ListenOverflows"), "segments/s"),
        },
        _why(listener, view),
        _advice(listener, view),
        f"state:established,close-wait inode:0 {listener.key.local_filter}",
    )


def _headline(listener: Listener) -> str:
    queue, depth = listener.accept_queue, listener.accept_queue.depth
    parts = [f"{units.count(depth)} of {units.count(queue.limit)} waiting"]
    if listener.accept_peak is not None and depth is not None and listener.accept_peak > depth:
        parts.append(f"peak {units.count(listener.accept_peak)}")
    if listener.accepted_by:
        parts.insert(0, listener.process)
    if listener.drops_per_s:
        parts.append(units.plural_rate(listener.drops_per_s, "drop"))
    if listener.waiting_s is not None:
        parts.append(f"oldest {'over ' if listener.waiting_is_minimum else ''}{units.duration(listener.waiting_s)}")
    if listener.client_closed:
        parts.append(f"{units.plural(listener.client_closed, 'client')} gave up")
    return "; ".join(filter(None, (", ".join(parts), listener.holders)))


def _why(listener: Listener, view: View) -> str:
    effect = (
        "resets them (tcp_abort_on_overflow=1)"
        if view.sample.sysctls.get("tcp_abort_on_overflow")
        else "drops the last ACK of their handshake, and the client believes it is connected"
    )
    pace = (
        "has stopped calling accept()"
        if listener.accepted_per_s == 0
        else "calls accept() more slowly than clients connect"
    )
    return f"The application {pace}. The kernel refuses clients beyond the limit: it {effect}."


def _advice(listener: Listener, view: View) -> tuple[str, ...]:
    application = listener.application
    somaxconn = view.sample.sysctls.get("somaxconn")
    limit = {
        LimitSource.SOMAXCONN: f"The limit is net.core.somaxconn ({somaxconn}): "
        f"raise it, then restart {application}, as it must call listen() again.",
        LimitSource.LISTEN: f"The limit is the backlog that {application} passes to listen() "
        f"(somaxconn is {somaxconn}): raise the backlog and restart.",
    }
    blocked = (
        f"Check what keeps {application} from calling accept(): a lock, a slow backend, all workers busy, "
        "no file descriptors left."
    )
    longer = "A longer queue only helps with bursts; clients that wait too long give up anyway."
    return tuple(filter(None, (blocked, limit.get(listener.accept_limit_source), longer)))
