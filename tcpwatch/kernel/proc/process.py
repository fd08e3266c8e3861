"""Facts about one process from /proc: identity, name, command line and user (proc(5))."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from time import CLOCK_BOOTTIME, clock_gettime, time

from tcpwatch.blocking import BlockingCalls, Unanswered
from tcpwatch.kernel.proc.numbers import kernel_number
from tcpwatch.kernel.user_names import user_name
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
    `pending` is whether the command line or the user's name was not read yet, because that blocks.
    """

    pid: int
    name: str
    command: str
    uid: int
    user: str
    started_unix_s: float
    pending: bool = False

    @property
    def label(self) -> str:
        """Name and pid: `nginx[1234]`."""
        return f"{self.name}[{self.pid}]"


def read_process_stat(proc: str, pid: int) -> ProcessStat:
    """Read /proc/PID/stat. Raises PROCESS_ENDED_ERRORS, or PermissionError under the mount option hidepid=1.

    A text that is not what proc(5) says also counts as one that may not be read.
    """
    text = os.fsdecode(_content(f"{proc}/{pid}/stat"))
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
        uids = _UIDS.search(_content_or_nothing(f"{proc}/{task.pid}/status"))
        uid = int(uids[1]) & 0xFFFFFFFF if uids else Path(proc, str(task.pid)).stat().st_uid
        words, has_command = _command_words(f"{proc}/{task.pid}/cmdline", task.start_ticks, uid)
        now = read_process_stat(proc, task.pid)
    except (*PROCESS_ENDED_ERRORS, PermissionError):
        return None
    if now.start_ticks != task.start_ticks:
        return None  # the pid was reused in the meantime: the facts may be of another process
    user, has_user = _user(uid)
    return Process(
        pid=task.pid,
        name=printable(_name(now.comm, words), _NAME_LIMIT),
        command=printable(" ".join(words)),
        uid=uid,
        user=user,
        started_unix_s=_boot_time() + task.start_ticks / _TICKS_PER_S,
        pending=not (has_command and has_user),
    )


def command_lines_block() -> bool:
    """Return whether a command line is not known yet, since this was last asked."""
    return _command_lines.blocked()


_command_lines = BlockingCalls[bytes]()
"""The read waits for the mmap lock of the process, which its threads may hold for ever: a page fault on a file system
in user space is enough. One user's processes cannot prevent that those of others are read."""


def _command_words(path: str, start_ticks: int, uid: int) -> tuple[list[str], bool]:
    """Return the arguments, and False if they are not known yet."""
    try:
        content = _command_lines.answer((path, start_ticks), partial(_content_or_nothing, path), group=uid)
    except Unanswered:
        return [""], False
    # A NUL ends each argument. A program that changes its title may write spaces in their place.
    return os.fsdecode(content).rstrip("\0 ").split("\0"), True


def _name(comm: str, words: list[str]) -> str:
    """Return the name; that of the command line where the kernel has cut it off."""
    program = os.path.basename(words[0] if len(words) > 1 else words[0].partition(" ")[0])
    is_cut_off = len(os.fsencode(comm)) == _COMM_LENGTH and program.startswith(comm)
    return program if is_cut_off else comm


def _user(uid: int) -> tuple[str, bool]:
    """Return the name of the user or the uid as text, and False if the name is not known yet."""
    try:
        return user_name(uid) or str(uid), True
    except Unanswered:
        return str(uid), False


def _content(path: str) -> bytes:
    """Return the beginning of a file of /proc; the kernel makes it in one read(2)."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, _LONGEST)
    finally:
        os.close(file)


def _content_or_nothing(path: str) -> bytes:
    try:
        return _content(path)
    except OSError:
        return b""


_LONGEST = 1 << 15
_UIDS = re.compile(rb"^Uid:\t(\d{1,10})", re.MULTILINE)
_COMM_LENGTH = 15
"""TASK_COMM_LEN without the NUL (include/linux/sched.h)."""


@cache
def _boot_time() -> float:
    """Return when the host was booted. /proc/stat says it too, but the mount option subset=pid hides it."""
    return time() - clock_gettime(CLOCK_BOOTTIME)
