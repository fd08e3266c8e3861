"""Short connections over loopback at a steady rate, made by other processes: `with callers(rate, seconds) as made:`."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

PORT = 8080
SERVERS, CLIENTS = 1, 2
ADDRESSES = tuple(f"127.0.0.{last}" for last in range(1, 51))
"""Each address allows for one connection per ephemeral port and minute."""
_BURST_S = 0.01


@dataclass(slots=True)
class Made:
    """The connections made by the clients."""

    count: int = 0
    """Connections; each is two flows here, a client's and a server's."""
    seconds: float = 0.0
    _pipes: tuple[Connection, ...] = ()

    def wait(self) -> None:
        """Wait until all clients have finished."""
        for pipe in self._pipes:
            count, seconds = pipe.recv()
            self.count += count
            self.seconds = max(self.seconds, seconds)

    @property
    def going_on(self) -> bool:
        """Whether some client is still connecting."""
        return not all(pipe.poll() for pipe in self._pipes)

    @property
    def rate(self) -> float:
        """Connections per second."""
        return self.count / self.seconds if self.seconds else 0.0


@contextmanager
def callers(rate: float, seconds: float) -> Iterator[Made]:
    """Start servers that close first, and clients that connect to them, in the caller's network namespace."""
    context = multiprocessing.get_context("fork")
    processes: list[BaseProcess] = [context.Process(target=_serve, daemon=True) for _ in range(SERVERS)]
    pipes = []
    for _ in range(CLIENTS):
        here, there = context.Pipe(duplex=False)
        pipes.append(here)
        processes.append(context.Process(target=_call, args=(there, rate / CLIENTS, seconds), daemon=True))
    for process in processes:
        process.start()
    try:
        yield Made(_pipes=tuple(pipes))
    finally:
        for process in processes:
            process.kill()
            process.join()


def _serve() -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("0.0.0.0", PORT))
        listener.listen(4096)
        while True:
            client, _ = listener._accept()  # type: ignore[attr-defined]  # the descriptor alone costs half
            os.close(client)


def _call(done: Connection, rate: float, seconds: float) -> None:
    time.sleep(0.2)  # the servers listen
    begin = time.monotonic()
    count = 0
    while (now := time.monotonic() - begin) < seconds:
        due = int(now * rate) - count
        for _ in range(due):
            with socket.socket() as sock:
                sock.connect((ADDRESSES[count % len(ADDRESSES)], PORT))
                sock.recv(1)
            count += 1
        time.sleep(_BURST_S)
    done.send((count, time.monotonic() - begin))
