"""QueueWatch: looks at the accept queues many times between two samples, so that no short peak is missed.

A dump of the listeners alone never touches the big hash table: 0.1 ms for a usual host.
"""

from __future__ import annotations

import random
import threading
import time

from tcpwatch.kernel.netlink.decode_sockets import MessageError
from tcpwatch.kernel.netlink.sock_diag import SockDiag, SockDiagError

PERIOD_S = 0.1
SHARE = 0.003
"""Of one core: where a look costs more than this, looks become rarer. On an idle host one takes 0.1 to 0.5 ms."""


class AcceptQueueWatch:
    """A thread with a sock_diag socket of its own, in the network namespace of whoever makes it."""

    def __init__(self) -> None:
        """Begins at once. Raises SockDiagError where sock_diag cannot be used."""
        self._diag = SockDiag()
        self._peaks: dict[int, int] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        # A daemon: it holds nothing that the end of the process does not give back.
        self._thread = threading.Thread(target=self._run, name="tcpwatch-queues", daemon=True)
        self._thread.start()

    def take(self) -> dict[int, int]:
        """Listener's cookie → the deepest that its accept queue was since the last `take`; empty at first."""
        with self._lock:
            peaks, self._peaks = self._peaks, {}
        return peaks

    def close(self) -> None:
        """End the thread, and give the socket back."""
        self._stopping.set()
        self._thread.join()
        self._diag.close()

    def _run(self) -> None:
        pause_s = 0.0
        # Jittered: an application that accepts on the beat would else be seen in the same phase each time.
        while not self._stopping.wait(pause_s * random.uniform(0.7, 1.3)):
            begin = time.thread_time()
            try:
                self._look()
            except (SockDiagError, MessageError):
                return  # the samples say what is wrong with sock_diag; peaks are not told from now on
            pause_s = max(PERIOD_S, (time.thread_time() - begin) / SHARE)

    def _look(self) -> None:
        table = self._diag.listeners().table
        depths = zip(table["idiag_cookie"].tolist(), table["idiag_rqueue"].tolist(), strict=True)
        with self._lock:
            for cookie, depth in depths:
                self._peaks[cookie] = max(depth, self._peaks.get(cookie, 0))
