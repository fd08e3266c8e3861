"""What the kernel says of a scene, by the names that its conditions use.

    accept_queue PORT        connections that wait for accept(), in the fullest queue of the port
    full_accept_queues PORT  listeners of the port whose accept queue is above its limit
    syn_queue PORT           half-open connections
    repeated PORT            those of them whose SYN+ACK has been repeated
    given_up PORT            connections that wait for accept() though the client has closed
    NAME                     a counter's increase since the scene began
    NAME / NAME              one of them by the other
    NAME per_s               a counter's pace since the scene began

Counters are the kernel's: `SyncookiesSent` is what nstat writes as TcpExtSyncookiesSent.
"""

import time
from collections.abc import Callable

from tests.lab.diag import dump
from tests.lab.namespace import Namespace
from tests.lab.observe import Row
from tests.lab.packets import Family


class Figures:
    """The lab's own eyes: sock_diag, asked for few states, and /proc/net. For the main thread."""

    def __init__(self, namespace: Namespace, family: Family) -> None:
        self._namespace = namespace
        self._family = family
        self._start = namespace.counters()
        self._start_time = time.monotonic()

    def __getitem__(self, figure: str) -> float:
        match figure.split():
            case [word, port] if port.isdecimal():
                return self._queue(word, int(port))
            case [name, "per_s"]:
                return self._counter(name) / (time.monotonic() - self._start_time)
            case [name, "/", other]:
                return self._counter(name) / max(self._counter(other), 1)
            case [name]:
                return self._counter(name)
        raise LookupError(figure)

    def _counter(self, name: str) -> int:
        return self._namespace.counters()[name] - self._start[name]

    def _queue(self, word: str, port: int) -> int:
        state, measure = _QUEUES[word]
        return measure([row for row in dump(self._family, state) if row.local.port == port])


def _deepest(listeners: list[Row]) -> int:
    return max(row.receive_queue for row in listeners)


def _full(listeners: list[Row]) -> int:
    return sum(row.receive_queue > row.transmit_queue for row in listeners)


def _repeated(half_open: list[Row]) -> int:
    return sum(row.retransmits > 0 for row in half_open)


def _unowned(closed: list[Row]) -> int:
    return sum(row.inode == 0 for row in closed)


_QUEUES: dict[str, tuple[str, Callable[[list[Row]], int]]] = {
    "accept_queue": ("LISTEN", _deepest),
    "full_accept_queues": ("LISTEN", _full),
    "syn_queue": ("SYN_RCVD", len),
    "repeated": ("SYN_RCVD", _repeated),
    "given_up": ("CLOSE_WAIT", _unowned),
}
