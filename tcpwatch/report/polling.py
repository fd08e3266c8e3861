"""Views for the headless front ends: opening a monitor, and polling it for some time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tcpwatch import signals
from tcpwatch.config.settings import Settings
from tcpwatch.model.lifecycle.trace.stats import lost_events
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.sample import Completeness
from tcpwatch.sources.live import OWNER_SEARCH_MIN_S, open_source

OWNER_SEARCH_MAX_S, OWNER_SEARCH_POLLING_S = 1.2, 0.6
"""Time limit of the search for owners in a single poll, and in several together beyond what each may take; after it, an
owner is "not looked up yet"."""


@contextmanager
def open_monitor(
    settings: Settings, watch_queues: bool = False, events: bool = False, continuous: bool = False
) -> Iterator[Monitor]:
    """Open a monitor of this host, and close it at the end; `watch_queues` and `events` are those of `open_source`.

    With `events`, the trace is used too if the settings allow it. With `continuous`, the search for owners is spread
    over several polls. Raises SourceError.
    """
    search_s = OWNER_SEARCH_POLLING_S if events else OWNER_SEARCH_MAX_S
    with signals.held():  # a trace instance is made
        source = open_source(
            settings.source,
            OWNER_SEARCH_MIN_S if continuous else search_s,
            watch_queues,
            ask_infos=events and not continuous,
            events=events,
            trace=events and settings.trace,
            keep_privileges=settings.keep_privileges,
        )
    monitor = Monitor(source, settings.interval_s, settings.budget, settings.thresholds, settings.memory_mib)
    try:
        yield monitor
    finally:
        with signals.held():
            monitor.close()


CHECK_POLLS = 3
"""Polls that `check` needs: rates need two, and a condition must be true in two steps."""


def views(monitor: Monitor, seconds: float, least: int = 1) -> Iterator[View]:
    """Yield the Views of `seconds` (math.inf: no end), at least so many, at the pace of the interval and the budget."""
    deadline = time.monotonic() + seconds
    for missing in itertools.count(least - 1, -1):
        yield (last := monitor.step())
        left_s = deadline - time.monotonic()
        if left_s <= 0 and missing <= 0:
            return
        pause_s = min(last.pace.interval_s - last.pace.duration_s, left_s / max(1, missing))
        time.sleep(max(0.0, pause_s))


def first_and_last_view(monitor: Monitor, seconds: float) -> tuple[View, View]:
    """Return the first and the last of these Views; the others are not kept, as each may be large.

    The last one lacks what any of them lacks.
    """
    first = last = None
    missing: dict[str, None] = {}
    for last in views(monitor, seconds):
        first = first or last
        missing |= dict.fromkeys(last.sample.completeness.missing)
    assert first and last
    lost = lost_events(last.trace.events_lost, last.trace.destroy_events_lost)
    sample = replace(last.sample, completeness=Completeness(reasons=(*missing, *lost)))
    return first, replace(last, sample=sample)
