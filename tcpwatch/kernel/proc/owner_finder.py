"""Socket inode → the processes that hold it, found bit by bit within a budget of time.

sock_diag names the inode of a socket; who holds it is only to be found by reading the descriptors
of all processes. That is done once; afterwards only where a socket that nobody is known to hold is
likely to be, and, slowly, everywhere again, because sockets are shared (fork), passed on
(SCM_RIGHTS) and closed without a word. What follows from this: an owner may be out of date for some
dozens of calls, and "nobody holds it" is only said after everything has been read.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import is_in_sorted
from tcpwatch.kernel.proc.descriptors import Inodes, unique_sorted
from tcpwatch.kernel.proc.inode_table import HolderGroups, InodeTable
from tcpwatch.kernel.proc.process import PROCESS_ENDED_ERRORS, Process, read_process_stat
from tcpwatch.kernel.proc.process_table import Holder, ProcessTable

__all__ = [
    "UNKNOWN_ELSEWHERE",
    "UNKNOWN_NOT_LOOKED",
    "UNKNOWN_NO_PROCESS",
    "UNKNOWN_PERMISSION",
    "UNKNOWN_PROC",
    "Owner",
    "OwnerFinder",
    "Process",
]

UNKNOWN_NO_PROCESS = -1
"""Inode 0, the kernel's own: half-open, in the accept queue, orphaned or in TIME_WAIT."""
UNKNOWN_NOT_LOOKED = -2
"""Not found yet: the budget was spent. A later call goes on."""
UNKNOWN_PERMISSION = -3
"""Not found, and some processes could not be read: another user's."""
UNKNOWN_ELSEWHERE = -4
"""Every process was read and none holds it: another pid namespace does, or the kernel."""
UNKNOWN_PROC = -5
"""Not found, and /proc does not show all processes: hidepid=2, or it is not mounted."""

_NO_INODES: Inodes = np.empty(0, np.uint32)
_SMALL_SHARE = 0.1
"""Part of the budget for what nobody waits for, and for the names of what was found last."""
_SPARE_OWNERS = 1024


@dataclass(frozen=True, slots=True)
class Owner:
    """The processes that hold one socket, lowest pid first: several after fork or SCM_RIGHTS."""

    processes: tuple[Process, ...]

    def __str__(self) -> str:
        """`nginx[1234]`: the first of them."""
        return f"{self.processes[0].name}[{self.processes[0].pid}]"


