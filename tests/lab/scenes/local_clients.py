"""`python -m tests.lab.scenes.local_clients SCENE FAMILY NAME`: clients on the same host, over loopback."""

import socket
import time
from contextlib import ExitStack

from tests.lab.scenes import actor
from tests.lab.scenes.parts import LocalClients

_SOURCES = 8  # source addresses: the host has 28,232 ephemeral ports for each of them
_AT_ONCE = 20
_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h: connect() chooses the port, as it knows the remote end
_REQUEST = b"a few bytes"


def visit(port: int, number: int) -> None:
    """Let _AT_ONCE clients connect, ask, read the answer and close together."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(_connect(port, number + index)) for index in range(_AT_ONCE)]
        for client in sockets:
            client.sendall(_REQUEST)
        for client in sockets:
            if client.recv(100) != _REQUEST:
                raise RuntimeError("the server did not answer")


def _connect(port: int, number: int) -> socket.socket:
    client = socket.socket()
    client.settimeout(5)
    client.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    client.bind((f"127.0.0.{2 + number % _SOURCES}", 0))
    client.connect(("127.0.0.1", port))
    return client


def play(kind: LocalClients) -> None:
    """Let clients visit until the part is over; delays are not made up for."""
    pause_s = _AT_ONCE / kind.per_s
    due = time.monotonic()
    number = 0
    while not actor.is_over(due - time.monotonic()):
        visit(kind.port, number)
        number += _AT_ONCE
        due = max(due + pause_s, time.monotonic())


def main() -> None:
    (kind,) = actor.part().scene.local_clients
    actor.say_ready()
    play(kind)


if __name__ == "__main__":
    main()
