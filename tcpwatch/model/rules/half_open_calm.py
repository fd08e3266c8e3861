"""Verdicts about half-open connections where no queue is full: who does not answer, and why."""

from __future__ import annotations

from dataclasses import dataclass

from tcpwatch import units
from tcpwatch.model.finding import Severity
from tcpwatch.model.listeners.half_open import HalfOpenSummary
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.rules.half_open_kinds import HalfOpenVerdict, VerdictKind
from tcpwatch.model.rules.syn_queue import COOKIES_ALWAYS
from tcpwatch.model.view import View


@dataclass(frozen=True, slots=True)
class HalfOpenFigures:
    """The figures of some half-open connections."""

    count: int
    retransmitted: int
    deferred: int
    oldest_s: float | None
    without_listener: int
    near: bool
    """A SYN queue of theirs is nearly full."""
    listener: Listener | None = None
    """Whose they are; None: all listeners'."""

    @classmethod
    def of_all(cls, view: View, near: bool) -> HalfOpenFigures:
        """Those of the host."""
        found = view.half_open
        return cls(
            found.count, found.retransmitted, found.deferred, found.oldest_s, view.half_open_without_listener, near
        )

    @classmethod
    def of_one(cls, one: Listener, found: HalfOpenSummary | None, near: bool) -> HalfOpenFigures:
        """Those of one listener; without `found` less is known of them."""
        late, oldest_s = (found.deferred, found.oldest_s) if found else (0, None)
        return cls(one.syn_queue.depth or 0, one.retransmitted, late, oldest_s, 0, near, one)

    @property
    def subject(self) -> ListenerKey | None:
        """The listening address and port, or None for the whole host."""
        return self.listener.key if self.listener else None

    @property
    def oldest(self) -> str:
        """The end of a headline."""
        return f", the oldest for {units.duration(self.oldest_s)}" if self.oldest_s is not None else ""


def calm_verdict(shape: HalfOpenFigures, view: View) -> HalfOpenVerdict:
    """What they are, where no queue is full."""
    if not shape.count:
        return _nothing(shape, view)
    if 2 * shape.without_listener > shape.count:
        return _stray(shape)
    if not view.sample.capabilities.timers:
        return _untold(shape, view)
    if 2 * (shape.retransmitted + shape.deferred) > shape.count:
        return _slow(shape) if shape.retransmitted >= shape.deferred else _held_back(shape)
    headline = f"{units.count(shape.count)} half-open, {units.count(shape.retransmitted)} repeated{shape.oldest}"
    why = f"Handshakes on their way: most answer within their round trip.{_coming(view)}"
    return HalfOpenVerdict(VerdictKind.QUIET, None, shape.subject, headline, why)


def _nothing(shape: HalfOpenFigures, view: View) -> HalfOpenVerdict:
    always = view.sample.sysctls.get("tcp_syncookies") == COOKIES_ALWAYS
    why = (
        "tcp_syncookies is 2: each SYN is answered by a cookie, and the SYN queue stays empty."
        if always
        else "Nobody calls, or the last ACK comes before anybody looks."
    )
    return HalfOpenVerdict(VerdictKind.QUIET, None, shape.subject, "nothing is half-open", why + _coming(view))


def _coming(view: View) -> str:
    """What comes to the host at present."""
    return (
        f" The host gets {units.rate(view.syn_arrivals_per_s)} SYNs/s." if view.syn_arrivals_per_s is not None else ""
    )


def _stray(shape: HalfOpenFigures) -> HalfOpenVerdict:
    without, total = units.count(shape.without_listener), units.count(shape.count)
    headline = f"{without} of {total} half-open have no listener any more"
    return HalfOpenVerdict(VerdictKind.LISTENER_CLOSED, Severity.INFO, shape.subject, headline, _OUTLIVED)


_OUTLIVED = (
    "Half-open connections outlive the socket that they came to. They expire by themselves; a last ACK that comes "
    "meanwhile is reset."
)


def closed_listener_verdict(view: View) -> HalfOpenVerdict:
    """Of a listener that there is not, or not any more."""
    stray = (
        f"; {units.count(view.half_open_without_listener)} half-open of the host are left behind"
        if view.half_open_without_listener
        else ""
    )
    return HalfOpenVerdict(
        VerdictKind.LISTENER_CLOSED, Severity.INFO, None, f"nobody listens there any more{stray}", _OUTLIVED
    )


def _untold(shape: HalfOpenFigures, view: View) -> HalfOpenVerdict:
    why = f"{view.sample.source.kind} tells neither limits nor repeats: a flood looks like slow clients."
    return HalfOpenVerdict(VerdictKind.UNKNOWN, None, shape.subject, f"{units.count(shape.count)} half-open", why)


def _slow(shape: HalfOpenFigures) -> HalfOpenVerdict:
    headline = (
        f"{units.count(shape.retransmitted)} of {units.count(shape.count)} "
        f"half-open had a SYN+ACK repeated{shape.oldest}"
    )
    room = "the queue has little room left" if shape.near else "the queue has room, so nobody is turned away"
    why = f"They do not answer: packets are lost on their way, or they only look, as a scan does; {room}."
    return HalfOpenVerdict(
        VerdictKind.SLOW_CLIENTS, Severity.WARNING if shape.near else None, shape.subject, headline, why
    )


def _held_back(shape: HalfOpenFigures) -> HalfOpenVerdict:
    headline = (
        f"{units.count(shape.deferred)} of {units.count(shape.count)} half-open wait without a repeat{shape.oldest}"
    )
    why = (
        "Their SYN+ACK was due to be repeated and was not: the listener has TCP_DEFER_ACCEPT, and waits for the "
        "clients' first data."
    )
    return HalfOpenVerdict(VerdictKind.DEFERRED, None, shape.subject, headline, why)
