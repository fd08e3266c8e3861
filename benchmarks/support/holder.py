"""`python -m benchmarks.support.holder ADDRESS SOCKETS`: hold established connections over loopback until stdin ends.

Both ends are in this process, so SOCKETS is twice the number of connections. One more socket listens. It prints "ready"
when all are open. The pipe is closed however the benchmark ends, so no holder outlives it.
"""

from __future__ import annotations

import os
import resource
import socket
import sys

_SPARE = 64
"""Descriptors kept free for other uses."""


def most_sockets() -> int:
    """Return how many sockets one process may hold."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] - _SPARE


def main() -> None:
    """Open the connections, print "ready", and wait for the end of stdin."""
    address, count = sys.argv[1], int(sys.argv[2])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listener = socket.create_server((address, 0), backlog=128)
    for _ in range(count // 2):
        _open(listener)
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)  # the kernel closes the descriptors faster than the interpreter


def _open(listener: socket.socket) -> None:
    client = socket.socket()
    client.connect(listener.getsockname())
    server, _ = listener.accept()
    client.detach()
    server.detach()


if __name__ == "__main__":
    main()
