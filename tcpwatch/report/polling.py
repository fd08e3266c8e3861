"""Views for a front end that draws once: the only loop over time outside the monitor's screens."""

from __future__ import annotations

import time
from collections import deque
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
    monitor = Monitor(
        open_source(settings.source, PATIENCE_S, watch_queues),
        settings.interval_s,
        settings.budget,
        settings.thresholds,
    )
    try:
        yield monitor
    finally:
        monitor.close()


def views(monitor: Monitor, seconds: float) -> Iterator[View]:
    """The Views of so many seconds, one at least, polled as often as the interval and the budget say."""
    deadline = time.monotonic() + seconds
    yield (last := monitor.step())
    while (left_s := deadline - time.monotonic()) > 0:
        pause_s = last.pace.interval_s - last.pace.duration_s
        time.sleep(max(0.0, min(pause_s, left_s)))
        yield (last := monitor.step())


def watch(monitor: Monitor, seconds: float) -> tuple[View, View]:
    """The first and the last of these Views; the others are not kept, since each may be large."""
    polled = views(monitor, seconds)
    first = next(polled)
    rest = deque(polled, maxlen=1)
    return first, rest[0] if rest else first
