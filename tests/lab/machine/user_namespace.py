"""Let an ordinary user make network namespaces, with a user namespace for this process."""

import functools
import os
from pathlib import Path

from tests.lab.machine.syscalls import CLONE_NEWNET, CLONE_NEWUSER, bring_up, unshare

# linux/capability.h
_CAP_NET_ADMIN = 12
_CAP_SYS_ADMIN = 21


@functools.cache
def enter_user_namespace() -> str:
    """Let the process create network namespaces; return "", or the reason why it cannot.

    With privileges (root) nothing is done. Otherwise the process moves, for good, into a user
    namespace in which it is root, and into a network namespace owned by that one, so that coming
    back to it by setns is allowed. From then on os.geteuid() is 0.

    The kernel allows this only to a process of one thread (user_namespaces(7)), and numpy starts
    threads when it is imported: call this first, in the topmost conftest.py. Only the first call
    does anything, later calls repeat its answer.
    """
    if _has_capabilities():
        return ""
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        return f"no user namespace: the process already has {threads} threads"
    try:
        _become_root_of_own_namespaces()
    except OSError as error:
        return f"no user namespace: {error}"
    return ""


def _has_capabilities() -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    wanted = 1 << _CAP_SYS_ADMIN | 1 << _CAP_NET_ADMIN
    return effective & wanted == wanted


def _become_root_of_own_namespaces() -> None:
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER | CLONE_NEWNET)
    # Without privilege the group map may be written only after setgroups is denied.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    bring_up("lo")
