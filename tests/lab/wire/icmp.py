"""ICMP errors (RFC 792, RFC 4443) about a segment: what a router, a firewall or a host without a listener answers."""

import socket
import struct
from enum import Enum

from tests.lab.wire.packets import Segment, addresses, checksum, ip_header

_UNREACHABLE = {4: (socket.IPPROTO_ICMP, 3), 6: (socket.IPPROTO_ICMPV6, 1)}  # protocol, type


class Unreachable(Enum):
    """Destination unreachable: its codes in IPv4 and in IPv6."""

    HOST = 1, 3
    PORT = 3, 4
    PROHIBITED = 13, 1


def unreachable(segment: Segment, why: Unreachable) -> bytes:
    """Return the packet to the sender of `segment`, from the address that the segment was sent to."""
    family = segment.family
    protocol, type_ = _UNREACHABLE[family]
    ends = addresses(segment.destination, segment.source)
    body = struct.pack("!BBHI", type_, why.value[family == 6], 0, 0) + segment.pack()
    summed = ends + struct.pack("!II", len(body), protocol) + body if family == 6 else body
    body = body[:2] + checksum(summed).to_bytes(2) + body[4:]
    return ip_header(ends, protocol, len(body)) + body
