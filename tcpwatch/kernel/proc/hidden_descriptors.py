"""HiddenDescriptors: sockets of a process that /proc/PID/fd does not show.

/proc/PID/fd is the descriptor table of the main thread. Three kinds of sockets are not in it: files registered with an
io_uring (io_uring_register(2), listed in /proc/PID/fdinfo of the ring), those in the table of a thread that has one of
its own (unshare(2) with CLONE_FILES), and all of a process whose main thread has exited, which is a zombie until the
others end. The tables of threads are in /proc/PID/task/TID/fd.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Generator, Iterator
from contextlib import suppress

import numpy as np

from tcpwatch.kernel.proc.descriptors import Descriptors, Inodes

_KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272}.get(platform.machine())
"""Number of kcmp(2) (asm/unistd.h)."""
_KCMP_FILES = 2
_NOTHING: Inodes = np.empty(0, np.uint32)
_ONE_THREAD = 3
"""Links of /proc/PID/task with one thread: two, and one for each thread."""


class HiddenDescriptors:
    """The sockets of one process, as far as they were read."""

    __slots__ = ("_path", "_pid", "_removed", "_sharing", "_tables")

    def __init__(self, path: str, pid: int) -> None:
        """`path` is /proc/PID."""
        self._path, self._pid = path, pid
        self._sharing: set[int] = set()
        self._tables: dict[int, Descriptors] = {}
        self._removed = 0

    @property
    def changes(self) -> int:
        """How often the sockets in the tables of threads changed."""
        return self._removed + sum(table.changes for table in self._tables.values())

    def inodes(self, main: Descriptors) -> Inodes:
        """Return the inodes of the sockets, in any order; `main` is the table of /proc/PID/fd."""
        if not self._tables:
            return main.registered
        tables = self._tables.values()
        return np.concatenate([main.registered, *(it.inodes for it in tables), *(it.registered for it in tables)])

    def clear(self) -> None:
        """Remove all sockets."""
        self._removed, self._tables = self.changes + 1, {}

    def scan(self, main: Descriptors, in_sample: Inodes, thorough: bool) -> Generator[Inodes]:
        """Read what the table `main` does not show; yields the inodes found in each part.

        `in_sample` and `thorough` are for the tables of threads, as in `Descriptors.scan`. The caller may stop at any
        yield; what was read is kept. A process that has ended, or may not be read, has nothing to show.
        """
        yield from main.scan_registered()
        for thread in self._threads():
            if thread not in self._tables and not self._is_separate(thread):
                self._sharing.add(thread)
                yield _NOTHING
                continue
            table = self._tables.setdefault(thread, Descriptors(f"{self._path}/task/{thread}/fd"))
            with suppress(OSError):  # the thread has ended
                yield from table.scan(in_sample, thorough)
                yield from table.scan_registered()

    def _threads(self) -> Iterator[int]:
        """Yield the threads other than the main thread, except those known to share a table."""
        task, threads = f"{self._path}/task", set[int]()
        with suppress(OSError):
            if os.stat(task).st_nlink != _ONE_THREAD:
                threads = {int(name) for name in os.listdir(task) if name.isdecimal()} - {self._pid}
        self._sharing &= threads
        for thread in self._tables.keys() - threads:
            self._removed += self._tables.pop(thread).changes + 1
        yield from sorted(threads - self._sharing)

    def _is_separate(self, thread: int) -> bool:
        """Return whether a thread has a table that was not read yet."""
        return all(_have_different_tables(other, thread) for other in (self._pid, *self._tables))


def _have_different_tables(one: int, other: int) -> bool:
    """Return whether two threads have different descriptor tables; false where kcmp(2) is not permitted.

    The ids are those of our own pid namespace.
    """
    return _KCMP is not None and _LIBC.syscall(_KCMP, one, other, _KCMP_FILES, 0, 0) > 0


_LIBC = ctypes.CDLL(None)
