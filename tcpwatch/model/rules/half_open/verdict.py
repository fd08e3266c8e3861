"""half_open_verdict: explain the half-open connections of the host, or of one listener, with their figures.

A verdict uses the same checks as the rules (queues/) and agrees with the findings of the View, which stay for some
steps after their condition has ended.
"""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Finding, ListenerSubject, Severity
from tcpwatch.model.listeners.half_open import HalfOpenSummary
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.rules.half_open.calm import HalfOpenFigures, calm_verdict, closed_listener_verdict
from tcpwatch.model.rules.half_open.verdict_kinds import HalfOpenVerdict, VerdictKind
from tcpwatch.model.rules.queues import syn_flood, syn_queue
from tcpwatch.model.rules.queues.accept_queue import accept_pace
from tcpwatch.model.rules.queues.syn_counters import counters_of
from tcpwatch.model.view import View


def half_open_verdict(view: View, key: ListenerKey | None = None) -> HalfOpenVerdict:
    """Return the verdict about one listening address and port, or about the host."""
    limits = view.thresholds
    listeners = _listeners_of(view, key)
    if key is not None and not listeners:
        return closed_listener_verdict(view)
    urgent = next(_urgent_verdicts(listeners, view, limits), None)
    if key is None and (urgent is None or urgent.kind is not VerdictKind.FLOOD):
        urgent = _host_flood_verdict(view, limits) or urgent
    if urgent is not None:
        return urgent
    near = any(_is_near(listener, view, limits) for listener in listeners)
    if key is None:
        return calm_verdict(HalfOpenFigures.of_all(view, near), view)
    figures = HalfOpenFigures.of_one(listeners[0], half_open_of(view, key), near)
    return _hidden_by_cookies_verdict(listeners[0], view, limits) or calm_verdict(figures, view)


def _listeners_of(view: View, key: ListenerKey | None) -> list[Listener]:
    """Return one listener of this address and port, or of each that may be the reason of a verdict about the host."""
    if key is not None:
        return list(view.listeners_whose_key(key.__eq__)[:1])
    listeners = syn_queue.group_listeners(view)
    others = set(map(_listener_key, view.findings)) - {each.key for each in listeners}
    keys = {key for key in others if key is not None}
    with_findings = view.listeners_whose_key(keys.__contains__) if keys else ()
    return listeners + list({each.key: each for each in with_findings}.values())


def half_open_of(view: View, key: ListenerKey | None = None) -> HalfOpenSummary | None:
    """Return the half-open connections of a listener or of the host; None if the View lacks those of the listener."""
    if key is None:
        return view.half_open
    if view.queue_detail is not None and view.queue_detail.key == key:
        return view.queue_detail.half_open
    return view.half_open_by_listener.get(key)


# Problems of one listener -------------------------------------------------------------------------


def _urgent_verdicts(listeners: list[Listener], view: View, limits: Thresholds) -> Iterator[HalfOpenVerdict]:
    """Yield verdicts about problems: the most urgent kind first, then the deepest queue."""
    for verdict in (_flood_verdict, _slow_application_verdict, _burst_verdict):
        yield from filter(None, (verdict(listener, view, limits) for listener in listeners))


def _flood_verdict(listener: Listener, view: View, limits: Thresholds) -> HalfOpenVerdict | None:
    if not (syn_flood.is_flooded(listener, view, limits) or _has_finding("syn-flood", listener, view)):
        return None
    headline = syn_flood.flood_headline(listener, view)
    return HalfOpenVerdict(VerdictKind.FLOOD, Severity.CRITICAL, listener.key, headline, syn_flood.FLOOD_WHY)


