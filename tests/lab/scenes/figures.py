"""Figures from the kernel, by the names that the conditions of scenes use.

    accept_queue PORT        connections that wait for accept(), in the fullest queue of the port
    full_accept_queues PORT  listeners of the port whose accept queue is above its limit
    WORD PORT                sockets with the local port: half-open, in teardown, unread; see COUNTED
    WORD to PORT             sockets with the remote port
    WORD                     all such sockets
    NAME                     a counter's increase since the scene began
    NAME / NAME              the ratio of two increases
    NAME per_s               a counter's rate since the scene began
    sockstat NAME            a figure of the line TCP: of /proc/net/sockstat
    connected to PORT        successful connect()s of the scene's callers
    no_port to PORT          connect()s that failed with EADDRNOTAVAIL

Counters have the kernel's names: `SyncookiesSent` is TcpExtSyncookiesSent of nstat.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.lab.diag import dump
from tests.lab.machine.namespace import Namespace
from tests.lab.observe import Row
from tests.lab.scenes.parts import Caller
from tests.lab.scenes.tally import MET, Tally
from tests.lab.wire.packets import Family

_MUCH = 10_000  # bytes unread
_OPEN = "ESTABLISHED"


class Figures:
    """Figures read from sock_diag, for few states, and from /proc/net; for the main thread."""

    def __init__(self, namespace: Namespace, family: Family, callers: tuple[Caller, ...], counts: Tally) -> None:
        self._namespace = namespace
        self._family = family
        self._callers = callers
        self._counts = counts
        self._start = namespace.counters()
        self._start_time = time.monotonic()

    def __getitem__(self, figure: str) -> float:
        match figure.split():
            case [word, "to", port] if word in MET:
                calls = enumerate(self._callers)
                return sum(self._counts.count(number, word) for number, it in calls if it.port == int(port))
            case [word, "to", port]:
                return self._sockets(word, lambda row: row.remote.port == int(port))
            case [word, port] if port.isdecimal():
                return self._sockets(word, lambda row: row.local.port == int(port))
            case [word] if word in COUNTED:
                return self._sockets(word, lambda row: True)
            case ["sockstat", name]:
                return _sockstat()[name]
            case [name, "per_s"]:
                return self._counter(name) / (time.monotonic() - self._start_time)
            case [name, "/", other]:
                return self._counter(name) / max(self._counter(other), 1)
            case [name]:
                return self._counter(name)
        raise LookupError(figure)

    def _counter(self, name: str) -> int:
        return self._namespace.counters()[name] - self._start[name]

    def _sockets(self, word: str, meant: Callable[[Row], bool]) -> int:
        if word in _LISTENERS:
            return _LISTENERS[word]([row for row in dump(self._family, "LISTEN") if meant(row)])
        states, counted = COUNTED[word]
        return sum(meant(row) and counted(row) for state in states.split() for row in dump(self._family, state))


def _sockstat() -> dict[str, int]:
    lines = Path("/proc/net/sockstat").read_text().splitlines()
    words = next(line.split() for line in lines if line.startswith("TCP:"))
    return dict(zip(words[1::2], map(int, words[2::2]), strict=True))


_LISTENERS: dict[str, Callable[[list[Row]], int]] = {
    "accept_queue": lambda listeners: max(row.receive_queue for row in listeners),
    "full_accept_queues": lambda listeners: sum(row.receive_queue > row.transmit_queue for row in listeners),
}


class Kind(NamedTuple):
    """The sockets that a word counts."""

    states: str
    counted: Callable[[Row], bool] = lambda row: True


COUNTED: dict[str, Kind] = {
    "syn_queue": Kind("SYN_RCVD"),
    "repeated": Kind("SYN_RCVD", lambda row: row.retransmits > 0),  # their SYN+ACK
    "given_up": Kind("CLOSE_WAIT", lambda row: row.inode == 0),  # not accepted, and the client has closed
    "syn_sent": Kind("SYN_SENT"),
    "syn_sent_twice_repeated": Kind("SYN_SENT", lambda row: row.retransmits >= 2),
    "established": Kind(_OPEN),
    "unread": Kind(_OPEN, lambda row: row.receive_queue >= _MUCH),
    "probing": Kind(_OPEN, lambda row: row.timer == "persist"),  # the peer's window is closed
    "time_wait": Kind("TIME_WAIT"),
    "pinned": Kind(f"{_OPEN} SYN_SENT TIME_WAIT FIN_WAIT_1 FIN_WAIT_2 CLOSE_WAIT LAST_ACK CLOSING"),
    "fin_wait_1": Kind("FIN_WAIT_1"),
    "orphans": Kind("FIN_WAIT_1 LAST_ACK CLOSING", lambda row: row.inode == 0),
    "half_closed": Kind("FIN_WAIT_2", lambda row: row.inode > 0),
    "half_closed_orphans": Kind("FIN_WAIT_2", lambda row: row.inode == 0),
    "leaked": Kind("CLOSE_WAIT", lambda row: row.inode > 0 and row.receive_queue == 0),  # EOF read
    "stuck": Kind("CLOSE_WAIT", lambda row: row.inode > 0 and row.receive_queue == 1),  # EOF not read
    "abandoned": Kind("CLOSE_WAIT", lambda row: row.inode > 0 and row.receive_queue > 1),  # nor the data before it
}
