"""Views for a front end that draws once: the only loop over time outside the monitor's screens."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from tcpwatch.config.settings import Settings
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import OWNER_SEARCH_MIN_S, open_source

OWNER_SEARCH_MAX_S = 10.0
"""How long owners are searched for in a single look; what is not found by then is told as "not looked up yet"."""


@contextmanager
def open_monitor(
    settings: Settings, watch_queues: bool = False, events: bool = False, lasting: bool = False
) -> Iterator[Monitor]:
    """A monitor of this host, closed in the end; `watch_queues` and `events` as `open_source` has them.

    With `events` the trace is used too, where the settings allow it. One that is `lasting` finds owners bit by bit, so
    that no step takes long. Raises SourceError.
    """
    with _terminable():
        source = open_source(
            settings.source,
            OWNER_SEARCH_MIN_S if lasting else OWNER_SEARCH_MAX_S,
            watch_queues,
            events=events,
            trace=events and settings.trace,
        )
        monitor = Monitor(source, settings.interval_s, settings.budget, settings.thresholds, settings.memory_mib)
        try:
            yield monitor
        finally:
            monitor.close()


@contextmanager
def _terminable() -> Iterator[None]:
    """A signal that ends the process leaves nothing behind in the kernel: the trace costs all that it tells of."""

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    for number in numbers:  # those that whoever started it does not want ignored, as nohup does
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def views(monitor: Monitor, seconds: float) -> Iterator[View]:
    """The Views of so many seconds (math.inf: without end), one at least, as often as the interval and budget say."""
    deadline = time.monotonic() + seconds
    yield (last := monitor.step())
    while (left_s := deadline - time.monotonic()) > 0:
        pause_s = last.pace.interval_s - last.pace.duration_s
        time.sleep(max(0.0, min(pause_s, left_s)))
        yield (last := monitor.step())


def first_and_last_view(monitor: Monitor, seconds: float) -> tuple[View, View]:
    """The first and the last of these Views; the others are not kept, since each may be large."""
    polled = views(monitor, seconds)
    first = next(polled)
    rest = deque(polled, maxlen=1)
    return first, rest[0] if rest else first
