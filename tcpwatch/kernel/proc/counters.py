"""The kernel's TCP counters from /proc/net/{netstat,snmp,sockstat,sockstat6}: name → value.

Names are the kernel's: `ActiveOpens` (Tcp in snmp), `ListenOverflows` (TcpExt in netstat), and for sockstat the
protocol before the name: `TCP_inuse`, `TCP_orphan`, `TCP6_inuse`, ... A counter that this kernel lacks is absent.
Sources: proc_net(5), Documentation/networking/snmp_counter.rst.
"""

from __future__ import annotations

from pathlib import Path

from tcpwatch.kernel.proc.numbers import kernel_number, unexpected_content

SOCKSTAT_PREFIX = ("TCP_", "TCP6_")
GAUGES = frozenset({"RtoAlgorithm", "RtoMin", "RtoMax", "MaxConn", "CurrEstab"})
"""Names in Tcp that are not counters: they may fall, and have no rate. Neither have names with a SOCKSTAT_PREFIX."""


def is_gauge(name: str) -> bool:
    """Return whether a value is a current level, not a sum."""
    return name in GAUGES or name.startswith(SOCKSTAT_PREFIX)


def read(proc_net: Path) -> tuple[dict[str, int], tuple[OSError, ...]]:
    """Return all counters of /proc/net or /proc/PID/net, and an error for each file that cannot be read."""
    values: dict[str, int] = {}
    errors: list[OSError] = []
    for name, parse, head in _FILES:
        try:
            values |= parse((proc_net / name).read_text(encoding="utf-8", errors="replace"), head)
        except ValueError:
            errors.append(unexpected_content(proc_net / name))
        except OSError as error:
            if name != "sockstat6" or not isinstance(error, FileNotFoundError):  # absent if IPv6 is disabled
                errors.append(error)
    return values, tuple(errors)


def _paired(text: str, head: str) -> dict[str, int]:
    """Parse pairs of lines that start with `head`: names, then values. Raises ValueError if they do not match."""
    lines = [line.split() for line in text.splitlines() if line.startswith(head)]
    return {
        name: _number(value)
        for names, values in zip(lines[::2], lines[1::2], strict=True)
        for name, value in zip(names[1:], values[1:], strict=True)
    }


def _alternating(text: str, head: str) -> dict[str, int]:
    """Parse a line `HEAD: name value name value ...`. Raises ValueError for anything else behind HEAD."""
    for line in text.splitlines():
        protocol, *words = line.split() or [""]
        if protocol == head:
            names = (f"{protocol[:-1]}_{word}" for word in words[::2])
            return dict(zip(names, map(_number, words[1::2]), strict=True))
    return {}


def _number(word: str) -> int:
    number = kernel_number(word)
    if number is None:
        raise ValueError(word)
    return number


_FILES = (
    ("snmp", _paired, "Tcp:"), ("netstat", _paired, "TcpExt:"), ("sockstat", _alternating, "TCP:"),
    ("sockstat6", _alternating, "TCP6:"),
)  # fmt: skip
"""Name, parser, and beginning of the lines."""
