"""Opened and ended flows of each process agree, however a poll meets them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack, closing

import pytest

from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.lab.machine.requirements import tracefs

SERVER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 1080))
print(flush=True)
for _ in sys.stdin:
    with listener.accept()[0] as accepted:
        while accepted.recv(4096):
            pass
"""
"""Accepts a connection for each line, and reads until the client has closed."""
CONNECTIONS = 24


@pytest.mark.parametrize("trace", [True, False], ids=["trace", "no trace"])
def test_each_process_has_ended_what_it_opened(trace: bool) -> None:
    lab.require(lab.namespaces, *([tracefs] if trace else []))
    with ExitStack() as stack:
        stack.enter_context(lab.Namespace())
        command = [sys.executable, "-c", SERVER]
        server = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        stack.callback(server.kill)
        assert server.stdin
        assert server.stdout
        server.stdout.readline()
        monitor = stack.enter_context(closing(Monitor(LiveSource(events=True, trace=trace))))
        monitor.step()
        for number in range(CONNECTIONS):
            with socket.create_connection(("127.0.0.1", 1080)):
                if number % 4 == 1:  # seen before it is accepted
                    monitor.step()
                server.stdin.write(b"\n")
                server.stdin.flush()
                if number % 4 == 2:  # seen while it is open
                    monitor.step()
            if number % 4 == 3:  # seen in TIME_WAIT, or not at all
                monitor.step()
        view = lab.wait_until(lambda: ended(monitor), "the ends")[0]
        assert view.flow_totals
        totals, seconds = view.flow_totals, view.flow_totals.window_s
        counts = {
            one.name: (round(one.opened_per_s * seconds), round(one.ended_per_s * seconds))
            for one in (totals.all, *totals.by_process)
        }
    assert counts.pop("") == (2 * CONNECTIONS, 2 * CONNECTIONS)
    assert all(opened == over for opened, over in counts.values()), counts
    pids = {int(name.partition("[")[2].rstrip("]")) for name in counts}
    assert pids == {os.getpid(), server.pid}


def ended(monitor: Monitor) -> list[View]:
    view = monitor.step()
    return [view] if view.archive.ended_ever == 2 * CONNECTIONS else []
