"""Memory of the program while connections come faster than it polls: a bound that does not depend on their number."""

from __future__ import annotations

import re
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests import lab
from tests.lab import storm
from tests.lab.machine.requirements import tracefs
from tests.support.program import start, trace_instances_of

PROMISED_MIB, HISTORY_MIB = 150, 1
STORM_S = 6.0


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
