"""IP addresses, endpoints, and the names of TCP ports."""

from __future__ import annotations

import functools
import re
import socket
from pathlib import Path

from tcpwatch.units.printable import printable

_SERVICE = re.compile(r"\s*([^\s#]+)\s+([0-9]{1,5})/tcp(?=[\s#]|$)")
_NAME_LIMIT = 32
_SERVICES = Path("/etc/services")
_MAPPED = b"\0" * 10 + b"\xff\xff"


def address(raw: bytes, family: int) -> str:
    """Return an address of inet_diag (16 bytes, IPv4 in the first four) as text; IPv4-mapped IPv6 is shown as IPv4."""
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[:4])
    if raw[:12] == _MAPPED:
        return socket.inet_ntop(socket.AF_INET, raw[12:16])
    return socket.inet_ntop(socket.AF_INET6, raw)


def endpoint(host: str, port: str | int, device: str = "") -> str:
    """Return `192.0.2.1:80`, `[2001:db8::1]:80`, or with a device `192.0.2.1%eth0:80`, `[fe80::1]%eth0:80`."""
    device = f"%{device}" if device else ""
    return f"[{host}]{device}:{port}" if ":" in host else f"{host}{device}:{port}"


def service(port: int) -> str:
    """Return the name of a TCP port in services(5), or its number if it has none."""
    return _services().get(port) or str(port)


@functools.cache
def _services() -> dict[int, str]:
    """Return port → name of /etc/services; getservbyport() would read the file again for each port."""
    try:
        lines = _SERVICES.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}  # a container without the file: ports keep their numbers
    named = filter(None, map(_SERVICE.match, reversed(lines)))
    return {int(line[2]): printable(line[1], _NAME_LIMIT) for line in named if int(line[2]) <= 0xFFFF}


@functools.lru_cache(256)
def service_port(name: str) -> int | None:
    """Return the TCP port of a service in services(5), or None if there is no such service."""
    try:
        return socket.getservbyname(name, "tcp")
    except (OSError, UnicodeError, ValueError):
        return None
