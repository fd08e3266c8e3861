"""Memory of the program while connections come faster than it polls: a bound that does not depend on their number."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from contextlib import closing, nullcontext
from pathlib import Path

import numpy as np
import pytest

from tcpwatch.kernel.trace import tracepoint_reader
from tcpwatch.model.lifecycle.transitions import Origin
from tcpwatch.model.states import State
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.lab import storm
from tests.lab.machine.requirements import tracefs
from tests.support.program import start, trace_instances_of

PROMISED_MIB, HISTORY_MIB = 150, 1
STORM_S = 6.0
ROOM = 80_000
"""Trace events."""


def largest_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    return int(found[1]) / 1024 if found else 0.0  # a process that has ended


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in another namespace"])
def test_the_bound_holds_whatever_the_number_of_connections(elsewhere: bool, environ: dict[str, str]) -> None:
    """One poll has the events of all connections: before, memory was 200 MiB after 20,000 of them, and grew on."""
    lab.require(lab.namespaces, tracefs, storm.io_uring)
    interval_s = str(STORM_S + 2)
    arguments = ["events", "--json", "--memory", str(HISTORY_MIB), "--interval", interval_s, "--for", interval_s]
    with lab.Namespace() as here:
        here.sysctl("net.ipv4.tcp_max_tw_buckets", 1_000)
        with start(arguments, environ, stdout=subprocess.DEVNULL) as program:
            lab.wait_until(lambda: trace_instances_of(program.pid), "the trace")
            with lab.Namespace() if elsewhere else nullcontext(here) as place:
                place.sysctl("net.ipv4.tcp_max_tw_buckets", 1_000)
                made, _ = storm.finish(storm.start(1e6, STORM_S))
            largest: list[float] = []
            while program.poll() is None:
                largest.append(largest_mib(program.pid))
                time.sleep(0.01)
    assert made > 0
    assert 30 < max(largest) <= PROMISED_MIB + HISTORY_MIB


def test_nothing_of_ours_is_lost_while_another_namespace_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace has the events of all namespaces, and room for a part of them only."""
    lab.require(lab.namespaces, tracefs, storm.io_uring)
    monkeypatch.setattr(tracepoint_reader, "_KEPT", ROOM)
    count = 0
    with lab.Namespace() as here, closing(Monitor(LiveSource(events=True, trace=True))) as monitor:
        assert here
        monitor.step()
        with lab.Namespace() as other:
            other.sysctl("net.ipv4.tcp_max_tw_buckets", 1_000)
            process = storm.start(4_000, 5.0)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            while process.poll() is None:
                with socket.create_connection(listener.getsockname()) as client, listener.accept()[0]:
                    client.send(b"hello")
                count += 1
                time.sleep(0.005)
        made, _ = storm.finish(process)
        view = monitor.step()
        lab.wait_until(lambda: monitor.step().trace.foreign_sockets >= 2 * made, "that all of the others are foreign")
        view = monitor.step()
    assert 10 * made > 1.5 * ROOM, "there was no room for all events"
    assert (view.archive.ended_ever, view.trace.destroy_events_lost) == (2 * count, 0)
    assert view.trace.events_lost < 0.75 * (12 * made - ROOM), "all that there was no room for"
    if view.trace.events_lost:  # the tracing thread had to wait for a processor
        return
    records = np.concatenate(view.archive.records)
    seen = {int(cookie) for cookie in records["cookie"]}
    traced = view.archive.transitions_of(seen)
    opened = [any(one.origin is Origin.TRACE and one.new is State.ESTABLISHED for one in traced[each]) for each in seen]
    assert len(opened) == 2 * count and all(opened)
