"""Bounds of what is kept of events, so that the memory of the program does not depend on what a network namespace does.

The program promises at most 150 MiB, and in addition the table of sockets and the setting `memory`, which is for
transitions and records (model/lifecycle/tracker.py). Python, numpy and Textual take 65 MiB of the 150. The rest is for
events: those that wait in a backlog, those of the step that runs meanwhile, and the working memory of that step.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EventBudget:
    """Numbers of events. What is more is dropped, the oldest first, and counted as lost."""

    destroy: int = 24_000
    """Destroy events that wait for a step: 8 MiB."""
    trace: int = 140_000
    """Trace events that wait for a step: 9 MiB."""
    unmatched: int = 65_536
    """Trace events that are kept after their step, as a later one may show which socket they belong to: 5 MiB."""
    known: int = 65_536
    """Open sockets of the trace whose facts are kept from step to step, beside one for each polled socket: 8 MiB."""
    slice: int = 8_192
    """Events, of either kind, that one step works on together: its working memory is about 1 KiB for each."""


BUDGET = EventBudget()