class OwnerFinder:
    """Finds the owners of sockets, call by call. Not thread-safe.

    `owners[code]` is the meaning of a code ≥ 0. The list only grows, until most of it is not in use
    any more: then the next call puts a *new* list here. So keep codes with the list that was here
    when they came; neither changes.
    """

    def __init__(self, proc: str = "/proc") -> None:
        self.owners: list[Owner] = []
        self._proc = proc
        self._census = ProcessTable(proc)
        self._call = 0
        self._changed = True
        self._census_changes = 0
        self._current: tuple[Holder, int, bool, Generator[Inodes]] | None = None
        self._codes: dict[tuple[int, ...], int] = {}
        self._fair = False
        self._last_inodes, self._last_groups = _NO_INODES, np.empty(0, np.int32)
        self._use_table([])
        # The inodes asked for that nobody is known to hold, ascending, and the calls they came in.
        self._lost, self._since = _NO_INODES, np.empty(0, np.int64)
        self._wanted, self._found = _NO_INODES, np.empty(0, np.bool_)
        self._open = self._newest = 0

    @property
    def unreadable(self) -> int:
        """How many processes did not let us read their descriptors."""
        return sum(holder.denied for holder in self._census.holders.values())

    def find(self, inodes: Inodes, budget_s: float) -> NDArray[np.int32]:
        """The owner code of each inode, or why there is none (UNKNOWN_…); 1-D, same length.

        `budget_s` (seconds) is for looking into processes; it is kept to within some milliseconds,
        and a little is looked at however small it is. On top come up to a quarter for the names of
        new owners, 1 µs for each process and 0.02 µs for each known inode, and, in a call in which
        something changed, 0.1 to 0.2 µs for each socket of the host. The result is a new array.
        """
        self._call += 1
        self._census.refresh(self._call)
        groups = self._lookup(inodes)
        self._want(inodes, groups)
        if self._look_around(inodes, budget_s):
            groups = self._lookup(inodes)
            self._want(inodes, groups)
        return self._answer(inodes, groups, perf_counter() + _SMALL_SHARE * budget_s)

    # What is known

    def _lookup(self, inodes: Inodes) -> HolderGroups:
        """The group of holders of each inode, -1 where there is none."""
        if self._changed or self._census.changes != self._census_changes:
            holders = self._census.holders.values()
            self._use_table([holder for holder in holders if len(holder.descriptors.inodes)])
        if not np.array_equal(inodes, self._last_inodes):
            self._last_inodes = inodes.copy()
            self._last_groups = self._table.groups_of(inodes)
        return self._last_groups

    def _use_table(self, holders: list[Holder]) -> None:
        """Sort anew what the processes hold."""
        self._changed, self._census_changes = False, self._census.changes
        self._holders = sorted(holders, key=lambda holder: holder.task.pid)
        self._table = InodeTable([holder.descriptors.inodes for holder in self._holders])
        size = len(self._table.members)
        # One more for group -1. The names of a group are read when a socket of it is asked for.
        self._group_codes = np.full(size + 1, UNKNOWN_NOT_LOOKED, np.int32)
        self._last_inodes, self._last_groups = _NO_INODES, np.empty(0, np.int32)
        if len(self.owners) > 4 * size + _SPARE_OWNERS:
            self.owners, self._codes = [], {}

    def _want(self, inodes: Inodes, groups: HolderGroups) -> None:
        """Note what nobody is known to hold, and what of it is still to be searched for.

        An inode was searched for when every process had a look that began after it was asked for.
        """
        lost = unique_sorted(inodes[(groups < 0) & (inodes != 0)])
        since = np.full(len(lost), self._call)
        since[is_in_sorted(self._lost, lost)] = self._since[is_in_sorted(lost, self._lost)]
        self._lost, self._since = lost, since
        wanted = since > self._searched()
        self._wanted = lost[wanted]
        self._newest = int(since[wanted].max(initial=0))
        self._found = np.zeros(len(self._wanted), np.bool_)
        self._open = len(self._wanted)

    def _searched(self) -> int:
        """The newest call of which all wishes were searched for in every process."""
        holders = self._census.holders.values()
        return min((h.last_read_call for h in holders if not h.denied), default=self._call)

    # Where to look

    def _look_around(self, inodes: Inodes, budget_s: float) -> bool:
        """Look into processes until all is found or the time is spent; returns if any was due."""
        start = perf_counter()
        order = self._order()
        if self._current and self._current[0] not in order:
            self._current = None  # which closes its directory; the process ended, or has time
        asked = unique_sorted(inodes) if order else _NO_INODES
        for holder in order:
            if self._open or holder.due(self._call):
                share = 1.0 if self._open else _SMALL_SHARE
                if not self._look(holder, asked, start + share * budget_s):
                    self._fair = not self._fair
                    return True
        self._fair = False
        return bool(order)

    def _order(self) -> list[Holder]:
        """The processes to look into: new ones, those where new sockets were found, young ones.

        After a call that spent its budget they come in the order of their last look instead, so
        that a busy process cannot keep the others from their turn. A look begun comes first.
        """
        holders = [
            holder
            for holder in self._census.holders.values()
            if holder.due(self._call) or (holder.last_read_call < self._newest and not holder.denied)
        ]
        current = self._current[0] if self._current else None
        if self._fair:
            holders.sort(key=lambda h: (h is not current, h.last_read_call, -h.task.start_ticks))
        else:
            holders.sort(key=lambda h: (h is not current, not h.fresh, -h.finds, -h.task.start_ticks))
        return holders

    def _look(self, holder: Holder, asked: Inodes, deadline: float) -> bool:
        """Look into one process, or go on with it; returns whether there is time left."""
        if self._current is None or self._current[0] is not holder:
            thorough = holder.due(self._call)
            holder.finds /= 2
            look = holder.descriptors.scan(asked, thorough)
            self._current = holder, self._call, thorough, look
        _, began, thorough, look = self._current
        changes = holder.descriptors.changes
        try:
            for inodes in look:
                self._note(holder, inodes)
                if perf_counter() >= deadline:
                    return False
                if not self._open and not thorough:
                    break
            else:
                self._complete(holder, began, thorough)
        except PROCESS_ENDED_ERRORS:
            self._census.drop(holder.task.pid)
        except PermissionError:
            self._refused(holder)
        finally:
            self._changed |= holder.descriptors.changes != changes
        look.close()
        self._current = None
        return perf_counter() < deadline

    def _note(self, holder: Holder, inodes: Inodes) -> None:
        """Cross out what was found."""
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
        """Not ours to read. A zombie is nobody's: it holds nothing any more."""
        holder.mark_denied(self._call)
        try:
            holder.denied = not read_process_stat(self._proc, holder.task.pid).zombie
        except PROCESS_ENDED_ERRORS:
            self._census.drop(holder.task.pid)
        except PermissionError:
            pass  # hidepid=1: denied it is

    # What to answer

    def _answer(self, inodes: Inodes, groups: HolderGroups, deadline: float) -> NDArray[np.int32]:
        """Codes for groups, and reasons for the inodes that are in none."""
        asked = np.zeros(len(self._group_codes), np.bool_)
        asked[groups] = True
        asked[-1] = False
        for group in np.flatnonzero(asked & (self._group_codes < 0)).tolist():
            self._group_codes[group] = self._code(self._table.members[group])
            if perf_counter() >= deadline:
                break
        codes = self._group_codes[groups]
        nobody = np.flatnonzero(groups < 0)
        known = self._since <= self._searched()
        reasons = np.append(np.where(known, self._reason(), UNKNOWN_NOT_LOOKED), UNKNOWN_NO_PROCESS)
        at = np.searchsorted(self._lost, inodes[nobody])
        at[inodes[nobody] == 0] = -1
        codes[nobody] = reasons[at]
        return codes

    def _reason(self) -> int:
        """Why an inode is not found although everything that can be read was read."""
        if self._census.hides_processes:
            return UNKNOWN_PROC
        return UNKNOWN_PERMISSION if self.unreadable else UNKNOWN_ELSEWHERE

    def _code(self, members: tuple[int, ...]) -> int:
        """The code of a group of holders; members that have just ended are left out."""
        holders = [self._holders[member] for member in members]
        there = [h for h in holders if h.process is not None or h.refresh_process(self._proc)]
        processes = tuple(h.process for h in there if h.process is not None)
        if not processes:
            return UNKNOWN_NOT_LOOKED
        key = tuple(holder.serial for holder in there)
        if key not in self._codes:
            self._codes[key] = len(self.owners)
            self.owners.append(Owner(processes))
        return self._codes[key]
