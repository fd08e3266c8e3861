"""What a View holds does not change while the monitor polls on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from tcpwatch.kernel import name_cache
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.sources.base import Source
from tcpwatch.sources.live import LiveSource
from tcpwatch.sources.psutil import PsutilSource
from tests import lab
from tests.support.fingerprint import Leaf, leaves

STEPS = 4
CLIENT = """
import os, socket, sys
"".encode("idna")  # imported here, as the next user may not be able to
os.setuid(int(sys.argv[2]))
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
idle = socket.socket(); idle.bind(("127.0.0.1", 0)); idle.listen(1)
print(flush=True)
sys.stdin.read()
"""


def live() -> Source:
    return LiveSource(watch_queues=True, ask_infos=True, events=True)


@contextmanager
def client(port: int, uid: int) -> Iterator[None]:
    """A process of another user with a connection and a listener."""
    command = [sys.executable, "-c", CLIENT, str(port), str(uid)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline()
        yield
        process.communicate(timeout=60)


@pytest.mark.parametrize("source", [live, PsutilSource])
def test_views_do_not_change(
    source: Callable[[], Source], namespace: lab.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.getuid():
        pytest.skip("needs root, to become other users")
    monkeypatch.setattr(name_cache, "user_name", lambda uid: f"user{uid}")
    views: list[tuple[View, list[Leaf]]] = []
    with ExitStack() as stack:
        server = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        port = server.getsockname()[1]
        monitor = Monitor(source())
        stack.callback(monitor.close)
        for step in range(STEPS):
            stack.enter_context(client(port, 1_000 + step))
            accepted, _ = server.accept()
            stack.callback(accepted.close)
            with closing(socket.create_connection(("127.0.0.1", port))) as short, closing(server.accept()[0]):
                short.send(b"x")
            view = monitor.step()
            monitor.watched = frozenset(view.rows.cookie.tolist())
            monitor.watched_queue = view.listeners[0].key
            views.append((view, list(leaves(view))))
    for view, before in views:
        assert list(leaves(view)) == before
