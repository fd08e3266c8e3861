"""Sysctls of TCP that limit what the counters count: name → value, per network namespace.

Sources: Documentation/networking/ip-sysctl.rst, Documentation/admin-guide/sysctl/net.rst. /proc/sys/net shows the
namespace of the thread that opens the file. tcp_mem and tcp_max_orphans exist in the initial namespace alone.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from tcpwatch.kernel.proc.numbers import kernel_number, kernel_numbers, kernel_text, unexpected_content

_IPV4 = (
    "tcp_max_tw_buckets", "tcp_syncookies", "tcp_max_syn_backlog", "tcp_synack_retries", "tcp_tw_reuse",
    "tcp_tw_reuse_delay", "tcp_fin_timeout", "tcp_abort_on_overflow", "tcp_max_orphans", "tcp_timestamps",
)  # fmt: skip
_FILES = {
    **{f"ipv4/{name}": (name,) for name in _IPV4},
    "core/somaxconn": ("somaxconn",),
    "ipv4/ip_local_port_range": ("ip_local_port_range_low", "ip_local_port_range_high"),
    "ipv4/tcp_mem": ("tcp_mem_low", "tcp_mem_pressure", "tcp_mem_high"),
}
"""File → the names of its values."""


def read(proc_sys_net: Path = Path("/proc/sys/net")) -> tuple[dict[str, int], tuple[OSError, ...]]:
    """Return sysctl → value, and an error for each file with other content than numbers.

    A sysctl that does not exist or cannot be read is absent.
    A sysctl with several values has one entry for each: `ip_local_port_range_low`, `_high`; `tcp_mem_low`, `_pressure`,
    `_high` (pages).
    """
    values: dict[str, int] = {}
    errors: list[OSError] = []
    for file, names in _FILES.items():
        try:
            numbers = _numbers(kernel_text(f"{proc_sys_net}/{file}"))
        except OSError:
            continue  # not in this namespace or kernel: absent
        if len(numbers) == len(names):
            values.update(zip(names, numbers, strict=True))
        else:
            errors.append(unexpected_content(proc_sys_net / file))
    return values, tuple(errors)


def reserved_ports(proc_sys_net: Path = Path("/proc/sys/net")) -> tuple[tuple[int, int], ...]:
    """Return the first and last port of each range in ip_local_reserved_ports.

    Raises OSError if the file cannot be read, or has other content than ranges of ports.
    """
    path = proc_sys_net / "ipv4" / "ip_local_reserved_ports"
    ranges = _ranges(kernel_text(str(path)).strip())
    if ranges is None:
        raise unexpected_content(path)
    return ranges


# The texts hardly ever change.


@lru_cache(64)
def _numbers(text: str) -> tuple[int, ...]:
    """Return the numbers in a text; empty if it has other words."""
    return tuple(kernel_numbers(text.split()) or ())


@lru_cache(1)
def _ranges(words: str) -> tuple[tuple[int, int], ...] | None:
    """Return the ranges of ports; None if the text has anything else."""
    ranges = []
    for word in filter(None, words.split(",")):
        first, _, last = word.partition("-")
        low, high = kernel_number(first), kernel_number(last or first)
        if low is None or high is None or not 0 <= low <= high <= 0xFFFF:
            return None
        ranges.append((low, high))
    return tuple(ranges)
