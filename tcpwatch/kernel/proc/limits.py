"""How many descriptors a process may have: RLIMIT_NOFILE, the soft limit (proc(5), /proc/PID/limits; getrlimit(2))."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from time import monotonic

_LINE = "Max open files"
_KEPT_S = 30.0
"""A program may change its limit; looking so often costs nothing."""


def descriptor_limit(pid: int, proc: str = "/proc") -> int | None:
    """The limit of one process; None where it has none, has gone, or may not be looked into."""
    try:
        lines = Path(proc, str(pid), "limits").read_text().splitlines()
    except OSError:
        return None
    soft = next((line.removeprefix(_LINE).split()[0] for line in lines if line.startswith(_LINE)), "")
    return int(soft) if soft.isdecimal() else None


class DescriptorLimits:
    """Reads each process's limit now and then. Not thread-safe."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._known: dict[int, tuple[float, int | None]] = {}

    def lookup(self, pids: Iterable[int]) -> dict[int, int]:
        """pid → limit; absent where it is not known."""
        now = monotonic()
        old = {pid: known for pid, known in self._known.items() if now - known[0] < _KEPT_S}
        self._known = {pid: old.get(pid) or (now, descriptor_limit(pid, self._proc)) for pid in pids}
        return {pid: limit for pid, (_, limit) in self._known.items() if limit is not None}
