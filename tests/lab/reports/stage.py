"""A network namespace with sockets and processes, which all end with the test."""

import resource
import socket
import subprocess
import sys
from contextlib import ExitStack

from tests.lab.machine.namespace import Namespace
from tests.lab.wire.peer import Peer

LOOPBACK = "127.0.0.1"

Option = tuple[int, int, int]
"""Level, name and value of a socket option."""


class Stage:
    """Makes sockets in this process, and other processes; the stack of the caller ends them."""

    def __init__(self, namespace: Namespace, stack: ExitStack) -> None:
        self.namespace = namespace
        self._stack = stack

    def listen(self, port: int, backlog: int = 128, *options: Option) -> socket.socket:
        """Return a socket that listens on the loopback address."""
        listener = self.keep(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for option in options:
            listener.setsockopt(*option)
        listener.bind((LOOPBACK, port))
        listener.listen(backlog)
        return listener

    def connect(self, port: int, source: str = "", *options: Option, host: str = LOOPBACK) -> socket.socket:
        """Return a connection to that port; `source` is an address to bind() first."""
        client = self.keep(socket.socket())
        client.settimeout(5)
        for option in options:
            client.setsockopt(*option)
        if source:
            client.bind((source, 0))
        client.connect((host, port))
        return client

    def begin(self, port: int) -> socket.socket:
        """Return a socket that calls connect() and does not wait for the end of the handshake."""
        caller = self.keep(socket.socket())
        caller.setblocking(False)
        caller.connect_ex((LOOPBACK, port))
        return caller

    def pair(self, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
        """Return the client's and the server's end of a new connection."""
        client = self.connect(listener.getsockname()[1])
        return client, self.keep(listener.accept()[0])

    def process(self, script: str, *inherited: socket.socket, descriptors: int = 0) -> "subprocess.Popen[bytes]":
        """Run a Python script in a process of its own, and return when it has printed a line.

        The inherited sockets are `sockets` in the script. `descriptors` is a limit for the process.
        """

        def limit() -> None:
            if descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        numbers = [each.fileno() for each in inherited]
        begin = "import os, socket, sys, time\nsockets = [socket.socket(fileno=int(each)) for each in sys.argv[1:]]\n"
        command = [sys.executable, "-c", begin + script, *map(str, numbers)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=numbers, preexec_fn=limit)
        self._stack.callback(_end, process)
        assert process.stdout is not None
        assert process.stdout.readline(), "the process has failed"
        return process

    def peer(self) -> Peer:
        """Return scripted hosts behind a TUN device."""
        return self._stack.enter_context(Peer(self.namespace))

    def keep(self, opened: socket.socket) -> socket.socket:
        """Close this socket at the end, and return it."""
        return self._stack.enter_context(opened)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