def _slow_application_verdict(listener: Listener, view: View, limits: Thresholds) -> HalfOpenVerdict | None:
    backed_up = syn_queue.is_accept_queue_backed_up(view, listener, limits)
    if not (backed_up or _has_finding("accept-queue-full", listener, view)):
        return None
    if not (listener.retransmitted or syn_queue.is_full(listener, view, limits)):
        return None
    members = view.group_of(listener)
    fullest = max(members, key=lambda member: member.accept_queue.share)
    queue = fullest.accept_queue
    headline = (
        f"{units.count(listener.syn_queue.depth)} half-open, {_retransmitted(listener)}, accept queue holds "
        f"{units.count(queue.depth)} of {units.count(queue.limit)}"
    )
    why = f"{accept_pace(fullest)} While the accept queue is full, the kernel drops the last ACK of honest clients."
    severity = Severity.CRITICAL if any(member.accept_full for member in members) else Severity.WARNING
    return HalfOpenVerdict(VerdictKind.SLOW_APPLICATION, severity, listener.key, headline, why)


def _burst_verdict(listener: Listener, view: View, limits: Thresholds) -> HalfOpenVerdict | None:
    if not _is_near(listener, view, limits):
        return None
    if syn_queue.retransmitted_share(listener) > limits.flood_repeated_share:
        return None
    full = syn_queue.is_full(listener, view, limits)
    headline = f"{syn_queue.queue_headline(listener, view)}, {_retransmitted(listener)}"
    own = counters_of(listener, view, limits)
    if full and own.sent:
        headline += f", {units.rate(own.returned)} of {units.rate(own.sent)} cookies/s returned"
    state = "full" if full else "nearly full, or was a moment ago"
    why = f"The SYN queue is {state}, but most clients answer: they are honest, and the queue is too short for them."
    severity = Severity.CRITICAL if full else Severity.WARNING
    return HalfOpenVerdict(VerdictKind.BURST, severity, listener.key, headline, why)


def _retransmitted(listener: Listener) -> str:
    return f"{units.share(syn_queue.retransmitted_share(listener))} retransmitted"


def _is_near(listener: Listener, view: View, limits: Thresholds) -> bool:
    """Return whether the condition of syn-queue-full is true, or its finding is still shown."""
    near = listener.syn_queue.share >= limits.syn_queue_share or syn_queue.is_full(listener, view, limits)
    return near or _has_finding("syn-queue-full", listener, view)


def _has_finding(rule: str, listener: Listener, view: View) -> bool:
    return any(finding.rule == rule and _listener_key(finding) == listener.key for finding in view.findings)


def _listener_key(finding: Finding) -> ListenerKey | None:
    """Return the listening address and port that a finding is about, None if it is about something else."""
    return finding.subject.value.key if isinstance(finding.subject.value, ListenerSubject) else None


# Floods behind SYN cookies, which hide the listener -------------------------------------------------


def _host_flood_verdict(view: View, limits: Thresholds) -> HalfOpenVerdict | None:
    if syn_flood.is_host_flooded(view, limits):
        headline = syn_flood.cookies_headline(view)
        return HalfOpenVerdict(VerdictKind.FLOOD, Severity.CRITICAL, None, headline, syn_flood.UNRETURNED_WHY)
    finding = next((finding for finding in view.findings if finding.rule == "syn-flood"), None)
    if finding is None:
        return None
    subject = _listener_key(finding)
    why = "The listener was flooded a moment ago and has been closed since." if subject else syn_flood.UNRETURNED_WHY
    return HalfOpenVerdict(VerdictKind.FLOOD, Severity.CRITICAL, subject, finding.headline, why)


def _hidden_by_cookies_verdict(listener: Listener, view: View, limits: Thresholds) -> HalfOpenVerdict | None:
    """Return a verdict if the host is flooded and the SYN queues do not show which listener is the target."""
    flood = _host_flood_verdict(view, limits)
    if flood is None or flood.subject:
        return None
    headline = f"{units.count(listener.syn_queue.depth)} half-open here, {flood.headline}"
    why = "The host is flooded. Cookies leave no trace in a SYN queue, so this listener may or may not be the target."
    return HalfOpenVerdict(VerdictKind.UNKNOWN, Severity.WARNING, listener.key, headline, why)
