"""ConnectCallers: processes of the threads that called connect(), from the thread id of a traced CLOSE → SYN_SENT.

The id is that of the initial pid namespace. It gives an owner to connections that no poll has seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from time import monotonic

from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.kernel.proc.process import PROCESS_ENDED_ERRORS, read_process, read_process_stat

_PID = re.compile(rb"^Tgid:\t(\d{1,10})$", re.MULTILINE)
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO of include/linux/proc_ns.h."""
_KEPT_S = 10.0
"""Thread ids are reused, and programs call exec(); reading again after this time costs little."""
_MOST = 64
"""Largest number of threads per call, 0.2 ms each; the others follow in the next calls."""


class ConnectCallers:
    """Looks threads up in /proc and keeps the answers for some seconds. Not thread-safe."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._known: dict[int, tuple[float, Owner | None]] = {}
        self.readable = _in_first_pid_namespace(proc)
        """Whether the ids of the trace are those of this pid namespace."""

    def lookup(self, threads: Iterable[int]) -> dict[int, Owner]:
        """Return thread id → its process, including threads of the last seconds.

        A thread is absent if it ended, may not be read, or has a different id in this pid namespace.
        """
        if not self.readable:
            return {}
        now, wanted = monotonic(), set(threads)
        self._known = {thread: known for thread, known in self._known.items() if now - known[0] < _KEPT_S}
        for thread in sorted(wanted - self._known.keys())[:_MOST]:
            self._known[thread] = now, self._owner(thread)
        return {thread: owner for thread, (_, owner) in self._known.items() if owner is not None}

    def _owner(self, thread: int) -> Owner | None:
        try:
            pid = _PID.search(Path(self._proc, str(thread), "status").read_bytes())
            process = read_process(self._proc, read_process_stat(self._proc, int(pid[1]))) if pid else None
        except (*PROCESS_ENDED_ERRORS, PermissionError):
            return None
        return Owner((process,)) if process is not None else None


def _in_first_pid_namespace(proc: str) -> bool:
    try:
        return os.stat(f"{proc}/self/ns/pid").st_ino == _FIRST_PID_NAMESPACE
    except OSError:
        return False
