"""IP addresses, endpoints, and the names of TCP ports."""

from __future__ import annotations

import functools
import re
import socket
from pathlib import Path

from tcpwatch.units.printable import printable

_SERVICE = re.compile(r"\s*([^\s#]+)\s+([0-9]{1,5})/tcp(?=[\s#]|$)([^#]*)")
"""Name, port and aliases (services(5))."""
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
    return _services()[0].get(port) or str(port)


def service_port(name: str) -> int | None:
    """Return the TCP port of a service in services(5), or None if there is no such service; aliases count, too."""
    return _services()[1].get(name)


@functools.cache
def _services() -> tuple[dict[int, str], dict[str, int]]:
    """Return port → name and name → port of /etc/services.

    getservbyport(3) and getservbyname(3) would read it each time, and may ask a name service that does not answer.
    """
    try:
        lines = _SERVICES.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}, {}  # a container without the file: ports keep their numbers
    found = filter(None, map(_SERVICE.match, reversed(lines)))  # of several lines the first one counts
    services = [(line[1], int(line[2]), line[3].split()) for line in found if int(line[2]) <= 0xFFFF]
    names = {port: printable(name, _NAME_LIMIT) for name, port, _ in services}
    return names, {spelling: port for name, port, aliases in services for spelling in (name, *aliases)}
