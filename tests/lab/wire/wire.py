"""The scripted side of a TUN device: a thread that reads, a lock, and a log of every segment."""

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from tests.lab.waiting import DEADLINE_S
from tests.lab.wire.packets import Segment, parse
from tests.lab.wire.tun import MTU

_LOG_LENGTH = 100_000  # segments; the oldest go first


@dataclass(frozen=True, slots=True)
class Logged:
    """A segment on the wire, and its time."""

    time_ns: int  # time.monotonic_ns()
    from_kernel: bool
    segment: Segment


class Line(Protocol):
    """The part of a device that a Connection needs."""

    @property
    def changed(self) -> AbstractContextManager[object]:
        """The lock that guards the connection."""

    def send(self, segment: Segment) -> None:
        """Let the kernel receive the segment."""

    def wait_for(self, predicate: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
        """Wait until segments of the kernel have made the predicate true, or raise TimeoutError."""


class Wire:
    """Hands every segment the kernel sends to `receive`, on the reader thread, under the lock.

    Everything the scripted side knows is guarded by `changed`, which is notified after each
    segment. What `receive` raises ends the reader, and is raised anew to whoever waits or closes.
    """

    def __init__(self, fd: int, receive: Callable[[Segment], None]) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._fd = fd
        self._receive = receive
        self._log: deque[Logged] = deque(maxlen=_LOG_LENGTH)
        self._failure: Exception | None = None
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._reader = threading.Thread(target=self._run, name="lab-wire", daemon=True)
        self._reader.start()

    def send(self, segment: Segment) -> None:
        """Let the kernel receive the segment, which has been processed when this returns."""
        with self.changed:
            self._log.append(Logged(time.monotonic_ns(), False, segment))
            os.write(self._fd, segment.pack())

    def send_packet(self, packet: bytes) -> None:
        """Let the kernel receive a packet that is not a TCP segment; it is not logged."""
        with self.changed:
            os.write(self._fd, packet)

    def log(self) -> list[Logged]:
        """Return a copy of the log, oldest first."""
        with self.changed:
            return list(self._log)

    def wait_for(self, predicate: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
        """Wait until the predicate, checked after each segment, is true, or raise TimeoutError."""
        with self.changed:
            done = self.changed.wait_for(lambda: self._failure or predicate(), deadline_s)
            self._raise_failure()
        if not done:
            raise TimeoutError(f"waited {deadline_s} s in vain for {what}")

    def close(self) -> None:
        os.eventfd_write(self._stop, 1)
        self._reader.join()
        os.close(self._stop)
        os.close(self._fd)
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure:
            raise RuntimeError("the reader thread of the lab failed") from self._failure

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        try:
            while self._stop not in (ready for ready, _ in poll.poll()):
                self._read_all()
        except Exception as error:  # not lost: see _raise_failure
            with self.changed:
                self._failure = error
                self.changed.notify_all()

    def _read_all(self) -> None:
        while True:
            try:
                packet = os.read(self._fd, MTU)
            except BlockingIOError:
                return  # the queue is empty
            if segment := parse(packet):
                with self.changed:
                    self._log.append(Logged(time.monotonic_ns(), True, segment))
                    self._receive(segment)
                    self.changed.notify_all()
