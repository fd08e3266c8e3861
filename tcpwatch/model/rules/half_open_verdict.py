"""Verdict: what the half-open connections of the host, or of one listener, mean, in words with their numbers.

It judges by the predicates of the rules (diagnosis/syn_queue.py), and goes along with the findings that a View shows,
which are steadied over some steps: so the screen never says other than they do.
"""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Finding, ListenerSubject, Severity
from tcpwatch.model.listeners.half_open import HalfOpenSummary
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.rules import syn_queue as rules
from tcpwatch.model.rules.half_open_calm import HalfOpenFigures, calm_verdict, closed_listener_verdict
from tcpwatch.model.rules.half_open_kinds import HalfOpenVerdict, VerdictKind
from tcpwatch.model.view import View


def half_open_verdict(view: View, key: ListenerKey | None = None) -> HalfOpenVerdict:
    """About one listening address and port, or all of them."""
    limits = view.thresholds
    mine = [one for one in rules.group_listeners(view) if key is None or one.key == key]
    if key is not None and not mine:
        return closed_listener_verdict(view)
    urgent = next(_urgent(mine, view, limits), None)
    if key is None and (urgent is None or urgent.kind is not VerdictKind.FLOOD):
        urgent = _flood_without_a_listener(view, limits) or urgent
    if urgent is not None:
        return urgent
    near = any(_is_near(one, view, limits) for one in mine)
    if key is None:
        return calm_verdict(HalfOpenFigures.of_all(view, near), view)
    one = mine[0]
    return _hidden_by_cookies(one, view, limits) or calm_verdict(
        HalfOpenFigures.of_one(one, half_open_of(view, key), near), view
    )


def half_open_of(view: View, key: ListenerKey | None = None) -> HalfOpenSummary | None:
    """The half-open connections that a verdict is about; None where the View does not tell them apart (yet)."""
    if key is None:
        return view.half_open
    if view.queue_detail is not None and view.queue_detail.key == key:
        return view.queue_detail.half_open
    return view.half_open_by_listener.get(key)


# Where something is wrong: about one listener ----------------------------------------------------


def _urgent(mine: list[Listener], view: View, limits: Thresholds) -> Iterator[HalfOpenVerdict]:
    """What is wrong with these, the most urgent kind first, of one kind the deepest queue."""
    mine = sorted(mine, key=lambda one: -(one.syn_queue.depth or 0))
    for judge in (_flood, _slow_application, _burst):
        yield from filter(None, (judge(one, view, limits) for one in mine))


def _flood(one: Listener, view: View, limits: Thresholds) -> HalfOpenVerdict | None:
    if not (rules.is_flooded(one, view, limits) or _is_shown("syn-flood", one, view)):
        return None
    why = (
        "Most do not answer the SYN+ACK, though the application accepts: their addresses are spoofed, or they do not "
        "mean to connect (RFC 4987)."
    )
    return HalfOpenVerdict(VerdictKind.FLOOD, Severity.CRITICAL, one.key, rules.flood_headline(one, view), why)


def _slow_application(one: Listener, view: View, limits: Thresholds) -> HalfOpenVerdict | None:
    behind = rules.is_accept_queue_backed_up(view, one, limits) or _is_shown("accept-queue-full", one, view)
    if not behind or not (one.retransmitted or rules.is_full(one, view, limits)):
        return None
    fullest = max((it for it in view.listeners if it.key == one.key), key=lambda it: it.accept_queue.share)
    over = any(it.accept_full for it in view.listeners if it.key == one.key)
    headline = (
        f"{units.count(one.syn_queue.depth)} half-open, {units.share(rules.retransmitted_share(one))} repeated, behind "
        f"{units.count(fullest.accept_queue.depth)} of {units.count(fullest.accept_queue.limit)} waiting to be accepted"
    )
    why = (
        f"{fullest.process or 'The application'} calls accept() too slowly: behind a full accept queue the last ACK of "
        "honest clients is dropped."
    )
    severity = Severity.CRITICAL if over else Severity.WARNING
    return HalfOpenVerdict(VerdictKind.SLOW_APPLICATION, severity, one.key, headline, why)


def _burst(one: Listener, view: View, limits: Thresholds) -> HalfOpenVerdict | None:
    full = rules.is_full(one, view, limits)
    if not _is_near(one, view, limits) or rules.retransmitted_share(one) > limits.flood_repeated_share:
        return None
    headline = f"{rules.queue_headline(one, view)}, {units.share(rules.retransmitted_share(one))} repeated"
    sent, returned = view.rates.get("SyncookiesSent"), view.rates.get("SyncookiesRecv")
    if full and sent:
        headline += f", {units.rate(returned)} of {units.rate(sent)} cookies/s returned"
    now = "full" if full else "nearly full, or was a moment ago"
    why = (
        f"The SYN queue is {now}, but most answer: honest clients, more at once than it has room for. It is too short."
    )
    return HalfOpenVerdict(VerdictKind.BURST, Severity.CRITICAL if full else Severity.WARNING, one.key, headline, why)


def _is_near(one: Listener, view: View, limits: Thresholds) -> bool:
    """Whether syn-queue-full has something to say, or goes on to."""
    near = one.syn_queue.share >= limits.syn_queue_share or rules.is_full(one, view, limits)
    return near or _is_shown("syn-queue-full", one, view)


def _is_shown(rule: str, one: Listener, view: View) -> bool:
    """Whether there is a finding about this listener; it stays for some steps after its condition has gone."""
    return any(finding.rule == rule and _listener_key(finding) == one.key for finding in view.findings)


def _listener_key(finding: Finding) -> ListenerKey | None:
    """Return the listening address and port that a finding is about, None where it is about something else."""
    return finding.subject.value.key if isinstance(finding.subject.value, ListenerSubject) else None


# Where cookies hide which listener it is ---------------------------------------------------------


def _flood_without_a_listener(view: View, limits: Thresholds) -> HalfOpenVerdict | None:
    shown = next((finding for finding in view.findings if finding.rule == "syn-flood"), None)
    unnamed = rules.cookies_unreturned(view, limits) and not any(
        rules.is_full(one, view, limits) for one in rules.group_listeners(view)
    )
    if unnamed:
        return HalfOpenVerdict(VerdictKind.FLOOD, Severity.CRITICAL, None, rules.cookies_headline(view), _FEW_RETURN)
    if shown is not None:
        subject = _listener_key(shown)
        return HalfOpenVerdict(
            VerdictKind.FLOOD, Severity.CRITICAL, subject, shown.headline, _FEW_RETURN if not subject else _LATELY
        )
    return None


_FEW_RETURN = (
    "SYNs are answered by cookies, of which few come back as the last ACK: their senders are spoofed, or do not mean "
    "to connect (RFC 4987)."
)
_LATELY = "It was so a moment ago; the listener has been closed since."


def _hidden_by_cookies(one: Listener, view: View, limits: Thresholds) -> HalfOpenVerdict | None:
    """A flood of the host may be one of this listener, and its SYN queue cannot tell."""
    found = _flood_without_a_listener(view, limits)
    if found is None or found.subject:
        return None
    headline = f"{units.count(one.syn_queue.depth)} half-open here, {found.headline}"
    why = "The host is flooded, and cookies leave no trace in a SYN queue: whether it is this listener cannot be seen."
    return HalfOpenVerdict(VerdictKind.UNKNOWN, Severity.WARNING, one.key, headline, why)
