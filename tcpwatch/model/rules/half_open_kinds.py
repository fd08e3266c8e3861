"""Kinds of verdicts about half-open connections, and what a verdict says."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from tcpwatch.model.finding import Severity
from tcpwatch.model.listeners.listener_keys import ListenerKey


class VerdictKind(enum.Enum):
    """What is going on, the most urgent first; the value says it to people."""

    FLOOD = "flood"
    SLOW_APPLICATION = "slow application"
    """Behind a full accept queue honest clients stay half-open."""
    BURST = "burst"
    """A full SYN queue whose members answer: it is too short."""
    LISTENER_CLOSED = "listener gone"
    SLOW_CLIENTS = "slow clients"
    """Most had their SYN+ACK repeated, and the queue has room."""
    DEFERRED = "held back"
    """Most would have had their SYN+ACK repeated, and had not: TCP_DEFER_ACCEPT."""
    UNKNOWN = "unknown"
    """The source does not tell what a verdict needs."""
    QUIET = "quiet"


@dataclass(frozen=True, slots=True)
class HalfOpenVerdict:
    """One verdict."""

    kind: VerdictKind
    severity: Severity | None
    """As of the findings; None where nothing is wrong."""
    subject: ListenerKey | None
    """The listening address and port, or None for the whole host."""
    headline: str
    """The numbers, in words."""
    why: str
    """A sentence or two."""
