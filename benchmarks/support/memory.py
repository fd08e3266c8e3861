"""`python -m benchmarks.support.memory STEPS`: print the memory that a Monitor takes, as JSON.

It runs in a process of its own, so that nothing else counts.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.support.sockets import PROJECT
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes in addition to those before the source was opened."""

    sockets: int
    steady: int
    """VmRSS after the last step; the last View is alive, as in the UI."""
    peak: int
    """VmHWM."""


def measure(steps: int) -> Memory:
    """Measure with the sockets of the current namespace, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.support.memory", str(steps)]
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True)
    return Memory(**json.loads(done.stdout))


def _here(steps: int) -> Memory:
    gc.collect()
    before = status("VmRSS")
    monitor = Monitor(LiveSource())
    view = monitor.step()
    for _ in range(steps - 1):
        view = monitor.step()  # the View before is alive until this one is there
    return Memory(len(view.sample.cookie), status("VmRSS") - before, status("VmHWM") - before)


def status(name: str, pid: int | str = "self") -> int:
    """Return a figure of /proc/PID/status, such as VmRSS, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    print(json.dumps(asdict(_here(int(sys.argv[1])))))
