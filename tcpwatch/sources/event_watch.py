"""EventWatch: hears of every destroyed socket, and reads the trace where it is allowed, also between two samples.

The kernel's buffers are not large: an ordinary user's holds some 300 destroyed sockets.
"""

from __future__ import annotations

import atexit
import os
import select
import threading
import time

from tcpwatch.kernel.netlink.decode_sockets import MessageError
from tcpwatch.kernel.netlink.destroy_event_reader import TRUESIZE, DestroyEventReader
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.kernel.netlink.sock_diag import SockDiagError
from tcpwatch.kernel.trace.trace_events import TraceEvents
from tcpwatch.kernel.trace.tracefs import TraceError
from tcpwatch.kernel.trace.tracepoint_reader import TracepointReader

SHARE = 0.25
"""Of a buffer: no more of it shall fill between two readings."""
EXPECTED_RATE = 20_000
"""Destroyed sockets a second that may come out of nothing, at any time."""
PAUSE_LEAST_S, PAUSE_MOST_S = 0.002, 0.05
"""Between two readings while sockets are being destroyed, so that many are read at once."""
TRACE_LEAST_S, TRACE_MOST_S = 0.02, 0.5
"""Between two readings of the trace."""


class EventWatch:
    """A thread that listens in the network namespace of whoever makes it; the trace is of all namespaces."""

    def __init__(self, trace: bool) -> None:
        """Begins at once; with `trace` it traces too, if it may. What cannot be had is None when it is taken."""
        self.why_no_trace = "switched off"
        """Why there is no trace, in words; empty while there is one."""
        self._lock = threading.Lock()
        self._destroy = _destroy_events()
        self._listening = self._destroy is not None
        """One that failed stays open until the end: the thread may be waiting at its descriptor."""
        self._trace: TracepointReader | None = None
        if trace:
            try:
                self._trace, self.why_no_trace = TracepointReader(), ""
            except TraceError as error:
                self.why_no_trace = _words(error)
        self._stopping = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # A daemon, so that it does not hold up the end of the process; what it has in the kernel is then given back.
        self._thread = threading.Thread(target=self._run, name="tcpwatch-events", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def take_destroyed(self) -> DestroyedSockets | None:
        """What was destroyed since the last time and before this call; None where that cannot be told."""
        with self._lock:
            self._read_destroyed()
            try:
                return self._destroy.take() if self._destroy and self._listening else None
            except MessageError:
                self._listening = False
                return None

    def take_trace_events(self) -> TraceEvents | None:
        """What was traced since the last time and before this call; None where there is no trace."""
        with self._lock:
            try:
                return self._trace.take() if self._trace else None
            except TraceError as error:
                self._end_trace(_words(error))
                return None

    def close(self) -> None:
        """End the thread, and leave nothing behind in the kernel; closing twice is harmless."""
        if self._stopping:
            return
        atexit.unregister(self.close)
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)
        with self._lock:
            self._listening = False
            if self._destroy:
                self._destroy.close()
            if self._trace:
                self._end_trace("closed")

    def _run(self) -> None:
        poll, nap = select.poll(), select.poll()
        for waiting in (poll, nap):
            waiting.register(self._wake, select.POLLIN)
        registered, at_most = self._destroy, 0.0
        if registered:
            poll.register(registered, select.POLLIN)
            at_most = SHARE * registered.capacity / TRUESIZE
        trace_s, traced, read = TRACE_MOST_S, time.monotonic(), time.monotonic()
        while self._listening or self._trace:
            poll.poll(1000 * max(0.0, traced + trace_s - time.monotonic()) if self._trace else None)
            with self._lock:
                if self._stopping:
                    return
                count = self._read_destroyed()
                if registered and not self._listening:
                    poll.unregister(registered)
                    registered = None
                now = time.monotonic()
                if self._trace and now >= traced + trace_s:
                    trace_s, traced = self._read_trace(trace_s), now
            rate = count / max(now - read, 1e-6)
            pause_s = min(PAUSE_MOST_S, max(PAUSE_LEAST_S, at_most / max(EXPECTED_RATE, rate)))
            if rate * pause_s > 1:  # else waiting for the next one costs less
                nap.poll(1000 * pause_s)
            read = now

    def _read_destroyed(self) -> int:
        """How many they were; where that fails once, nothing more is told."""
        try:
            return self._destroy.read() if self._destroy and self._listening else 0
        except (SockDiagError, MessageError):
            self._listening = False
            return 0

    def _read_trace(self, period_s: float) -> float:
        """In how many seconds it is to be read again; a trace that fails ends."""
        try:
            full = self._trace.read() if self._trace else 0.0
        except TraceError as error:
            self._end_trace(_words(error))
            return TRACE_MOST_S
        return min(TRACE_MOST_S, max(TRACE_LEAST_S, period_s * SHARE / max(full, 1e-3)))

    def _end_trace(self, why: str) -> None:
        if self._trace:
            self._trace.close()
        self._trace, self.why_no_trace = None, why


def _destroy_events() -> DestroyEventReader | None:
    try:
        return DestroyEventReader()
    except SockDiagError:  # seccomp, an old kernel: the samples say what is wrong with sock_diag
        return None


def _words(error: TraceError) -> str:
    return error.strerror or str(error)
