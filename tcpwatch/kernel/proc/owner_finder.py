"""OwnerFinder: find the processes that hold sockets, by inode, incrementally within a time budget.

sock_diag gives the inode of a socket. To find its processes, the descriptors of all processes have to be read. That is
done once. Afterwards only the processes are read that are likely to hold a socket without a known owner, and slowly
all others again, because sockets are shared (fork), passed (SCM_RIGHTS) and closed without notice. Therefore an owner
may be out of date for some dozens of calls, and "no process" is reported only after everything has been read. A socket
that is in no descriptor table of a process is searched for where these do not show it (HiddenDescriptors).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.growing_tuple import GrowingTuple
from tcpwatch.arrays.lookup import is_in_sorted
from tcpwatch.kernel.proc.descriptors import Inodes, unique_sorted
from tcpwatch.kernel.proc.inode_table import HolderGroups, InodeTable
from tcpwatch.kernel.proc.process import PROCESS_ENDED_ERRORS, Process, read_process_stat
from tcpwatch.kernel.proc.process_table import Holder, ProcessTable

UNKNOWN_NO_PROCESS = -1
"""Inode 0, only in the kernel: half-open, in the accept queue, orphaned or in TIME_WAIT."""
UNKNOWN_NOT_LOOKED = -2
"""Not found yet: the budget was used up. A later call continues."""
UNKNOWN_PERMISSION = -3
"""Not found, and some processes of other users could not be read."""
UNKNOWN_ELSEWHERE = -4
"""Every process was read and none holds it: the holder is in another pid namespace, or it is the kernel."""
UNKNOWN_PROC = -5
"""Not found, and /proc does not show all processes: hidepid=2, or it is not mounted."""

_NO_INODES: Inodes = np.empty(0, np.uint32)
_SMALL_SHARE = 0.1
"""Share of the budget for scans without a missing owner (after the first call), and for the names of new owners."""
_SPARE_OWNERS = 1024


@dataclass(frozen=True, slots=True)
class Owner:
    """The processes that hold one socket, by ascending pid: several after fork or SCM_RIGHTS."""

    processes: tuple[Process, ...]
    accepting: int | None = None
    """Of a listener with several: so many of them, the first ones, are known to accept its connections.

    Of a connection that no poll saw: not None if one of the processes accepted it, and it is not known which.
    """
    presumed: bool = False
    """It is not certain: these processes hold its connections, which are older than the first sample."""

    @property
    def common_name(self) -> str | None:
        """The name of all processes; None if they have several names."""
        names = {process.name for process in self.processes}
        return names.pop() if len(names) == 1 else None

    @property
    def shown(self) -> tuple[Process, ...]:
        """The processes to name: those that accept, or else all that may."""
        return self.processes[: 1 if self.accepting is None else self.accepting or None]

    @property
    def acceptors(self) -> tuple[Process, ...]:
        """Of a listener, the processes that are certain to accept its connections; a sole holder is."""
        return () if self.accepting == 0 or self.presumed else self.shown

    def __str__(self) -> str:
        """Return `nginx[1234]`, or `nginx[1234] +3` where each of several processes may accept connections."""
        others = f" +{len(self.shown) - 1}" if len(self.shown) > 1 else ""
        return self.processes[0].label + others


class OwnerFinder:
    """Finds the owners of sockets, call by call. Not thread-safe.

    `owners[code]` is the owner for a code ≥ 0. Keep codes together with the owners of the same call: neither changes
    afterwards, and later codes may mean other owners.
    """

    def __init__(self, proc: str = "/proc") -> None:
        self._owners = GrowingTuple[Owner]()
        self._proc = proc
        self._processes = ProcessTable(proc)
        self._call = 0
        self._changed = True
        self._process_changes = 0
        self._current: tuple[Holder, int, bool, Generator[Inodes]] | None = None
        self._current_hidden: tuple[Holder, int, Generator[Inodes]] | None = None
        self._codes: dict[tuple[int, ...], int] = {}
        self._fair = False
        self._last_inodes, self._last_groups = _NO_INODES, np.empty(0, np.int32)
        self._use_table([])
        # The inodes without a known holder, ascending, and the calls in which they first occurred.
        self._lost, self._since = _NO_INODES, np.empty(0, np.int64)
        self._wanted, self._found = _NO_INODES, np.empty(0, np.bool_)
        self._open = self._newest = 0

    @property
    def owners(self) -> tuple[Owner, ...]:
        """The owners found so far; unused ones are dropped now and then."""
        return self._owners.snapshot()

    @property
    def unreadable(self) -> int:
        """Number of processes whose descriptors cannot be read."""
        return sum(holder.denied for holder in self._processes.holders.values())

    @property
    def has_unread(self) -> bool:
        """Whether a process was not read yet, so that it may hold a socket of which another holder is known."""
        return any(holder.fresh for holder in self._processes.holders.values())

    def find(self, inodes: Inodes, budget_s: float) -> NDArray[np.int32]:
        """Return the owner code of each inode, or the reason why it has none (UNKNOWN_…), as a new array.

        `budget_s` (seconds) is for reading descriptors; it is kept to within some milliseconds, and at least one slice
        is read. In addition: a tenth for the names of new owners (in the first call as much again), 1 µs for each
        process, 0.02 µs for each known inode, and, in a call in which something changed, 0.1 to 0.2 µs for each socket
        of the host.
        """
        self._call += 1
        self._processes.refresh(self._call)
        groups = self._lookup(inodes)
        self._want(inodes, groups)
        begin = perf_counter()
        for scan in (self._scan_processes, self._scan_hidden):
            if scan(inodes, begin, budget_s):
                groups = self._lookup(inodes)
                self._want(inodes, groups)
        names_s = budget_s if self._call == 1 else _SMALL_SHARE * budget_s
        return self._answer(inodes, groups, perf_counter() + names_s)

    # Known holders

    def _lookup(self, inodes: Inodes) -> HolderGroups:
        """Return the group of holders of each inode, -1 if there is none."""
        if self._changed or self._processes.changes != self._process_changes:
            holders = self._processes.holders.values()
            self._use_table([holder for holder in holders if len(holder.inodes)])
        if not np.array_equal(inodes, self._last_inodes):
            self._last_inodes = inodes.copy()
            self._last_groups = self._table.groups_of(inodes)
        return self._last_groups

    def _use_table(self, holders: list[Holder]) -> None:
        """Rebuild the table of inodes from the descriptors of the processes."""
        self._changed, self._process_changes = False, self._processes.changes
        self._holders = sorted(holders, key=lambda holder: holder.task.pid)
        self._has_hidden = any(holder.has_hidden for holder in holders)
        self._table = InodeTable([holder.inodes for holder in self._holders])
        size = len(self._table.members)
        # One more for group -1. The names of a group are read when one of its sockets is in the sample.
        self._group_codes = np.full(size + 1, UNKNOWN_NOT_LOOKED, np.int32)
        self._last_inodes, self._last_groups = _NO_INODES, np.empty(0, np.int32)
        if len(self._owners) > 4 * size + _SPARE_OWNERS:
            self._owners, self._codes = GrowingTuple(), {}

    def _want(self, inodes: Inodes, groups: HolderGroups) -> None:
        """Update the inodes without a known holder, and which of them are still to be searched for.

        The search for an inode is complete when every process had a scan that began after its first occurrence.
        """
        lost = unique_sorted(inodes[(groups < 0) & (inodes != 0)])
        since = np.full(len(lost), self._call)
        since[is_in_sorted(self._lost, lost)] = self._since[is_in_sorted(lost, self._lost)]
        self._lost, self._since = lost, since
        wanted = since > self._searched()
        self._newest = int(since[wanted].max(initial=0))
        self._open_search(lost[wanted])

    def _open_search(self, wanted: Inodes) -> None:
        """Start to search for these inodes, ascending."""
        self._wanted, self._found, self._open = wanted, np.zeros(len(wanted), np.bool_), len(wanted)

    def _searched(self) -> int:
        """Return the latest call whose inodes were searched for in every process."""
        holders = self._processes.holders.values()
        return min((h.last_read_call for h in holders if not h.denied), default=self._call)

    def _searched_hidden(self) -> int:
        """As _searched, and where descriptor tables do not show it."""
        holders = self._processes.holders.values()
        return min((min(h.last_read_call, h.last_hidden_call) for h in holders if not h.denied), default=self._call)

    # Scan processes

    def _scan_processes(self, inodes: Inodes, start: float, budget_s: float) -> bool:
        """Scan processes until all is found or the time is up; return whether any scan was due."""
        order = self._order()
        if self._current and self._current[0] not in order:
            self._current = None  # which closes its directory; the process ended or is not due
        in_sample = unique_sorted(inodes) if order else _NO_INODES
        for holder in order:
            if self._open or holder.due(self._call):
                share = 1.0 if self._open or self._call == 1 else _SMALL_SHARE
                if not self._scan(holder, in_sample, start + share * budget_s):
                    self._fair = not self._fair
                    return True
        self._fair = False
        return bool(order)

    def _order(self) -> list[Holder]:
        """Return the processes to scan: new ones, those where new sockets were found, young ones.

        After a call that used up its budget they are ordered by their last scan instead, so that a busy process cannot
        delay the others for ever. A scan in progress is first.
        """
        holders = [
            holder
            for holder in self._processes.holders.values()
            if holder.due(self._call) or (holder.last_read_call < self._newest and not holder.denied)
        ]
        current = self._current[0] if self._current else None
        if self._fair:
            holders.sort(key=lambda h: (h is not current, h.last_read_call, -h.task.start_ticks))
        else:
            holders.sort(key=lambda h: (h is not current, not h.fresh, -h.finds, -h.task.start_ticks))
        return holders

    def _scan(self, holder: Holder, in_sample: Inodes, deadline: float) -> bool:
        """Scan one process, or continue its scan; return whether there is time left."""
        if self._current is None or self._current[0] is not holder:
            thorough = holder.due(self._call)
            holder.finds /= 2
            scan = holder.descriptors.scan(in_sample, thorough)
            self._current = holder, self._call, thorough, scan
        _, began, thorough, scan = self._current
        changes = holder.changes
        try:
            for inodes in scan:
                self._mark_found(holder, inodes)
                if perf_counter() >= deadline:
                    return False
                if not self._open and not thorough:
                    break
            else:
                self._complete(holder, began, thorough)
        except PROCESS_ENDED_ERRORS:
            self._processes.drop(holder.task.pid)
        except PermissionError:
            self._refused(holder)
        finally:
            self._changed |= holder.changes != changes
        scan.close()
        self._current = None
        return perf_counter() < deadline

    def _mark_found(self, holder: Holder, inodes: Inodes) -> None:
        """Mark wanted inodes as found."""
        if not self._open:
            return
        hits = np.searchsorted(self._wanted, inodes[is_in_sorted(self._wanted, inodes)])
        self._found[hits] = True
        if not holder.fresh:
            holder.finds += len(hits)
        self._open = len(self._found) - int(np.count_nonzero(self._found))

    def _complete(self, holder: Holder, began: int, thorough: bool) -> None:
        holder.mark_read(began, thorough)
        if thorough and holder.process is not None:
            serial = holder.serial
            if not holder.refresh_process(self._proc):
                raise ProcessLookupError
            self._changed |= holder.serial != serial

    def _refused(self, holder: Holder) -> None:
        """Record a process that may not be read. A zombie holds no sockets, so it does not count."""
        holder.mark_denied(self._call)
        try:
            holder.denied = not read_process_stat(self._proc, holder.task.pid).zombie
        except PROCESS_ENDED_ERRORS:
            self._processes.drop(holder.task.pid)
        except PermissionError:
            pass  # hidepid=1: it stays denied

    # Scan what descriptor tables of processes do not show

    def _scan_hidden(self, inodes: Inodes, start: float, budget_s: float) -> bool:
        """Search for what no process seems to hold, until all is found or the time is up; return whether it was due.

        Most such sockets are of connections that closed meanwhile. Therefore one has to be missing in two calls, except
        in the first one; and what is still missing is searched for again in LONGEST_INTERVAL calls.
        """
        missing = (self._since <= self._searched()) & ((self._since < self._call) | (self._call == 1))
        self._open_search(self._lost[missing])
        if not self._open and not self._has_hidden:
            return False
        newest = int(self._since[missing].max(initial=0))
        order = [
            holder
            for holder in self._processes.holders.values()
            if not holder.denied and holder.hidden_due(self._call, newest, bool(self._open))
        ]
        if not order:
            return False
        current = self._current_hidden[0] if self._current_hidden else None
        order.sort(key=lambda h: (h is not current, not h.has_hidden, -h.task.start_ticks))
        in_sample, seen = unique_sorted(inodes), self._open
        for holder in order:
            if seen and not self._open:
                break
            if not self._scan_hidden_of(holder, in_sample, start + budget_s):
                break
        return True

    def _scan_hidden_of(self, holder: Holder, in_sample: Inodes, deadline: float) -> bool:
        """Scan the hidden sockets of one process, or continue; return whether there is time left."""
        if self._current_hidden is None or self._current_hidden[0] is not holder:
            scan = holder.hidden.scan(holder.descriptors, in_sample, thorough=True)
            self._current_hidden = holder, self._call, scan
        _, began, scan = self._current_hidden
        changes = holder.changes
        try:
            for inodes in scan:
                self._mark_found(holder, inodes)
                if perf_counter() >= deadline:
                    return False
            holder.last_hidden_call = began
        finally:
            self._changed |= holder.changes != changes
        self._current_hidden = None
        return perf_counter() < deadline

    # Codes

    def _answer(self, inodes: Inodes, groups: HolderGroups, deadline: float) -> NDArray[np.int32]:
        """Return codes for groups, and reasons for inodes without one."""
        in_sample = np.zeros(len(self._group_codes), np.bool_)
        in_sample[groups] = True
        in_sample[-1] = False
        for group in np.flatnonzero(in_sample & (self._group_codes < 0)).tolist():
            self._group_codes[group] = self._code(self._table.members[group])
            if perf_counter() >= deadline:
                break
        codes = self._group_codes[groups]
        unheld = np.flatnonzero(groups < 0)
        # "Elsewhere" is said after a search in every place; the other reasons do not depend on the hidden ones.
        reason = self._reason()
        searched = self._searched_hidden() if reason == UNKNOWN_ELSEWHERE else self._searched()
        reasons = np.append(np.where(self._since <= searched, reason, UNKNOWN_NOT_LOOKED), UNKNOWN_NO_PROCESS)
        at = np.searchsorted(self._lost, inodes[unheld])
        at[inodes[unheld] == 0] = -1
        codes[unheld] = reasons[at]
        return codes

    def _reason(self) -> int:
        """Return why an inode was not found although everything that can be read was read."""
        if self._processes.hides_processes:
            return UNKNOWN_PROC
        return UNKNOWN_PERMISSION if self.unreadable else UNKNOWN_ELSEWHERE

    def _code(self, members: tuple[int, ...]) -> int:
        """Return the code of a group of holders; members that have just ended are left out."""
        holders = [self._holders[member] for member in members]
        existing = [h for h in holders if h.process is not None or h.refresh_process(self._proc)]
        processes = tuple(h.process for h in existing if h.process is not None)
        if not processes:
            return UNKNOWN_NOT_LOOKED
        key = tuple(holder.serial for holder in existing)
        if key not in self._codes:
            self._codes[key] = len(self._owners)
            self._owners.append(Owner(processes))
        return self._codes[key]
