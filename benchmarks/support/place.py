"""Where the sockets are made: a network namespace with a hash table of its own, among processes of our own."""

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
    """Run this program again in a PID namespace and give its exit code; None where it is in one, or cannot be.

    There /proc shows the benchmark's processes and no others, whose descriptors attribution and `ss -p` would have to
    read, and whatever ends the benchmark, the kernel ends all its processes with it.
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
    """Enter a fresh namespace whose hash table holds its own sockets only, and is as large as the machine's.

    Namespaces share one table unless told otherwise, and a dump walks past the sockets of all of them: 200,000
    elsewhere cost 17 ms. Its size is told to the namespace around it (kernel 6.1, ip-sysctl:
    tcp_child_ehash_entries); older kernels share.
    """
    with lab.Namespace() as around:
        with suppress(FileNotFoundError):
            size = abs(int(around.sysctl("net.ipv4.tcp_ehash_entries")))  # negative: another's table of that size
            around.sysctl("net.ipv4.tcp_child_ehash_entries", size)
        with lab.Namespace() as inside:
            yield inside
