"""SynCounters: how many SYNs met a full SYN queue, of the whole host and of one listener.

The kernel counts for the whole host (TCPReqQFullDoCookies, SyncookiesSent, ...). The counts belong to one listener only
if no other SYN queue can have been full. Its own drops (sk_drops) are an upper limit of the SYNs that it dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_limits import LimitSource
from tcpwatch.model.view import View

COOKIES_NEVER, COOKIES_WHEN_FULL, COOKIES_ALWAYS = 0, 1, 2
"""Values of tcp_syncookies."""


@dataclass(frozen=True, slots=True)
class SynCounters:
    """Increases per second of the whole host, or of one listener; None where it is not known."""

    cookies: float | None
    """SYNs answered with a cookie because a SYN queue was full."""
    dropped: float | None
    """SYNs dropped because a SYN queue was full."""
    sent: float | None
    """Cookies sent."""
    returned: float | None
    """Cookies that came back with the last ACK of a handshake."""

    @property
    def show_full_queue(self) -> bool:
        """Return whether a SYN found a full SYN queue since the last step."""
        return bool(self.cookies or self.dropped)

    def are_unreturned(self, limits: Thresholds) -> bool:
        """Return whether many cookies are sent and few come back."""
        sent, returned = self.sent or 0.0, self.returned or 0.0
        return sent >= limits.flood_cookies_per_s and returned < limits.flood_cookies_returned * sent


def counters_of_host(view: View) -> SynCounters:
    """Return the counters of the whole host.

    With tcp_syncookies=2 the counter of cookies for a full queue rises with every SYN and means nothing. With
    tcp_syncookies=0 SYNs dropped above three quarters of tcp_max_syn_backlog have no counter of their own: they are
    those ListenDrops that no other counter includes, while a SYN queue with this limit is nearly full.
    """
    if counters_of_host not in view.memo:
        view.memo[counters_of_host] = _counters_of_host(view)
    counters: SynCounters = view.memo[counters_of_host]
    return counters


def _counters_of_host(view: View) -> SynCounters:
    mode, rates = view.sample.sysctls.get("tcp_syncookies"), view.rates
    cookies, dropped = rates.get("TCPReqQFullDoCookies"), rates.get("TCPReqQFullDrop")
    if mode == COOKIES_ALWAYS:
        cookies = dropped = None
    elif mode == COOKIES_NEVER and _is_syn_backlog_reached(view):
        dropped = max(dropped or 0.0, rates.get("ListenDrops", 0.0) - rates.get("ListenOverflows", 0.0))
    return SynCounters(cookies, dropped, rates.get("SyncookiesSent"), rates.get("SyncookiesRecv"))


def counters_of(listener: Listener, view: View, limits: Thresholds) -> SynCounters:
    """Return what is proved of one listener: everything if no other SYN queue can have been full, else its drops."""
    host, own_drops = counters_of_host(view), _own_drops_per_s(listener, view)
    dropped = None if host.dropped is None or own_drops is None else min(host.dropped, own_drops)
    if _perhaps_full(view, limits) - {listener.key}:
        return SynCounters(None, dropped, None, None)
    return SynCounters(host.cookies, host.dropped if own_drops is None else dropped, host.sent, host.returned)


def _is_syn_backlog_reached(view: View) -> bool:
    return any(
        listener.syn_limit_source is LimitSource.SYN_BACKLOG and _may_have_been_full(listener, view.thresholds)
        for listener in view.busy_listeners
    )


def _own_drops_per_s(listener: Listener, view: View) -> float | None:
    members = [member.drops_per_s for member in view.group_of(listener)]
    return sum(drops or 0.0 for drops in members) if any(drops is not None for drops in members) else None


def _perhaps_full(view: View, limits: Thresholds) -> frozenset[ListenerKey]:
    """Return the listeners whose SYN queue may have been full since the last step."""
    memo = _perhaps_full, limits
    if memo not in view.memo:
        full = (listener.key for listener in view.busy_listeners if _may_have_been_full(listener, limits))
        view.memo[memo] = frozenset(full)
    keys: frozenset[ListenerKey] = view.memo[memo]
    return keys


def _may_have_been_full(listener: Listener, limits: Thresholds) -> bool:
    """Return whether the SYN queue of this listener may have been full since the last step, at a moment without a poll.

    A queue that was not even half of nearly full in the last seconds is taken to have had room all the time.
    """
    limit = listener.syn_queue.limit
    return limit is None or listener.syn_peak >= limits.syn_queue_share / 2 * max(limit, 1)
