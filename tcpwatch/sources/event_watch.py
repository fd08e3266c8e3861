"""EventWatch: read destroy events and, if permitted, trace events between two samples.

The kernel's buffers are small: that of an ordinary user holds about 300 destroy events.
"""

from __future__ import annotations

import atexit
import os
import select
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import ascending
from tcpwatch.config.memory import BUDGET
from tcpwatch.kernel.netlink.destroy_event_reader import TRUESIZE, DestroyEventReader
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.kernel.netlink.sock_diag import SockDiagError
from tcpwatch.kernel.trace.trace_events import TraceEvents
from tcpwatch.kernel.trace.tracefs import TraceError
from tcpwatch.kernel.trace.tracepoint_reader import TracepointReader
from tcpwatch.sources.base import reason_of

SHARE = 0.25
"""Share of a buffer that may fill between two reads."""
EXPECTED_RATE = 20_000
"""Destroy events per second that have to be expected at any time."""
PAUSE_LEAST_S, PAUSE_MOST_S = 0.002, 0.05
"""Pause between two reads while sockets are destroyed, so that one read gets many events."""
TRACE_LEAST_S, TRACE_MOST_S = 0.02, 0.5
"""Pause between two reads of the trace."""
REOPEN_S = 1.0
"""Shortest time between two attempts to open the socket of destroy events again."""


