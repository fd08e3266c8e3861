"""Descriptor limits of processes: the soft RLIMIT_NOFILE from /proc/PID/limits (proc(5), getrlimit(2))."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from time import monotonic

from tcpwatch.kernel.proc.numbers import kernel_number

_LINE = "Max open files"
_KEPT_S = 30.0
"""A program may change its limit; reading again after this time costs little."""


def descriptor_limit(pid: int, proc: str = "/proc") -> int | None:
    """Return the limit of a process; None if it is unlimited, cannot be read, or the process ended."""
    try:
        lines = Path(proc, str(pid), "limits").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    values = next((line.removeprefix(_LINE).split() for line in lines if line.startswith(_LINE)), [])
    return kernel_number(values[0]) if values else None


class DescriptorLimits:
    """Reads limits and keeps them for some seconds. Not thread-safe."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._known: dict[int, tuple[float, int | None]] = {}

    def lookup(self, pids: Iterable[int]) -> dict[int, int]:
        """Return pid → limit; absent if unknown."""
        now = monotonic()
        old = {pid: known for pid, known in self._known.items() if now - known[0] < _KEPT_S}
        self._known = {pid: old.get(pid) or (now, descriptor_limit(pid, self._proc)) for pid in pids}
        return {pid: limit for pid, (_, limit) in self._known.items() if limit is not None}
