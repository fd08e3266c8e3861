"""`python -m benchmarks.support.listening ADDRESS PORT SOCKETS`: listen on SOCKETS ports from PORT on until stdin ends.

It prints "ready" when all are open; the pipe is closed however the benchmark ends.
"""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.support.holder import most_sockets


@contextmanager
def listening(sockets: int) -> Iterator[int]:
    """Listen on as many ports, in as many processes as are necessary; yields the number of processes."""
    each, pipe, holders = most_sockets(), subprocess.PIPE, []
    try:
        for first in range(0, sockets, each):
            command = [sys.executable, "-m", "benchmarks.support.listening", "127.0.0.1", str(_FIRST_PORT + first)]
            command.append(str(min(each, sockets - first)))
            folder = Path(__file__).parents[2]
            holders.append(subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, text=True))
        for holder in holders:
            assert holder.stdout is not None
            if holder.stdout.readline() != "ready\n":
                raise RuntimeError("a process could not open its listeners; see its output above")
        yield len(holders)
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()


_FIRST_PORT = 1_100


def main() -> None:
    """Open the listeners, print "ready", and wait for the end of stdin."""
    address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kept = [socket.create_server((address, port + at), backlog=5) for at in range(count)]
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(len(kept) == 0)  # the kernel closes the descriptors faster than the interpreter


if __name__ == "__main__":
    main()