class EventWatch:
    """A thread that reads destroy events of its creator's network namespace, and the trace of all namespaces."""

    def __init__(self, trace: bool, opened: Callable[[], object] = lambda: None) -> None:
        """Start the thread, after a call of `opened`; with `trace` also start tracing, if permitted."""
        self.why_no_trace = "switched off"
        """The reason why there is no trace; empty while there is one."""
        self.why_no_destroyed = ""
        """The reason why there are no destroy events; empty while there are."""
        self._why_not_taken = ""
        """The same at the last take_destroyed()."""
        self._lock = threading.Lock()
        self._taken = np.empty(0, np.uint64)
        """Cookies of the destroy events that were taken since the last take_trace_events()."""
        self._destroy: DestroyEventReader | None = None
        try:
            self._destroy = DestroyEventReader()
        except SockDiagError as error:  # seccomp or an old kernel
            self.why_no_destroyed = reason_of(error)
        self._listening = self._destroy is not None
        """False after a failure, until the thread (in its network namespace) has opened the socket again."""
        self._trace: TracepointReader | None = None
        self._trace_failed = False
        if trace:
            try:
                self._trace, self.why_no_trace = TracepointReader(destroyed=self._own_destroyed), ""
            except TraceError as error:
                self.why_no_trace = str(error.strerror)
        opened()
        self._stopping = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # A daemon, so that it does not delay the end of the process, which releases its kernel resources.
        self._thread = threading.Thread(target=self._run, name="tcpwatch-events", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def take_destroyed(self) -> DestroyedSockets | None:
        """Return the sockets destroyed between the last call and this one; None if the events cannot be read."""
        with self._lock:
            self._read_destroyed()
            try:
                taken = self._destroy.take() if self._destroy and self._listening else None
            except SockDiagError as error:
                self._fail_destroyed(error)
                taken = None
            self._why_not_taken = self.why_no_destroyed
            if taken:
                self._taken = np.append(self._taken, taken.table["idiag_cookie"])[-BUDGET.destroy :]
            return taken

    @property
    def failures(self) -> list[str]:
        """Return what has failed, in words; of destroy events as of the last take_destroyed()."""
        destroyed = f"no events of closed sockets ({self._why_not_taken})"
        trace = f"the trace has ended ({self.why_no_trace})"
        return [destroyed] * bool(self._why_not_taken) + [trace] * self._trace_failed

    def take_trace_events(self) -> TraceEvents | None:
        """Return the trace events between the last call and this one; None if there is no trace."""
        with self._lock:
            try:
                return self._trace.take() if self._trace else None
            except TraceError as error:
                self._end_trace(str(error.strerror))
                return None
            finally:
                self._taken = self._taken[:0]

    def close(self) -> None:
        """End the thread and remove the trace instance; calling it twice, or after an interrupted call, is harmless."""
        self._stopping = True
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)
        self._thread.join()
        with self._lock:
            self._listening = False
            if self._destroy:
                self._destroy.close()
            if self._trace:
                self._end_trace("closed")
            if self._wake >= 0:
                os.close(self._wake)
            self._wake = -1
        atexit.unregister(self.close)

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:  # whatever it is: nothing is read any more, and the samples report it
            with self._lock:
                self._fail_destroyed(error)
                self._end_trace(reason_of(error))

    def _watch(self) -> None:
        nap = select.poll()
        nap.register(self._wake, select.POLLIN)
        poll, listening, highest_rate, reopen_at = nap, None, 0.0, 0.0
        trace_s, traced_at, read_at = TRACE_MOST_S, time.monotonic(), time.monotonic()
        while self._destroy or self._trace:
            if self._destroy and self._listening is not listening:
                listening, poll = self._listening, self._poll_object()
                highest_rate = SHARE * self._destroy.capacity / TRUESIZE
            due = [traced_at + trace_s] * bool(self._trace) + [reopen_at] * bool(self._destroy and not listening)
            ready = poll.poll(1000 * max(0.0, min(due) - time.monotonic()) if due else None)
            with self._lock:
                if self._stopping:
                    return
                if any(file == self._wake for file, _ in ready):
                    os.eventfd_read(self._wake)
                count = self._read_destroyed()
                now = time.monotonic()
                if self._destroy and not self._listening and now >= reopen_at:
                    listening, reopen_at = None, now + REOPEN_S
                    self._reopen_destroyed(self._destroy)
                if self._trace and now >= traced_at + trace_s:
                    trace_s, traced_at = self._read_trace(trace_s), now
            rate = count / max(now - read_at, 1e-6)
            pause_s = min(PAUSE_MOST_S, max(PAUSE_LEAST_S, highest_rate / max(EXPECTED_RATE, rate)))
            if rate * pause_s > 1:  # otherwise waiting for the next event costs less
                nap.poll(1000 * pause_s)
            read_at = now

    def _poll_object(self) -> select.poll:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if self._destroy and self._listening:
            poll.register(self._destroy, select.POLLIN)
        return poll

    def _read_destroyed(self) -> int:
        """Return how many events were read."""
        try:
            return self._destroy.read() if self._destroy and self._listening else 0
        except SockDiagError as error:
            self._fail_destroyed(error)
            return 0

    def _fail_destroyed(self, error: Exception) -> None:
        """Have the thread open the socket again."""
        self._listening, self.why_no_destroyed = False, reason_of(error)
        os.eventfd_write(self._wake, 1)

    def _reopen_destroyed(self, reader: DestroyEventReader) -> None:
        try:
            reader.reopen()
        except SockDiagError as error:
            self.why_no_destroyed = reason_of(error)
        else:
            self._listening, self.why_no_destroyed = True, ""

    def _own_destroyed(self) -> tuple[NDArray[np.uint64], float] | None:
        """Return the cookies of destroy events since the last take_trace_events(), and until when they are complete."""
        now = time.monotonic()
        self._read_destroyed()
        if not self._destroy or not self._listening:
            return None
        return ascending(self._taken, self._destroy.waiting()), now

    def _read_trace(self, period_s: float) -> float:
        """Return the seconds until the next read; a failure ends the trace."""
        try:
            full = self._trace.read() if self._trace else 0.0
        except TraceError as error:
            self._end_trace(str(error.strerror))
            return TRACE_MOST_S
        return min(TRACE_MOST_S, max(TRACE_LEAST_S, period_s * SHARE / max(full, 1e-3)))

    def _end_trace(self, why: str) -> None:
        if self._trace:
            self._trace.close()
        self._trace, self.why_no_trace, self._trace_failed = None, why, True
