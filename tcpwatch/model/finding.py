"""Finding: one problem with its figures, the reason, and what to check."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.sockets.endpoint import Endpoint


class Severity(enum.IntEnum):
    """Severity of a finding, in ascending order."""

    INFO = 1
    WARNING = 2
    CRITICAL = 3


class ListenerSubject(NamedTuple):
    """A listening address and port, or one socket of the SO_REUSEPORT group there."""

    key: ListenerKey
    inode: int = 0
    """The inode of that one socket, else 0."""

    def __str__(self) -> str:
        """`*:443`, `*:443 inode 4711`."""
        return f"{self.key.endpoint} inode {self.inode}" if self.inode else self.key.endpoint


class FindingSubject(NamedTuple):
    """The listener, destination, program or host that a finding is about."""

    kind: Literal["listener", "destination", "source", "process", "program", "user", "host", "tcpwatch"]
    value: str | Endpoint | ListenerSubject

    @property
    def name(self) -> str:
        """The value as text: `*:443`, `app[12]`, the host's name."""
        return str(self.value)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.name else self.kind


class Figure(NamedTuple):
    """A value with its unit; None where unknown."""

    value: float | str | None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem; `rule` and the names in `evidence` are a public contract."""

    severity: Severity
    subject: FindingSubject
    headline: str
    """One line with the figures, without rule, severity and subject."""
    evidence: Mapping[str, Figure]
    why: str
    """One or two sentences."""
    advice: tuple[str, ...]
    """Checks to make, and settings to change."""
    filter: str = ""
    """Selects the affected sockets; empty if there are none."""
    rule: str = ""
    """The rule's name: `syn-flood`, ...; the decorator of the rule sets it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """The result of a rule in one step; it becomes a finding if the condition stays true."""

    finding: Finding
    immediate_severity: Severity | None = field(default=None)
    """Up to this severity the finding is shown without waiting for a second step, as a kernel counter proves it."""
    stays: bool = True
    """The finding stays for some steps after its condition; False if its words would then contradict the figures."""
