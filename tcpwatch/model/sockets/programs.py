"""Programs: the processes of one name and user, whose sockets are counted together.

The workers of a server that forks are one program: a leak of one connection in each of them is one leak.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.arrays.group_by import run_starts
from tcpwatch.kernel.proc.process import Process
from tcpwatch.model.sockets.rows import Rows

_PIDS_IN_FILTER = 16


@dataclass(frozen=True, slots=True)
class Program:
    """The processes of one program, by ascending pid; at least one."""

    processes: tuple[Process, ...]

    @property
    def name(self) -> str:
        """Name of each of the processes."""
        return self.processes[0].name

    @property
    def user(self) -> str:
        """User of each of the processes."""
        return self.processes[0].user

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids, ascending."""
        return tuple(process.pid for process in self.processes)

    @property
    def key(self) -> tuple[str, int]:
        """Name and user id, which stay the same when processes come and go."""
        return self.name, self.processes[0].uid

    @property
    def filter(self) -> str:
        """Filter terms for the sockets of these processes; by name and user where there are very many processes."""
        if len(self.processes) > _PIDS_IN_FILTER and self.name.strip() and '"' not in self.name:
            return f'process:"{self.name}" user:{self.processes[0].uid}'
        return "pid:" + ",".join(map(str, self.pids))

    def __str__(self) -> str:
        """Return `app[12]`, or `app (3 processes)`."""
        if len(self.processes) == 1:
            return self.processes[0].label
        return f"{self.name} ({units.count(len(self.processes))} processes)"


@dataclass(frozen=True, slots=True, eq=False)
class ProgramSockets:
    """Some sockets of a program."""

    program: Program
    at: NDArray[np.intp]
    """Indices into the rows that `by_program` was called with."""
    count_by_pid: Mapping[int, int]


def by_program(rows: Rows, row: NDArray[np.intp]) -> list[ProgramSockets]:
    """Return these rows by program; those without a known owner are left out.

    A socket that several processes hold belongs to the first of them. There is no loop over sockets, only one over
    owners.
    """
    at = np.flatnonzero(rows.owner[row] >= 0) if len(row) else row
    if not len(at):
        return []
    order = at[np.argsort(rows.owner[row[at]], kind="stable")]
    codes = rows.owner[row[order]]
    starts = run_starts(codes)
    members: dict[tuple[str, int], list[tuple[Process, NDArray[np.intp]]]] = {}
    for code, part in zip(codes[starts].tolist(), np.split(order, starts[1:]) if len(order) else (), strict=True):
        process = rows.owners[code].processes[0]
        members.setdefault(Program((process,)).key, []).append((process, part))
    return [_sockets(parts) for parts in members.values()]


def _sockets(parts: list[tuple[Process, NDArray[np.intp]]]) -> ProgramSockets:
    counts: dict[int, int] = {}
    for process, part in parts:
        counts[process.pid] = counts.get(process.pid, 0) + len(part)
    processes = {process.pid: process for process, _ in parts}
    program = Program(tuple(processes[pid] for pid in sorted(processes)))
    return ProgramSockets(program, np.concatenate([part for _, part in parts]), counts)
