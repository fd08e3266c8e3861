"""Rules about accept queues: `accept-queue-full` and `accept-stalled`."""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, ListenerSubject, Severity
from tcpwatch.model.listeners.accept_stalls import AcceptStall
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_limits import LimitSource
from tcpwatch.model.rules.registry import rule
from tcpwatch.model.view import View


@rule("accept-queue-full", rank=20, needs=("queues", "ListenOverflows"))
def accept_queue_full(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """An application accepts connections more slowly than clients open them.

    Warning: an accept queue holds 80 % of its limit. Members of a SO_REUSEPORT group are checked one by one.
    Critical: an accept queue is over its limit, or its listener drops connections because the queue is full.
    Source: sk_acceptq_is_full (include/net/sock.h), tcp_conn_request and tcp_check_req (net/ipv4), listen(2),
        ip-sysctl.rst (somaxconn, tcp_abort_on_overflow).
    """
    for listener in view.busy_listeners:
        dropping = _is_dropping(listener, view)
        if listener.accept_queue.is_over_limit or dropping:
            # A counter rose: one step is enough, also if the queue was full only between two polls.
            yield Candidate(_full_finding(listener, view, Severity.CRITICAL), Severity.CRITICAL if dropping else None)
        elif listener.accept_queue.share >= limits.accept_queue_share and not _stall(listener, limits):
            yield Candidate(_full_finding(listener, view, Severity.WARNING))


@rule("accept-stalled", rank=25, needs=("queues", "inodes", "PassiveOpens"))
def accept_stalled(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """An application accepts nothing, and its clients wait for an answer.

    Warning: no accept() has succeeded for 30 s while connections wait, or none since the first poll and the oldest
        connection has waited 30 s; where that is not certain: all connections that waited 30 s ago still wait. If the
        queue is full, accept-queue-full reports it.
    Critical: none has succeeded for 30 s, and 100 connections wait.
    Source: reqsk_queue_remove (include/net/request_sock.h): accept() takes the oldest connection; accept(2), listen(2).
    """
    for listener in view.busy_listeners:
        stall = _stall(listener, limits)
        if stall is None or listener.accept_queue.is_over_limit or _is_dropping(listener, view):
            continue
        long = (listener.stalled_s or 0.0) >= limits.accept_stalled_s
        critical = long and (listener.accept_queue.depth or 0) >= limits.accept_stalled_count
        severity = Severity.CRITICAL if critical else Severity.WARNING
        yield Candidate(_stalled_finding(listener, stall, view, severity), stays=False)


def _stall(listener: Listener, limits: Thresholds) -> AcceptStall | None:
    """Return for how long a listener has accepted nothing, None unless it is long."""
    for stall in filter(None, (listener.stall, listener.unmoved)):
        # A slow application is none that has stopped: what was before the first poll does not count later.
        waits_s = listener.waiting_s if stall.since_first_sample and listener.group_size == 1 else None
        if max(stall.for_s, waits_s or 0.0) >= limits.accept_stalled_s:
            return stall
    return None


def _is_dropping(listener: Listener, view: View) -> bool:
    return listener.accept_full and _drops_for_full_queue(listener, view)


def _drops_for_full_queue(listener: Listener, view: View) -> bool:
    """Return whether both the listener's drops and ListenOverflows rise, as far as they are known.

    The listener's drops alone prove nothing: they include SYNs dropped for a full SYN queue and, with TCP_DEFER_ACCEPT,
    each last ACK without data. ListenOverflows counts for all listeners.
    """
    known = [rate for rate in (view.rates.get("ListenOverflows"), listener.drops_per_s) if rate is not None]
    return bool(known) and all(rate > 0 for rate in known)


def accept_pace(listener: Listener) -> str:
    """Return a sentence about how the application accepts: `nginx[7] has accepted nothing for 12 s.`"""
    application = listener.application if listener.accepted_by else "The application"
    several = len(listener.accepted_by) > 1
    if listener.stall is not None:
        return f"{application} {'have' if several else 'has'} accepted nothing for {_duration(listener.stall)}."
    return f"{application} {'accept' if several else 'accepts'} connections more slowly than clients open them."


def _duration(stall: AcceptStall) -> str:
    return ("at least " if stall.since_first_sample else "") + units.duration(stall.for_s)


def _is_only_full_one(listener: Listener, view: View) -> bool:
    """Return whether ListenOverflows, which counts for the whole host, can be that of this listener alone."""
    return not any(
        (other.accept_full or other.accept_queue.is_over_limit or other.drops_per_s)
        for other in view.busy_listeners
        if other.cookie != listener.cookie
    )


def _full_finding(listener: Listener, view: View, severity: Severity) -> Finding:
    overflows = view.rates.get("ListenOverflows")
    return Finding(
        severity,
        _subject(listener),
        _headline(listener, _queue_parts(listener, view)),
        {
            "accept_queue": Figure(listener.accept_queue.depth, "connections"),
            "accept_queue_limit": Figure(listener.accept_queue.limit, "connections"),
            "accept_queue_peak": Figure(listener.accept_peak, "connections"),
            "limit_set_by": Figure(listener.accept_limit_source.value),
            **_process_figures(listener),
            **_waiting_figures(listener, view),
            "accepted": Figure(
                listener.accepted_per_s, "connections/s" if listener.stalled_s else "connections/s or more"
            ),
            "nothing_accepted_for": Figure(listener.stalled_s, "s"),
            "drops": Figure(listener.drops_per_s, "segments/s"),
            "listen_overflows": Figure(overflows if _is_only_full_one(listener, view) else None, "segments/s"),
            "host_listen_overflows": Figure(overflows, "segments/s"),
        },
        f"{accept_pace(listener)} The kernel refuses clients beyond the limit: it {_effect(view)}.",
        (_blocked(listener), *_limit_advice(listener, view)),
        _filter(listener),
    )


def _stalled_finding(listener: Listener, stall: AcceptStall, view: View, severity: Severity) -> Finding:
    # Of connections that were reset and cannot be seen, some may have been accepted.
    stalled = (
        f"all connections that waited {units.duration(stall.for_s)} ago still wait"
        if stall.unseen
        else f"no accept() succeeded for {_duration(stall)}"
    )
    return Finding(
        severity,
        _subject(listener),
        _headline(listener, [stalled, *_queue_parts(listener, view)]),
        {
            "nothing_accepted_for": Figure(listener.stalled_s, "s"),
            "unchanged_for": Figure(stall.for_s, "s"),
            "accepted_at_most": Figure(stall.unseen, "connections"),
            "accept_queue": Figure(listener.accept_queue.depth, "connections"),
            "accept_queue_limit": Figure(listener.accept_queue.limit, "connections"),
            **_process_figures(listener),
            **_waiting_figures(listener, view),
        },
        "The kernel has completed the handshakes of the waiting clients: they are connected, and get no answer.",
        (_blocked(listener), "strace -f -p PID shows whether a thread calls accept(), and how the call fails."),
        _filter(listener),
    )


def _subject(listener: Listener) -> FindingSubject:
    return FindingSubject("listener", ListenerSubject(listener.key, listener.inode if listener.group_size > 1 else 0))


def _filter(listener: Listener) -> str:
    return f"state:established,close-wait inode:0 {listener.key.local_filter}"


def _waits_here(listener: Listener, view: View) -> bool:
    """Return whether all waiting connections of the group are this socket's: the kernel does not report the member."""
    others = (each for each in view.group_of(listener) if each.cookie != listener.cookie)
    return listener.group_size == 1 or not any(each.accept_queue.depth for each in others)


def _process_figures(listener: Listener) -> dict[str, Figure]:
    holders = {"holders": Figure(listener.holders)} if listener.holders else {}
    return {"process": Figure(listener.process if listener.accepted_by else None), **holders}


def _waiting_figures(listener: Listener, view: View) -> dict[str, Figure]:
    here = _waits_here(listener, view)
    return {
        "oldest_waits": Figure(listener.waiting_s if here else None, "s"),
        "clients_given_up": Figure(listener.gave_up if here else None, "connections"),
    }


def _headline(listener: Listener, parts: list[str]) -> str:
    process = [listener.process] if listener.accepted_by else []
    return "; ".join(filter(None, (", ".join([*process, *parts]), listener.holders)))


def _queue_parts(listener: Listener, view: View) -> list[str]:
    queue, depth, here = listener.accept_queue, listener.accept_queue.depth, _waits_here(listener, view)
    parts = [f"{units.count(depth)} of {units.count(queue.limit)} waiting"]
    if listener.accept_peak is not None and depth is not None and listener.accept_peak > depth:
        parts.append(f"peak {units.count(listener.accept_peak)}")
    if listener.drops_per_s:
        parts.append(units.plural_rate(listener.drops_per_s, "drop"))
    if here and listener.waiting_s is not None:
        parts.append(f"oldest {'over ' if listener.waiting_is_minimum else ''}{units.duration(listener.waiting_s)}")
    if here and listener.gave_up:
        parts.append(f"{units.plural(listener.gave_up, 'client')} gave up")
    return parts


def _effect(view: View) -> str:
    if view.sample.sysctls.get("tcp_abort_on_overflow"):
        return "drops their SYNs, and resets those whose last ACK arrives (tcp_abort_on_overflow=1)"
    return "drops their SYNs; it also drops last ACKs, and the clients that sent these believe they are connected"


def _blocked(listener: Listener) -> str:
    return (
        f"Check what keeps {listener.application} from accepting connections: a lock, a slow backend, all "
        "workers busy, no file descriptors left."
    )


def _limit_advice(listener: Listener, view: View) -> Iterator[str]:
    # A listener that several processes hold was opened by one of them, or by another one: systemd, a master process.
    several = listener.owner is not None and len(listener.owner.processes) > 1
    application = "the program that opened the socket" if several else listener.application
    somaxconn = view.sample.sysctls.get("somaxconn")
    if listener.accept_limit_source is LimitSource.SOMAXCONN:
        yield (
            f"The limit equals net.core.somaxconn ({somaxconn}): raise it, then restart {application} with a larger "
            "backlog, as listen() takes the smaller of the two."
        )
    elif listener.accept_limit_source is LimitSource.LISTEN:
        yield (
            f"The limit is from listen(): the backlog that {application} passed, or net.core.somaxconn at that time "
            f"(now {somaxconn}). Raise the backlog and restart."
        )
    yield "A longer queue only helps with bursts; clients that wait too long give up anyway."
