"""Numbers, durations and addresses for people; a leaf that every layer but `kernel/` may import."""

from __future__ import annotations

import functools
import socket
from pathlib import Path

UNKNOWN = "–"
"""Shown where a figure is not known: never 0, never a guess."""


def count(number: float | None, exact: bool = False) -> str:
    """A count: `8,212`, from a million on `1.23 M`."""
    if number is None:
        return UNKNOWN
    if exact or abs(number) < 1_000_000:
        return f"{number:,.0f}"
    return _scaled(number / 1000, 1000, "MGT")


def size(number: float | None, exact: bool = False) -> str:
    """Bytes: `512`, `65536`, from 100,000 on `98 k`, `1.21 M`, in powers of 1024."""
    if number is None:
        return UNKNOWN
    if exact or abs(number) < 100_000:
        return f"{number:.0f}"
    return _scaled(number, 1024, "kMGT")


def _scaled(number: float, base: int, units: str) -> str:
    """`number`, at least `base`, in the largest unit that leaves 1 of it: three digits, `1.23 M`, `98 k`."""
    value, power = number / base, 0
    while abs(value) >= base - 0.5 and power < len(units) - 1:
        value, power = value / base, power + 1
    digits = 0 if abs(value) >= 99.5 else 1 if abs(value) >= 9.95 else 2
    return f"{value:.{digits}f} {units[power]}"


def rate(per_second: float | None, signed: bool = False) -> str:
    """A rate without its unit: `0`, `0.2`, `38`, `1,200`; signed: `+38`, `-0.2`."""
    if per_second is None or per_second != per_second:
        return UNKNOWN
    if abs(per_second) < 0.05:
        return "0"
    digits = f"{per_second:,.1f}" if abs(per_second) < 9.95 else count(round(per_second))
    digits = digits.removesuffix(".0")
    return f"+{digits}" if signed and per_second > 0 else digits


def share(part: float | None, whole: float | None = 1.0) -> str:
    """A share in percent: `62 %`, `1.2 %`, `0.02 %`."""
    if part is None or not whole:
        return UNKNOWN
    percent = 100 * part / whole
    if percent == 0:
        return "0 %"
    digits = 0 if percent >= 9.95 else 1 if percent >= 0.995 else 2
    return f"{percent:.{digits}f} %"


def duration(seconds: float | None) -> str:
    """`0.2 s`, `12 s`, `3 m 02 s`, `2 h 05 m`, `4 d 03 h`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} m {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3_600} h {whole % 3_600 // 60:02} m"
    return f"{whole // 86_400} d {whole % 86_400 // 3_600:02} h"


def short_duration(ms: float | None) -> str:
    """Milliseconds in at most six characters, with two digits or three: `45 µs`, `1.2 ms`, `340 ms`, `12 s`, `17 m`."""
    if ms is None:
        return UNKNOWN
    unit, length_ms = next((unit for unit in _SHORT_UNITS if ms < 999.5 * unit[1]), _SHORT_UNITS[-1])
    value = ms / length_ms
    return f"{value:.0f} {unit}" if value >= 9.95 or unit == "µs" else f"{value:.1f} {unit}"


_SHORT_UNITS = (("µs", 0.001), ("ms", 1.0), ("s", 1_000.0), ("m", 60_000.0), ("h", 3_600_000.0))


def address(raw: bytes, family: int) -> str:
    """An address of inet_diag (16 bytes, IPv4 in the first four); IPv4-mapped IPv6 is shown as IPv4."""
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[:4])
    if raw[:12] == _MAPPED:
        return socket.inet_ntop(socket.AF_INET, raw[12:16])
    return socket.inet_ntop(socket.AF_INET6, raw)


_MAPPED = b"\0" * 10 + b"\xff\xff"


def endpoint(host: str, port: str | int) -> str:
    """`192.0.2.1:80`, `[2001:db8::1]:80`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def service(port: int) -> str:
    """The name of a TCP port as services(5) has it, else its number."""
    return _services().get(port) or str(port)


@functools.cache
def _services() -> dict[int, str]:
    """Port → name of /etc/services, read once: getservbyport reads it anew for each port."""
    try:
        lines = Path("/etc/services").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}  # a container without the file: ports keep their numbers
    words = (line.partition("#")[0].split() for line in lines)
    named = [(name, *number.split("/")) for name, number in (w[:2] for w in words if len(w) > 1)]
    return {int(port): name for name, port, protocol in reversed(named) if protocol == "tcp"}


@functools.lru_cache(256)
def service_port(name: str) -> int | None:
    """The TCP port of a service as services(5) has it; None where no service is called so."""
    try:
        return socket.getservbyname(name, "tcp")
    except (OSError, UnicodeError, ValueError):
        return None


def shortened(text: str, width: int) -> str:
    """`text` in at most `width` characters; the middle is left out, as both ends of an address say the most."""
    if len(text) <= width:
        return text
    if width <= 1:
        return "…"[:width]
    left = (width - 1) // 2
    return f"{text[:left]}…{text[len(text) - (width - 1 - left) :]}"
