"""Views for a front end that draws once: the only loop over time outside the monitor's screens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tcpwatch.live_source import open_source
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.settings import Settings

PATIENCE_S = 10.0
"""How long owners are searched for in a single look; what is not found by then is told as "not looked up yet"."""


@contextmanager
def monitoring(settings: Settings, watch_queues: bool = False) -> Iterator[Monitor]:
    """A monitor of this host, closed in the end; `watch_queues` as `open_source` has it. Raises SourceError."""
    monitor = Monitor(open_source(settings.source, PATIENCE_S, watch_queues), settings.interval_s, settings.budget)
    try:
        yield monitor
    finally:
        monitor.close()


def watch(monitor: Monitor, seconds: float) -> tuple[View, View]:
    """The first and the last View of so many seconds, polled as often as the interval and the budget say."""
    first = last = monitor.step()
    deadline = time.monotonic() + seconds
    while (left_s := deadline - time.monotonic()) > 0:
        pause_s = last.pace.interval_s - last.pace.duration_s
        time.sleep(max(0.0, min(pause_s, left_s)))
        last = monitor.step()
    return first, last
