"""Endpoint: an address, with or without a port."""

from __future__ import annotations

from typing import NamedTuple

from tcpwatch import units


class Endpoint(NamedTuple):
    """An address as text, and the port unless all ports of the address are meant."""

    address: str
    port: int | None = None

    def __str__(self) -> str:
        """`192.0.2.1:443`, `[2001:db8::1]:443`, or the address alone."""
        return self.address if self.port is None else units.endpoint(self.address, self.port)

    @property
    def remote_filter(self) -> str:
        """Filter terms for the sockets whose remote end this is."""
        return f"raddr:{self.address}" + ("" if self.port is None else f" rport:{self.port}")
