"""Verdicts about half-open connections while no queue is full."""

from __future__ import annotations

from dataclasses import dataclass

from tcpwatch import units
from tcpwatch.model.finding import Severity
from tcpwatch.model.listeners.half_open import HalfOpenSummary
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.rules.half_open.verdict_kinds import HalfOpenVerdict, VerdictKind
from tcpwatch.model.rules.queues.syn_counters import COOKIES_ALWAYS
from tcpwatch.model.view import View


@dataclass(frozen=True, slots=True)
class HalfOpenFigures:
    """The half-open connections of one listener, or of the host."""

    count: int
    retransmitted: int
    deferred: int
    oldest_s: float | None
    without_listener: int
    near: bool
    """A SYN queue is nearly full."""
    listener: Listener | None = None
    """None for the host."""

    @classmethod
    def of_all(cls, view: View, near: bool) -> HalfOpenFigures:
        """Return the figures of the host."""
        summary, stray = view.half_open, view.half_open_without_listener
        return cls(summary.count, summary.retransmitted, summary.deferred, summary.oldest_s, stray, near)

    @classmethod
    def of_one(cls, listener: Listener, summary: HalfOpenSummary | None, near: bool) -> HalfOpenFigures:
        """Return the figures of one listener; without a summary some of them are unknown."""
        deferred, oldest_s = (summary.deferred, summary.oldest_s) if summary else (0, None)
        return cls(listener.syn_queue.depth or 0, listener.retransmitted, deferred, oldest_s, 0, near, listener)

    @property
    def subject(self) -> ListenerKey | None:
        """The listening address and port, or None for the whole host."""
        return self.listener.key if self.listener else None

    @property
    def oldest(self) -> str:
        """The end of a headline."""
        return "" if self.oldest_s is None else f", oldest {units.duration(self.oldest_s)}"

    @property
    def half_open(self) -> str:
        """`9 half-open connections`."""
        return units.plural(self.count, "half-open connection")


def calm_verdict(figures: HalfOpenFigures, view: View) -> HalfOpenVerdict:
    """Return the verdict while no queue is full."""
    if not figures.count:
        return _none_verdict(figures, view)
    if 2 * figures.without_listener > figures.count:
        return _stray_verdict(figures)
    if not view.sample.capabilities.timers:
        why = f"{view.sample.source.kind} reports neither limits nor retransmits: a flood looks like slow clients."
        return HalfOpenVerdict(VerdictKind.UNKNOWN, None, figures.subject, figures.half_open, why)
    if 2 * (figures.retransmitted + figures.deferred) > figures.count:
        slow = figures.retransmitted >= figures.deferred
        return _slow_clients_verdict(figures) if slow else _deferred_verdict(figures)
    headline = f"{figures.half_open}, {units.count(figures.retransmitted)} retransmitted{figures.oldest}"
    why = f"Handshakes in progress: most clients answer within one round trip.{_arrivals(view)}"
    return HalfOpenVerdict(VerdictKind.QUIET, None, figures.subject, headline, why)


def _none_verdict(figures: HalfOpenFigures, view: View) -> HalfOpenVerdict:
    why = (
        "tcp_syncookies is 2: the kernel answers each SYN with a cookie, and the SYN queue stays empty."
        if view.sample.sysctls.get("tcp_syncookies") == COOKIES_ALWAYS
        else "No client connects, or the handshakes complete between the polls."
    )
    return HalfOpenVerdict(VerdictKind.QUIET, None, figures.subject, "no half-open connections", why + _arrivals(view))


def _arrivals(view: View) -> str:
    per_s = view.syn_arrivals_per_s
    return "" if per_s is None else f" This host receives {units.plural_rate(per_s, 'SYN')}."


def _stray_verdict(figures: HalfOpenFigures) -> HalfOpenVerdict:
    headline = f"the listener of {units.count(figures.without_listener)} of {figures.half_open} is not known"
    why = (
        "It has closed, and they expire by themselves; or it accepts connections to other addresses (TPROXY, BPF "
        "sk_lookup), and the kernel does not report which listener that is."
    )
    return HalfOpenVerdict(VerdictKind.UNKNOWN, Severity.INFO, figures.subject, headline, why)


_STRAY_WHY = (
    "Half-open connections outlive their listener and expire by themselves; a last ACK that arrives meanwhile is "
    "answered with a reset."
)


def closed_listener_verdict(view: View) -> HalfOpenVerdict:
    """Return the verdict about an address and port without a listener."""
    stray = units.plural(view.half_open_without_listener, "half-open connection")
    headline = "no listener" + (f"; {stray} left on this host" if view.half_open_without_listener else "")
    return HalfOpenVerdict(VerdictKind.LISTENER_CLOSED, Severity.INFO, None, headline, _STRAY_WHY)


def _slow_clients_verdict(figures: HalfOpenFigures) -> HalfOpenVerdict:
    headline = f"SYN+ACK retransmitted to {units.count(figures.retransmitted)} of {figures.half_open}{figures.oldest}"
    room = "the queue is nearly full" if figures.near else "the queue has room, so no client is refused"
    why = f"Clients do not answer: packets get lost, or the clients only probe, as a scan does; {room}."
    severity = Severity.WARNING if figures.near else None
    return HalfOpenVerdict(VerdictKind.SLOW_CLIENTS, severity, figures.subject, headline, why)


def _deferred_verdict(figures: HalfOpenFigures) -> HalfOpenVerdict:
    headline = f"{units.count(figures.deferred)} of {figures.half_open} wait without a retransmit{figures.oldest}"
    why = (
        "The SYN+ACKs were due to be retransmitted and were not: the listener uses TCP_DEFER_ACCEPT and waits for the "
        "first data of the clients."
    )
    return HalfOpenVerdict(VerdictKind.DEFERRED, None, figures.subject, headline, why)
