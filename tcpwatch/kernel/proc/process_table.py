"""ProcessTable: the processes of the host that may hold sockets, and when their descriptors were read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import count

import numpy as np

from tcpwatch.kernel.proc.descriptors import Descriptors, Inodes
from tcpwatch.kernel.proc.hidden_descriptors import HiddenDescriptors
from tcpwatch.kernel.proc.process import PROCESS_ENDED_ERRORS, Process, ProcessStat, read_process, read_process_stat

LONGEST_INTERVAL = 32
"""Calls between two thorough scans of a process, unless it is new."""
_PENDING_INTERVAL = 4
"""The same while facts about the process are not read yet."""

_serials = count()


@dataclass(slots=True, eq=False)
class Holder:
    """One process and its sockets. Calls are numbered by the OwnerFinder.

    `entry` is the inode of /proc/PID: a new process with the same pid has a different one. `last_read_call` is the call
    in which the last complete scan began, `last_thorough_call` the same for a thorough one, `last_hidden_call` the same
    for one of `hidden`. `finds` is a decaying count of the new sockets found here.
    """

    task: ProcessStat
    entry: int
    descriptors: Descriptors
    hidden: HiddenDescriptors
    last_read_call: int
    last_thorough_call: int
    last_hidden_call: int
    interval: int
    denied: bool = False
    fresh: bool = True
    finds: float = 0.0
    process: Process | None = None
    serial: int = -1

    @property
    def inodes(self) -> Inodes:
        """Inodes of its sockets, in any order, with zeros for other files."""
        hidden = self.hidden.inodes(self.descriptors)
        return np.concatenate((self.descriptors.inodes, hidden)) if len(hidden) else self.descriptors.inodes

    @property
    def changes(self) -> int:
        """How often its sockets changed."""
        return self.descriptors.changes + self.hidden.changes

    def due(self, call: int) -> bool:
        """Return whether a thorough scan is due: at first in the next call, then after 2, 4, 8 … calls.

        A young process changes most: it closes inherited sockets and changes its name by exec.
        """
        return self.fresh or call - self.last_thorough_call >= self.interval

    @property
    def has_hidden(self) -> bool:
        """Whether it has sockets that its descriptor table does not show."""
        return len(self.hidden.inodes(self.descriptors)) > 0

    def hidden_due(self, call: int, newest: int, missing: bool) -> bool:
        """Return whether a scan of the hidden sockets is due.

        It is after `newest`, the call in which the last missing socket occurred, and at long intervals where some are
        missing or the process has some.
        """
        is_late = call - self.last_hidden_call >= LONGEST_INTERVAL
        return self.last_hidden_call < newest or (is_late and (missing or self.has_hidden))

    def mark_read(self, began: int, thorough: bool) -> None:
        """Record that a scan that began in the call `began` is complete."""
        self.last_read_call, self.denied, self.fresh = began, False, False
        if thorough:
            self.last_thorough_call = began
            self.interval = min(2 * self.interval, LONGEST_INTERVAL)

    def mark_denied(self, call: int) -> None:
        """Record that the descriptors cannot be read: another user's process, or not dumpable."""
        self.mark_read(call, thorough=True)
        self.denied = True
        self.interval = LONGEST_INTERVAL
        self.descriptors.clear()
        self.hidden.clear()

    def refresh_process(self, proc: str) -> bool:
        """Read the facts about the process again; return whether it still exists.

        `serial` changes when the facts change.
        """
        process = read_process(proc, self.task)
        if process is not None and process != self.process:
            self.process, self.serial = process, next(_serials)
        if process is not None and process.pending:
            self.interval = min(self.interval, _PENDING_INTERVAL)
        return process is not None


class ProcessTable:
    """All processes except kernel threads, which have no descriptors; updated by refresh().

    `holders` is by pid. `changes` counts the processes with sockets that ended. `hides_processes` is whether /proc
    hides processes: pid 1 exists in every pid namespace.
    """

    def __init__(self, proc: str) -> None:
        self._proc = proc
        self._kernel: dict[int, int] = {}
        self._seen: dict[str, int] = {}
        """The directory in the last refresh(); empty if it has to be gone through again."""
        self.holders: dict[int, Holder] = {}
        self.changes = 0
        self.hides_processes = True

    def refresh(self, call: int) -> None:
        """List the processes. This reads one directory, and no other file of a known process."""
        directory = self._directory()
        if directory == self._seen:
            return
        self._seen, entries = directory, {int(name): entry for name, entry in directory.items() if name.isdecimal()}
        self.hides_processes = 1 not in entries
        for pid in self.holders.keys() - entries.keys():
            self.drop(pid)
        self._kernel = {p: e for p, e in self._kernel.items() if entries.get(p) == e}
        for pid, entry in entries.items():
            holder = self.holders.get(pid)
            if holder is None and self._kernel.get(pid) == entry:
                continue
            if holder is None or holder.entry != entry:
                self._add_or_update(pid, entry, call)

    def drop(self, pid: int) -> None:
        """Remove a process that has ended."""
        holder = self.holders.pop(pid)
        self._seen = {}  # it may be found again
        if holder.inodes.any():
            self.changes += 1

    def _directory(self) -> dict[str, int]:
        """Return name → inode of all entries of /proc; empty if unreadable."""
        try:
            with os.scandir(self._proc) as entries:
                return {entry.name: entry.inode() for entry in entries}
        except OSError:
            return {}  # not mounted or not readable: hides_processes becomes true

    def _add_or_update(self, pid: int, entry: int, call: int) -> None:
        """Add a new process, or update a known one whose directory was evicted from the kernel's cache."""
        known = self.holders.get(pid)
        try:
            task = read_process_stat(self._proc, pid)
        except PermissionError:  # hidepid=1; without the start time, the entry identifies it
            task = ProcessStat(pid, start_ticks=-entry, comm="", kernel=False, zombie=False)
        except PROCESS_ENDED_ERRORS:
            return  # the next call drops it
        if known is not None and known.task.start_ticks == task.start_ticks:
            known.entry = entry
            return
        if known is not None:
            self.drop(pid)
        if task.kernel:
            self._kernel[pid] = entry
            return
        self.holders[pid] = Holder(
            task,
            entry,
            Descriptors(f"{self._proc}/{pid}/fd"),
            HiddenDescriptors(f"{self._proc}/{pid}", pid),
            last_read_call=call - 1,
            last_thorough_call=call - 1,
            last_hidden_call=call - 1,
            interval=LONGEST_INTERVAL if call == 1 else 1,
        )
