"""Sysctls of TCP that limit what the counters count: name → value, per network namespace.

Sources: Documentation/networking/ip-sysctl.rst, Documentation/admin-guide/sysctl/net.rst. /proc/sys/net shows the
namespace of the thread that opens the file. tcp_mem and tcp_max_orphans exist in the initial namespace alone.
"""

from __future__ import annotations

from pathlib import Path

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


def read(proc_sys_net: Path = Path("/proc/sys/net")) -> dict[str, int]:
    """Return sysctl → value; a sysctl that does not exist or cannot be read is absent.

    A sysctl with several values has one entry for each: `ip_local_port_range_low`, `_high`; `tcp_mem_low`, `_pressure`,
    `_high` (pages).
    """
    values: dict[str, int] = {}
    for file, names in _FILES.items():
        try:
            words = (proc_sys_net / file).read_text().split()
        except OSError:
            continue  # not in this namespace or kernel: absent
        values.update(zip(names, map(int, words), strict=False))
    return values


def reserved_ports(proc_sys_net: Path = Path("/proc/sys/net")) -> tuple[tuple[int, int], ...]:
    """Return the first and last port of each range in ip_local_reserved_ports; empty if none or unreadable."""
    try:
        words = (proc_sys_net / "ipv4" / "ip_local_reserved_ports").read_text().strip()
    except OSError:
        return ()
    ranges = (word.partition("-") for word in words.split(",") if word)
    return tuple((int(first), int(last or first)) for first, _, last in ranges)
