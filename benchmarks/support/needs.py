"""Requirements of the benchmarks, checked before any socket is made."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from tests import lab

_ESTABLISHED_BYTES = 6_000
"""Approximate kernel memory of one socket with its file, inode and dentry, and its share of the holder process."""
_HALF_OPEN_BYTES = 1_500
"""Approximate kernel memory of one request socket, and the monitor's memory for its row."""


def missing(established: int, half_open: int, modules: tuple[str, ...], programs: tuple[str, ...]) -> str:
    """Return what the machine lacks, in one line; "" if it lacks nothing."""
    probes = [lab.namespaces, *(lab.program(name) for name in programs)]
    if half_open:
        probes.append(lab.tun)
    reasons = [probe() for probe in probes]
    reasons += [f"the Python module {name} is not installed" for name in modules if not importlib.util.find_spec(name)]
    reasons.append(_memory(established * _ESTABLISHED_BYTES + half_open * _HALF_OPEN_BYTES))
    return "; ".join(filter(None, reasons))


def _memory(needed: int) -> str:
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    if free > needed:
        return ""
    return f"{needed / 1e9:.1f} GB of memory are needed, {free / 1e9:.1f} GB are free; ask for fewer sockets"


def machine() -> str:
    """Return kernel version, number of processors and load, for the title of a report."""
    load = os.getloadavg()[0]
    return f"Linux {os.uname().release}, {os.cpu_count()} CPUs, load average at the start {load:.1f}"
