"""Source: the interface of sources of samples, and functions that several sources share."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Protocol

from tcpwatch.kernel import privileges
from tcpwatch.kernel.netlink.decode_sockets import MessageError
from tcpwatch.kernel.proc import counters, sysctl
from tcpwatch.kernel.proc.process import command_lines_block
from tcpwatch.kernel.user_names import lookups_block
from tcpwatch.sample import Sample, SourceInfo


class SourceError(Exception):
    """Raised when no sample can be taken; the text is one line with the reason and a remedy."""


class Source(Protocol):
    """Delivers samples. Not thread-safe: one thread calls it."""

    info: SourceInfo

    def sample(self, watched: Iterable[int] = ()) -> Sample:
        """Take a sample, with tcp_info of the watched cookies. Raises SourceError."""

    def close(self) -> None:
        """Release files and threads."""


PROC_NET = Path("/proc/self/net")
"""/proc/net is a link to it, which the mount option subset=pid hides."""


NAMESPACE_SEARCH_S = 0.2
"""Longest search for other network namespaces in one sample, for front ends that draw once."""


def privilege() -> Literal["root", "user"]:
    """Return whether this process may read every other process: root of a container may not."""
    held = privileges.effective()
    readable = privileges.SYS_PTRACE in held and held & {privileges.DAC_READ_SEARCH, "CAP_DAC_OVERRIDE"}
    return "root" if os.geteuid() == 0 and readable else "user"


def reason_of(error: Exception) -> str:
    """Return one line on why something cannot be read, without the number of the error."""
    if isinstance(error, SourceError):
        return str(error)
    if isinstance(error, MessageError):
        return f"unexpected answer from sock_diag: {error}"
    if isinstance(error, OSError) and (words := error.strerror or str(error)):
        return f"{error.filename}: {words}" if error.filename else words
    return ": ".join(filter(None, (type(error).__name__, str(error))))


def unanswered_names() -> tuple[str, ...]:
    """Return which names were left out since the last call because reading them blocks, in words."""
    commands, users = command_lines_block(), lookups_block()
    return (*["some command lines not read: blocked"] * commands, *["some user names not read: blocked"] * users)


def try_read_counters(proc_net: Path = PROC_NET) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return the kernel's counters, and in words which files of them cannot be read."""
    values, errors = counters.read(proc_net)
    some, errors = ("not all", errors) if values else ("no", errors[:1])
    return values, tuple(f"{some} counters ({error.filename}: {error.strerror})" for error in errors)


def try_read_sysctls(
    proc_sys_net: Path = Path("/proc/sys/net"),
) -> tuple[dict[str, int], tuple[tuple[int, int], ...], tuple[str, ...]]:
    """Return the sysctls of TCP, the ranges of reserved ports, and in words what of them cannot be read."""
    values, errors = sysctl.read(proc_sys_net)
    if not values and not errors:
        return values, (), (f"no sysctls ({proc_sys_net} is not visible)",)
    reserved: tuple[tuple[int, int], ...] = ()
    try:
        reserved = sysctl.reserved_ports(proc_sys_net)
    except OSError as error:
        errors += (error,)
    return values, reserved, tuple(f"not all sysctls ({error.filename}: {error.strerror})" for error in errors)
