"""ListenerDropAnalysis: segments that listeners drop for another reason than a full queue.

The drops of a listener (sk_drops) have many reasons, and the counters of the reasons are those of the whole host. A
counter names the reason where it rises by at least as much as all listeners together drop. Without such a counter, what
the kernel drops in the normal course of a handshake is subtracted: SYNs that are repeated, resets, last ACKs without
data (TCP_DEFER_ACCEPT) and those for a full queue (tcp_v4_rcv in net/ipv4/tcp_ipv4.c, tcp_check_req in
net/ipv4/tcp_minisocks.c; tried on Linux 6.18).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.poll import Poll

REASONS = (
    "TCPMD5NotFound", "TCPMD5Unexpected", "TCPMD5Failure", "TCPAORequired", "TCPAOKeyNotFound", "TCPAOBad",
    "TSEcrRejected", "PAWSEstab", "TCPMinTTLDrop",
)  # fmt: skip
"""Counters that name a reason. Segments with a wrong checksum are no drops of a listener, and it has no backlog."""
_IN_HANDSHAKES = {
    "ListenDrops": 2, "TCPDeferAcceptDrop": 1, "TCPSynRetrans": 1, "TCPACKSkippedSynRecv": 1, "EmbryonicRsts": 1,
}  # fmt: skip
"""Counter → drops of a listener that it may stand for: of a last ACK dropped for a full queue the kernel counts two."""


@dataclass(frozen=True, slots=True)
class ListenerDrops:
    """What one listener has dropped lately for one reason."""

    cookie: int
    """Of the listener."""
    counter: str
    """One of REASONS; empty if no counter names the reason."""
    dropped: int
    """Segments dropped within the window; a minimum without a counter."""
    steps: int
    """Steps in which it dropped some."""
    rose: int
    """How much the counter rose in these steps."""


@dataclass(frozen=True, slots=True)
class _Step:
    monotonic: float
    cookie: int
    counter: str
    dropped: int
    rose: int
    """Of the counter; without a counter, the drops that are usual in handshakes."""


class ListenerDropAnalysis:
    """Remembers the drops of the last seconds."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._steps: deque[_Step] = deque()

    def step(self, poll: Poll, busy: Iterable[Listener], nearly_full_share: float) -> tuple[ListenerDrops, ...]:
        """Return the drops of the last `window_s` seconds.

        `busy` are the listeners with Listener.is_busy; a SYN queue is nearly full from `nearly_full_share` on.
        """
        now = poll.sample.monotonic
        while self._steps and self._steps[0].monotonic <= now - self._window_s:
            self._steps.popleft()
        rising = {
            listener.cookie
            for listener in busy
            if listener.drops_per_s and not _is_queue_full(listener, nearly_full_share)
        }
        self._steps += [_Step(now, *found) for found in _drops(poll, rising)]
        groups: dict[tuple[int, str], list[_Step]] = defaultdict(list)
        for step in self._steps:
            if step.cookie in poll.sample.drops:
                groups[step.cookie, step.counter].append(step)
        return tuple(filter(None, (_summed(*key, steps) for key, steps in groups.items())))


def _summed(cookie: int, counter: str, steps: list[_Step]) -> ListenerDrops | None:
    """Return the sum of the steps; None if what is usual in handshakes explains at least half of the drops.

    The counters are read some milliseconds after the drops, so that some drops of a step may be counted in the next.
    """
    dropped, rose = sum(step.dropped for step in steps), sum(step.rose for step in steps)
    if counter:
        return ListenerDrops(cookie, counter, dropped, len(steps), rose)
    unexplained = dropped - rose
    steps_with_others = sum(step.dropped > step.rose for step in steps)
    return ListenerDrops(cookie, "", unexplained, steps_with_others, 0) if 2 * unexplained > dropped else None


def _is_queue_full(listener: Listener, nearly_full_share: float) -> bool:
    limit = listener.syn_queue.limit
    syn_queue_full = limit is not None and listener.syn_peak >= nearly_full_share * max(limit, 1)
    return syn_queue_full or listener.accept_full or listener.accept_queue.is_over_limit


def _drops(poll: Poll, among: set[int]) -> list[tuple[int, str, int, int]]:
    """Return the last four fields of a _Step for each listener that dropped something since the previous sample."""
    if poll.previous is None:
        return []
    before, now = poll.previous.drops, poll.sample.drops
    rise = {
        cookie: (now[cookie] - before[cookie]) & 0xFFFFFFFF  # sk_drops is a u32 that may wrap
        for cookie in among & now.keys() & before.keys()
        if now[cookie] != before[cookie]
    }
    if not rise:
        return []
    counted = {name: _rise(poll, name) for name in (*REASONS, *_IN_HANDSHAKES)}
    counter = max(REASONS, key=counted.__getitem__)
    if counted[counter] >= sum(rise.values()):
        return [(cookie, counter, dropped, counted[counter]) for cookie, dropped in rise.items()]
    usual = sum(weight * counted[name] for name, weight in _IN_HANDSHAKES.items()) + sum(
        counted[name] for name in REASONS
    )
    return [(cookie, "", dropped, usual) for cookie, dropped in rise.items()]


def _rise(poll: Poll, name: str) -> int:
    before: Mapping[str, int] = poll.previous.counters if poll.previous else {}
    return max(0, poll.sample.counters.get(name, 0) - before.get(name, 0))
