"""Rows of the table of listeners: a listener of its own, a SO_REUSEPORT group as one, or one of its members."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_history import QueueTrend
from tcpwatch.model.listeners.queue_limits import Queue
from tcpwatch.model.view import View


@dataclass(frozen=True, slots=True, eq=False)
class ListenerRow:
    """One line of the table."""

    members: tuple[Listener, ...]
    """The fullest accept queue first; a listener of its own is the only one."""
    trend: QueueTrend
    is_lower_bound: bool = False
    """The host accepted more than the polls saw, and some of it may have been here."""
    is_member: bool = False
    """A member of a group that is unfolded."""

    @property
    def fullest(self) -> Listener:
        """The member with the fullest accept queue; what a group has in common is the same in all."""
        return self.members[0]

    @property
    def accept_queue_known(self) -> bool:
        """The source tells what is in the accept queue."""
        return self.fullest.accept_queue.depth is not None

    @property
    def identity(self) -> Hashable:
        """The same in every View: the key of a group, else the cookie."""
        return self.fullest.key if self.is_group else self.fullest.cookie

    @property
    def is_group(self) -> bool:
        """A SO_REUSEPORT group of several sockets, as one."""
        return len(self.members) > 1

    @property
    def accept_queue(self) -> Queue:
        """Of a group the sum."""
        if not self.is_group:
            return self.fullest.accept_queue
        depths = [one.accept_queue.depth for one in self.members]
        limits = [one.accept_queue.limit for one in self.members]
        return Queue(_sum(depths), _sum(limits))

    @property
    def peak(self) -> Queue | None:
        """The deepest of a single socket since the step before, of its limit.

        Of a group always: one lazy socket hides in the sum. Else where it was deeper than now.
        """
        deepest = max((_deepest(one) for one in self.members), key=lambda queue: queue.share)
        above = self.is_group or (deepest.depth or 0) > (self.accept_queue.depth or 0)
        return deepest if above and self.accept_queue_known else None

    @property
    def syn_peak(self) -> Queue | None:
        """The same of the SYN queue, over the last seconds."""
        now = self.fullest.syn_queue
        return Queue(self.fullest.syn_peak, now.limit) if self.fullest.syn_peak > (now.depth or 0) else None

    @property
    def drops_per_s(self) -> float | None:
        """Of a group the sum."""
        known = [one.drops_per_s for one in self.members if one.drops_per_s is not None]
        return sum(known) if known else None

    @property
    def accept_history(self) -> Sequence[float]:
        """The deepest accept queue of the members, slot by slot."""
        if not self.accept_queue_known:
            return ()
        histories = [self.trend.accept_queue(one.cookie) for one in self.members]
        slots = zip(*(history for history in histories if history), strict=True)
        return [max((depth for depth in slot if depth == depth), default=math.nan) for slot in slots]

    @property
    def syn_history(self) -> Sequence[float]:
        """The SYN queue's depth, slot by slot."""
        return self.trend.syn_queue(self.fullest.cookie)

    def member_rows(self) -> list[ListenerRow]:
        """Each member as a row."""
        return [ListenerRow((one,), self.trend, self.is_lower_bound, is_member=True) for one in self.members]


def _deepest(one: Listener) -> Queue:
    now = one.accept_queue
    return now if one.accept_peak is None else Queue(max(one.accept_peak, now.depth or 0), now.limit)


def _sum(figures: Sequence[int | None]) -> int | None:
    known = [figure for figure in figures if figure is not None]
    return sum(known) if len(known) == len(figures) else None


def listener_rows(view: View, least: bool) -> list[ListenerRow]:
    """The rows of a View, groups folded, the fullest accept queue first; `least` as in Row."""
    groups: dict[Hashable, list[Listener]] = {}
    for one in view.listeners:
        groups.setdefault(one.key, []).append(one)
    return [ListenerRow(tuple(members), view.queue_trend, least) for members in groups.values()]


def unfolded_members(unfolded: Callable[[], set[Hashable]]) -> Callable[[ListenerRow], Sequence[ListenerRow]]:
    """For RecordTable: the members of the groups that are unfolded."""
    return lambda row: row.member_rows() if row.is_group and row.identity in unfolded() else ()


@dataclass(frozen=True, slots=True)
class UnseenAccepts:
    """The polls cannot have seen all that was accepted."""

    seen_per_s: float
    """Accepted by all listeners, as far as the polls saw."""
    opened_per_s: float
    """PassiveOpens of the kernel."""


_CLEARLY = 1.25
"""So many times what the polls saw, and one more a second: accept queues that fill are no reason for a remark."""
_LATELY_S = 10.0


class UnseenAcceptsTracker:
    """Keeps it for some seconds, since one poll sees more than another: signs that come and go are noise."""

    def __init__(self) -> None:
        self._found: UnseenAccepts | None = None
        self._at = 0.0

    def update(self, view: View) -> UnseenAccepts | None:
        """What this View's poll cannot have seen, else what one of the polls lately cannot."""
        now, found = view.sample.monotonic, unseen_accepts(view)
        if found is not None or not 0 <= now - self._at <= _LATELY_S:
            self._found, self._at = found, now
        return self._found


def unseen_accepts(view: View) -> UnseenAccepts | None:
    """What was opened and what the polls saw accepted; None where that is about the same, or not known."""
    by_key = {one.key: one.accepted_per_s for one in view.listeners if one.accepted_per_s is not None}
    opened = view.rates.get("PassiveOpens")
    seen = sum(by_key.values())
    if opened is None or not by_key or opened <= _CLEARLY * seen + 1:
        return None
    return UnseenAccepts(seen, opened)
