"""HalfOpenVerdict: the explanation of half-open connections, and its kinds."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from tcpwatch.model.finding import Severity
from tcpwatch.model.listeners.listener_keys import ListenerKey


class VerdictKind(enum.Enum):
    """The most likely explanation, the most urgent first; the value is its name for people."""

    FLOOD = "flood"
    SLOW_APPLICATION = "slow application"
    """Behind a full accept queue honest clients stay half-open."""
    BURST = "burst"
    """The SYN queue is full and the clients answer: the queue is too short."""
    LISTENER_CLOSED = "listener closed"
    SLOW_CLIENTS = "slow clients"
    """Most SYN+ACKs were retransmitted, and the queue has room."""
    DEFERRED = "deferred accept"
    """Most SYN+ACKs were due to be retransmitted and were not: TCP_DEFER_ACCEPT."""
    UNKNOWN = "unknown"
    """The source lacks the data for a verdict."""
    QUIET = "quiet"


@dataclass(frozen=True, slots=True)
class HalfOpenVerdict:
    """The explanation of the half-open connections of one listener or of the whole host."""

    kind: VerdictKind
    severity: Severity | None
    """None if nothing is wrong."""
    subject: ListenerKey | None
    """The listening address and port, or None for the whole host."""
    headline: str
    """One line with the figures."""
    why: str
    """One or two sentences."""
