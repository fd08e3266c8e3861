"""The TUN device of a scene and a timetable, for the players behind the device."""

import heapq
import itertools
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from tests.lab.waiting import DEADLINE_S
from tests.lab.wire.packets import Segment, parse
from tests.lab.wire.tun import MTU

Action = Callable[[], None]


class Timetable:
    """Actions in the order of their times."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Action]] = []
        self._numbers = itertools.count()  # keeps the order of actions with the same time

    def add(self, time_s: float, action: Action) -> None:
        heapq.heappush(self._heap, (time_s, next(self._numbers), action))

    def after(self, seconds: float, action: Action) -> None:
        self.add(time.monotonic() + seconds, action)

    def do_what_is_due(self) -> None:
        while self._heap and self._heap[0][0] <= time.monotonic():
            _, _, action = heapq.heappop(self._heap)
            action()

    @property
    def pause_s(self) -> float | None:
        """Seconds until the next action; None if there is none."""
        return max(self._heap[0][0] - time.monotonic(), 0.0) if self._heap else None


class Device:
    """The TUN device, used by one thread, so it needs no lock."""

    changed: AbstractContextManager[object] = nullcontext()

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def send(self, segment: Segment) -> None:
        os.write(self.fd, segment.pack())

    def wait_for(self, predicate: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
        raise RuntimeError(f"the thread that would wait for {what} is the one that reads")

    def read(self) -> Segment | None:
        """Return the next segment from the kernel; None if there is none now, or if it is not TCP."""
        try:
            return parse(os.read(self.fd, MTU))
        except BlockingIOError:
            return None
