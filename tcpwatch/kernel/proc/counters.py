"""The kernel's TCP counters from /proc/net/{netstat,snmp,sockstat,sockstat6}: name → value.

Names are the kernel's: `ActiveOpens` (Tcp in snmp), `ListenOverflows` (TcpExt in netstat), and for sockstat the
protocol before the name: `TCP_inuse`, `TCP_orphan`, `TCP6_inuse`, ... A counter that this kernel lacks is absent.
Sources: proc_net(5), Documentation/networking/snmp_counter.rst.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from tcpwatch.kernel.proc.numbers import kernel_numbers, kernel_text, unexpected_content

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
            values |= parse(kernel_text(f"{proc_net}/{name}"), head)
        except ValueError:
            errors.append(unexpected_content(proc_net / name))
        except OSError as error:
            if name != "sockstat6" or not isinstance(error, FileNotFoundError):  # absent if IPv6 is disabled
                errors.append(error)
    return values, tuple(errors)


@lru_cache(4)  # on a quiet host most texts are those of the poll before
def _paired(text: str, head: str) -> dict[str, int]:
    """Parse pairs of lines that start with `head`: names, then values. Raises ValueError if they do not match."""
    lines = [line.split() for line in text.splitlines() if line.startswith(head)]
    values: dict[str, int] = {}
    for names, words in zip(lines[::2], lines[1::2], strict=True):
        values.update(zip(names[1:], _numbers(words[1:]), strict=True))
    return values


def _alternating(text: str, head: str) -> dict[str, int]:
    """Parse a line `HEAD: name value name value ...`. Raises ValueError for anything else behind HEAD."""
    for line in text.splitlines():
        protocol, *words = line.split() or [""]
        if protocol == head:
            names = (f"{protocol[:-1]}_{word}" for word in words[::2])
            return dict(zip(names, _numbers(words[1::2]), strict=True))
    return {}


def _numbers(words: list[str]) -> list[int]:
    numbers = kernel_numbers(words)
    if numbers is None:
        raise ValueError(words)
    return numbers


_FILES = (
    ("snmp", _paired, "Tcp:"), ("netstat", _paired, "TcpExt:"), ("sockstat", _alternating, "TCP:"),
    ("sockstat6", _alternating, "TCP6:"),
)  # fmt: skip
"""Name, parser, and beginning of the lines."""
