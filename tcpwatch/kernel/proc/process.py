"""Facts about one process from /proc: identity, name, command line and user (proc(5))."""

from __future__ import annotations

import errno
import os
import pwd
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import CLOCK_BOOTTIME, clock_gettime, time

from tcpwatch.kernel.proc.numbers import kernel_number
from tcpwatch.units.printable import printable

PROCESS_ENDED_ERRORS = (FileNotFoundError, ProcessLookupError)
"""Raised by /proc for a process that has ended: ENOENT for a path, ESRCH for an open file."""

_NAME_LIMIT = 64
_KERNEL_THREAD = 0x00200000
"""PF_KTHREAD in the flags of /proc/PID/stat (include/linux/sched.h)."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """Fields of /proc/PID/stat. `pid` and `start_ticks` (since boot) together identify a process."""

    pid: int
    start_ticks: int
    comm: str
    kernel: bool
    zombie: bool


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it is shown. All strings are printable.

    `uid` is the real user id. `command` has the arguments joined by spaces; it is empty if they cannot be read.
    """

    pid: int
    name: str
    command: str
    uid: int
    user: str
    started_unix_s: float

    @property
    def label(self) -> str:
        """Name and pid: `nginx[1234]`."""
        return f"{self.name}[{self.pid}]"


def read_process_stat(proc: str, pid: int) -> ProcessStat:
    """Read /proc/PID/stat. Raises PROCESS_ENDED_ERRORS, or PermissionError under the mount option hidepid=1.

    A text that is not what proc(5) says also counts as one that may not be read.
    """
    text = os.fsdecode(Path(proc, str(pid), "stat").read_bytes())
    # The name may contain spaces and brackets: the last bracket closes it.
    comm, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    start_ticks, flags = (kernel_number(fields[at]) if len(fields) > at else None for at in (19, 6))
    if start_ticks is None or flags is None:
        raise PermissionError(errno.EPERM, "unexpected content", f"{proc}/{pid}/stat")
    return ProcessStat(pid, start_ticks, comm, bool(flags & _KERNEL_THREAD), fields[0] in ("Z", "X"))


def read_process(proc: str, task: ProcessStat) -> Process | None:
    """Return the facts about `task` as far as they can be read, or None if it has ended."""
    try:
        name, command, uid = _facts(proc, task)
        if read_process_stat(proc, task.pid).start_ticks != task.start_ticks:
            return None  # the pid was reused in the meantime: the facts may be of another process
    except (*PROCESS_ENDED_ERRORS, PermissionError):
        return None
    return Process(
        pid=task.pid,
        name=printable(name, _NAME_LIMIT),
        command=printable(command),
        uid=uid,
        user=_user(uid),
        started_unix_s=_boot_time() + task.start_ticks / _TICKS_PER_S,
    )


def _facts(proc: str, task: ProcessStat) -> tuple[str, str, int]:
    """Return name, command line and real uid; the name is that of the command line where the kernel has cut it off."""
    uids = _UIDS.search(_read(proc, task.pid, "status"))
    uid = int(uids[1]) & 0xFFFFFFFF if uids else Path(proc, str(task.pid)).stat().st_uid
    comm = read_process_stat(proc, task.pid).comm
    # A NUL ends each argument. A program that changes its title may write spaces in their place.
    words = os.fsdecode(_read(proc, task.pid, "cmdline")).rstrip("\0 ").split("\0")
    program = os.path.basename(words[0] if len(words) > 1 else words[0].partition(" ")[0])
    is_cut_off = len(os.fsencode(comm)) == _COMM_LENGTH and program.startswith(comm)
    return program if is_cut_off else comm, " ".join(words), uid


def _read(proc: str, pid: int, name: str) -> bytes:
    """Return a file of a process; empty if it cannot be read."""
    try:
        return Path(proc, str(pid), name).read_bytes()
    except OSError:
        return b""


_UIDS = re.compile(rb"^Uid:\t(\d{1,10})", re.MULTILINE)
_COMM_LENGTH = 15
"""TASK_COMM_LEN without the NUL (include/linux/sched.h)."""


@cache
def _user(uid: int) -> str:
    """Return the user's name, or the uid as text. Cached, as the answer may come from the network (NSS)."""
    try:
        return printable(pwd.getpwuid(uid).pw_name, _NAME_LIMIT)
    except KeyError:
        return str(uid)


@cache
def _boot_time() -> float:
    """Return when the host was booted. /proc/stat says it too, but the mount option subset=pid hides it."""
    return time() - clock_gettime(CLOCK_BOOTTIME)
