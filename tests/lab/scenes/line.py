"""What those behind the TUN device of a scene share: the line, and a timetable."""

import heapq
import itertools
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from tests.lab.waiting import DEADLINE_S
from tests.lab.wire.packets import Segment, parse
from tests.lab.wire.tun import MTU

Deed = Callable[[], None]


class Timetable:
    """Deeds in the order of their times."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Deed]] = []
        self._numbers = itertools.count()  # two of the same time: the first comes first

    def add(self, time_s: float, deed: Deed) -> None:
        heapq.heappush(self._heap, (time_s, next(self._numbers), deed))

    def after(self, seconds: float, deed: Deed) -> None:
        self.add(time.monotonic() + seconds, deed)

    def do_what_is_due(self) -> None:
        while self._heap and self._heap[0][0] <= time.monotonic():
            _, _, deed = heapq.heappop(self._heap)
            deed()

    @property
    def pause_s(self) -> float | None:
        """Until the next deed; None if there is none."""
        return max(self._heap[0][0] - time.monotonic(), 0.0) if self._heap else None


class Device:
    """The line of all who are behind it; there is one thread, so it needs no lock."""

    changed: AbstractContextManager[object] = nullcontext()

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def send(self, segment: Segment) -> None:
        os.write(self.fd, segment.pack())

    def wait_for(self, predicate: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
        raise RuntimeError(f"the thread that would wait for {what} is the one that reads")

    def read(self) -> Segment | None:
        """The next segment of the kernel; None if there is none now, or no TCP."""
        try:
            return parse(os.read(self.fd, MTU))
        except BlockingIOError:
            return None
