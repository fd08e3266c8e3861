"""NamespaceCensus: other network namespaces with TCP sockets, as their processes in /proc show them.

Each process names its network namespace in /proc/PID/ns/net, and its counters in /proc/PID/net/sockstat and sockstat6
(net/ipv4/proc.c). To read the link of another user's process takes the privilege to trace it (namespaces(7)): an
ordinary user sees the namespaces of own processes alone. A namespace without a process (ip netns add) is not seen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

LOOK_AGAIN_S = 30.0
"""Pause between two searches: each takes about 5 µs per process."""
_CHECK_CLOCK = 16
"""Processes between two looks at the clock."""


class NamespaceCensus:
    """Searches /proc for a short time in each call. Not thread-safe."""

    def __init__(self, proc: str = "/proc") -> None:
        """The namespace of the calling thread is the one that is watched."""
        self._proc = proc
        self._own = _namespace(f"{proc}/thread-self/ns/net")
        self._count: int | None = None
        self._search: Iterator[int | None] | None = None
        self._due = 0.0

    def look(self, budget_s: float) -> int | None:
        """Search for at most `budget_s`, and return the result of the last complete search; None before the first."""
        begin = time.monotonic()
        if self._search is None:
            if begin < self._due or not self._own:
                return self._count
            self._search = self._find()
        for found in self._search:
            if found is not None:
                self._count, self._search, self._due = found, None, time.monotonic() + LOOK_AGAIN_S
                break
            if time.monotonic() - begin > budget_s:
                break
        return self._count

    def _find(self) -> Iterator[int | None]:
        """Yield None now and then, and at last how many namespaces there are."""
        seen, with_sockets = {self._own}, 0
        try:
            pids = [name for name in os.listdir(self._proc) if name.isdigit()]
        except OSError:
            pids = []
        for at, pid in enumerate(pids):
            namespace = _namespace(f"{self._proc}/{pid}/ns/net")
            if namespace and namespace not in seen:
                found = _has_sockets(Path(self._proc, pid, "net"))
                if found is not None:  # otherwise the process has just ended; the namespace may have others
                    seen.add(namespace)
                    with_sockets += found
            if at % _CHECK_CLOCK == 0:
                yield None
        yield with_sockets


def _namespace(link: str) -> str:
    """Return `net:[4026531840]`; empty if the process has ended or may not be traced."""
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _has_sockets(proc_net: Path) -> bool | None:
    """Return whether a TCP socket is in use there, or in TIME_WAIT; None if that cannot be read."""
    sockets = None
    for name in ("sockstat", "sockstat6"):
        try:
            lines = (proc_net / name).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue  # without IPv6 there is no sockstat6
        words = [line.split() for line in lines if line.startswith(("TCP:", "TCP6:"))]
        figures = [dict(zip(line[1::2], line[2::2], strict=False)) for line in words]
        sockets = bool(sockets) or any(line.get(name, "0") != "0" for line in figures for name in ("inuse", "tw"))
    return sockets
