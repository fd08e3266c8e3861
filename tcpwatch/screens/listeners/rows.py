"""Rows of the table of listeners: a single listener, a SO_REUSEPORT group, or one of its members."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_history import QueueTrend
from tcpwatch.model.listeners.queue_limits import Queue
from tcpwatch.model.view import View


@dataclass(frozen=True, slots=True, eq=False)
class ListenerRow:
    """One row of the table."""

    members: tuple[Listener, ...]
    """The listeners, the fullest accept queue first; one if it is no group."""
    trend: QueueTrend
    is_lower_bound: bool = False
    """Polls missed accepted connections, and some may have been of any listener."""
    is_member: bool = False
    """It is a member of an unfolded group."""

    @property
    def fullest(self) -> Listener:
        """The member with the fullest accept queue."""
        return self.members[0]

    @property
    def accept_queue_known(self) -> bool:
        """Whether the source supports accept queues."""
        return self.fullest.accept_queue.depth is not None

    @property
    def identity(self) -> Hashable:
        """Identity in every View: the key of a group, else the cookie."""
        return self.fullest.key if self.is_group else self.fullest.cookie

    @property
    def is_group(self) -> bool:
        """Whether it is a SO_REUSEPORT group of several sockets."""
        return len(self.members) > 1

    @property
    def accept_queue(self) -> Queue:
        """The accept queue, for a group the sum of its members."""
        if not self.is_group:
            return self.fullest.accept_queue
        depths = [listener.accept_queue.depth for listener in self.members]
        limits = [listener.accept_queue.limit for listener in self.members]
        return Queue(_sum(depths), _sum(limits))

    @property
    def peak(self) -> Queue | None:
        """The deepest accept queue of a single socket since the last step, with its limit.

        None for a single listener unless it was deeper than now; always there for a group, whose sum hides it.
        """
        deepest = max((_deepest(listener) for listener in self.members), key=lambda queue: queue.share)
        above = self.is_group or (deepest.depth or 0) > (self.accept_queue.depth or 0)
        return deepest if above and self.accept_queue_known else None

    @property
    def syn_peak(self) -> Queue | None:
        """The deepest SYN queue of the last 10 s; None unless it was deeper than now."""
        now = self.fullest.syn_queue
        return Queue(self.fullest.syn_peak, now.limit) if self.fullest.syn_peak > (now.depth or 0) else None

    @property
    def drops_per_s(self) -> float | None:
        """Dropped segments per second, for a group the sum of its members."""
        known = [listener.drops_per_s for listener in self.members if listener.drops_per_s is not None]
        return sum(known) if known else None

    @property
    def accepted_sign(self) -> str:
        """`≥` if polls missed accepted connections, and some may have been here."""
        known = self.fullest.accepted_per_s is None or (self.fullest.stalled_s is not None and not self.is_group)
        return "≥" if self.is_lower_bound and not known else ""

    @property
    def accept_history(self) -> Sequence[float]:
        """The deepest accept queue of the members in each slot."""
        if not self.accept_queue_known:
            return ()
        histories = [self.trend.accept_queue(listener.cookie) for listener in self.members]
        slots = zip(*(history for history in histories if history), strict=True)
        return [max((depth for depth in slot if depth == depth), default=math.nan) for slot in slots]

    @property
    def syn_history(self) -> Sequence[float]:
        """The depth of the SYN queue in each slot."""
        return self.trend.syn_queue(self.fullest.cookie)

    def member_rows(self) -> list[ListenerRow]:
        """Return a row for each member."""
        return [ListenerRow((listener,), self.trend, self.is_lower_bound, is_member=True) for listener in self.members]


def _deepest(listener: Listener) -> Queue:
    now = listener.accept_queue
    return now if listener.accept_peak is None else Queue(max(listener.accept_peak, now.depth or 0), now.limit)


def _sum(figures: Sequence[int | None]) -> int | None:
    known = [figure for figure in figures if figure is not None]
    return sum(known) if len(known) == len(figures) else None


def listener_rows(view: View, is_lower_bound: bool, listeners: Sequence[Listener]) -> list[ListenerRow]:
    """Return the rows of these listeners of a View, one per group."""
    firsts: dict[Hashable, Listener] = {}
    for each in listeners:
        firsts.setdefault(each.cookie if each.group_size == 1 else each.key, each)
    return [ListenerRow(tuple(view.group_of(first)), view.queue_trend, is_lower_bound) for first in firsts.values()]


@dataclass(frozen=True, slots=True)
class UnseenAccepts:
    """Polls missed some of the accepted connections."""

    seen_per_s: float
    """Accept rate of all listeners as seen by polls."""
    accepted_per_s: float
    """See View.accepted_at_most_per_s."""


_MISSED_FACTOR = 1.25
"""The kernel's figure must be higher than the seen one by this factor: the two are not read at the same moment."""
_KEPT_S = 10.0


class UnseenAcceptsTracker:
    """Keeps the last result for some seconds, so that the remark does not flicker."""

    def __init__(self) -> None:
        self._latest: UnseenAccepts | None = None
        self._at = 0.0

    def update(self, view: View) -> UnseenAccepts | None:
        """Return the result for this View, else a recent one."""
        now, unseen = view.sample.monotonic, unseen_accepts(view)
        if unseen is not None or not 0 <= now - self._at <= _KEPT_S:
            self._latest, self._at = unseen, now
        return self._latest


def unseen_accepts(view: View) -> UnseenAccepts | None:
    """Return what polls missed; None if that is little or unknown."""
    accepted, is_known = (
        view.accepted_at_most_per_s,
        any(each.accepted_per_s is not None for each in view.listeners[:1]),
    )
    seen = sum({each.key: each.accepted_per_s or 0.0 for each in view.busy_listeners}.values())
    if accepted is None or not is_known or accepted <= _MISSED_FACTOR * seen:
        return None
    return UnseenAccepts(seen, accepted)
