"""`python -m benchmarks.support.crowd KIND FIRST COUNT`: sockets or processes of one kind until stdin ends.

KIND is `calls` (attempts to connect to distinct destinations that do not answer) or `processes` (each with a listening
socket). It prints "ready" when all are there; the pipe is closed however the benchmark ends.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.support.holder import most_sockets
from benchmarks.support.sockets import PROJECT
from tests import lab
from tests.lab.wire.peer import make_device

_PORT = 5432
_FIRST_PORT = 2_000


@contextmanager
def calls(namespace: lab.Namespace, count: int) -> Iterator[None]:
    """Leave so many sockets in SYN_SENT, each toward a destination of its own, on a device that nobody reads."""
    namespace.sysctl("net.ipv4.tcp_syn_retries", 30)
    device = make_device(namespace, "silent0")
    with ExitStack() as stack:
        stack.callback(os.close, device)
        for first in range(0, count, most_sockets()):
            stack.enter_context(_process("calls", first, min(most_sockets(), count - first)))
        yield


@contextmanager
def processes(count: int) -> Iterator[None]:
    """Start so many processes, each with a listening socket."""
    with _process("processes", 0, count):
        yield


@contextmanager
def _process(kind: str, first: int, count: int) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.support.crowd", kind, str(first), str(count)]
    with subprocess.Popen(
        command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"a process could not make its {kind}; see its output above")
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _call(first: int, count: int) -> None:
    for number in range(first, first + count):
        sock = socket.socket()
        sock.setblocking(False)
        if (error := sock.connect_ex((f"198.19.{number >> 8}.{number & 255}", _PORT))) != errno.EINPROGRESS:
            raise OSError(error, os.strerror(error))
        sock.detach()


def _fork(count: int) -> None:
    for number in range(count):
        if os.fork() == 0:
            listener = socket.create_server(("127.0.0.1", _FIRST_PORT + number), backlog=5)
            signal.pause()
            listener.close()


def main() -> None:
    """Make them, print "ready", and wait for the end of stdin."""
    kind, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if kind == "calls":
        _call(first, count)
    else:
        _fork(count)
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
