"""AcceptQueueWatch: read the accept queues many times between two samples, so that short peaks are seen.

A dump of the listeners alone does not walk the hash table of connections: it takes 0.1 ms on a typical host.
"""

from __future__ import annotations

import random
import threading
import time

from tcpwatch.kernel.netlink.sock_diag import SockDiag
from tcpwatch.sources.base import reason_of

PERIOD_S = 0.1
SHARE = 0.003
"""Largest share of one core: the pauses grow when a dump costs more. On an idle host a dump takes 0.1 to 0.5 ms."""


class AcceptQueueWatch:
    """A thread with its own sock_diag socket, in the network namespace of the thread that creates it."""

    def __init__(self) -> None:
        """Start the thread. Raises SockDiagError if sock_diag cannot be used."""
        self.failure = ""
        """The reason why the thread has ended; empty while it runs."""
        self._diag = SockDiag()
        self._peaks: dict[int, int] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        # A daemon: the end of the process releases everything that it holds.
        self._thread = threading.Thread(target=self._run, name="tcpwatch-queues", daemon=True)
        self._thread.start()

    def take(self) -> dict[int, int]:
        """Return cookie of the listener → largest depth of its accept queue since the last call."""
        with self._lock:
            peaks, self._peaks = self._peaks, {}
        return peaks

    def close(self) -> None:
        """End the thread and close the socket."""
        self._stopping.set()
        self._thread.join()
        self._diag.close()

    def _run(self) -> None:
        pause_s = 0.0
        # Jittered: otherwise an application that accepts periodically would always be seen in the same phase.
        while not self._stopping.wait(pause_s * random.uniform(0.7, 1.3)):
            begin = time.thread_time()
            try:
                self._read_depths()
            except Exception as error:  # whatever it is: a depth must not be taken for a peak
                self.failure = reason_of(error)  # the samples report it; there are no more peaks
                with self._lock:
                    self._peaks = {}
                return
            pause_s = max(PERIOD_S, (time.thread_time() - begin) / SHARE)

    def _read_depths(self) -> None:
        table = self._diag.listeners().table
        depths = zip(table["idiag_cookie"].tolist(), table["idiag_rqueue"].tolist(), strict=True)
        with self._lock:
            for cookie, depth in depths:
                self._peaks[cookie] = max(depth, self._peaks.get(cookie, 0))
