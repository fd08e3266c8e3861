"""The place of the sockets: a network namespace with its own hash table, and a PID namespace."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests import lab

_ALONE = "TCPWATCH_BENCHMARK_ALONE"
_UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--")


def run_alone() -> int | None:
    """Run this program again in a PID namespace and return its exit code; None if it is in one, or cannot be.

    There /proc shows the benchmark's processes only: attribution and `ss -p` would have to read the descriptors of
    others. However the benchmark ends, the kernel ends all its processes with it.
    """
    if os.environ.get(_ALONE) or subprocess.run([*_UNSHARE, "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        return None
    command = [*_UNSHARE, sys.executable, *sys.argv]
    try:
        return subprocess.run(command, env=os.environ | {_ALONE: "1"}, check=False).returncode
    except KeyboardInterrupt:
        return 130


@contextmanager
def own_place() -> Iterator[lab.Namespace]:
    """Enter a fresh namespace whose hash table holds only its own sockets, and is as large as the machine's.

    By default namespaces share one table, and a dump walks past the sockets of all of them: 200,000 elsewhere cost
    17 ms. The size is set in the surrounding namespace (kernel 6.1, ip-sysctl: tcp_child_ehash_entries); older kernels
    share the table.
    """
    with lab.Namespace() as around:
        with suppress(FileNotFoundError):
            size = abs(int(around.sysctl("net.ipv4.tcp_ehash_entries")))  # negative: the shared table has that size
            around.sysctl("net.ipv4.tcp_child_ehash_entries", size)
        with lab.Namespace() as inside:
            yield inside
