"""Netlink messages of sock_diag, written and read with struct: slow, and obviously what the headers say.

Sources: include/uapi/linux/{netlink,inet_diag}.h.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ERROR, DONE, GETSOCK, BY_FAMILY = 2, 3, 18, 20
REQUEST, DUMP, DUMP_INTR = 0x1, 0x300, 0x10
SHUTDOWN, SKV6ONLY, CGROUP_ID, SOCKOPT, SKMEMINFO, INFO, CONG = 8, 11, 21, 22, 7, 2, 4
TRANSPARENT = 0x20 if sys.byteorder == "little" else 0x04  # in the first byte of SOCKOPT
HEADER, BODY = struct.Struct("=IHHII"), struct.Struct("=BBBB2s2s16s16sIQIIIII")

CURRENT = 0xEEEEEEEE
"""Sequence number that FakeKernel replaces by that of the request."""

Attribute = tuple[int, bytes]


def message(
    kind: int,
    body: bytes,
    attributes: Sequence[Attribute] = (),
    *,
    flags: int = 2,
    sequence: int = CURRENT,
    pid: int = 0,
) -> bytes:
    """One message, padded to 4 bytes as netlink does."""
    payload = body + b"".join(attribute(*pair) for pair in attributes)
    return HEADER.pack(HEADER.size + len(payload), kind, flags, sequence, 0) + payload + padding(payload)


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + padding(payload)


def padding(data: bytes) -> bytes:
    return bytes(-len(data) % 4)


def body(
    *, family: int = 2, state: int = 1, sport: int = 80, dport: int = 4000, cookie: int = 1, rqueue: int = 0
) -> bytes:
    """A struct inet_diag_msg."""
    ports = (struct.pack("!H", sport), struct.pack("!H", dport))
    return BODY.pack(family, state, 0, 0, *ports, bytes(16), bytes(16), 0, cookie, 0, rqueue, 0, 0, 0)


def error(code: int, sequence: int = CURRENT) -> bytes:
    """NLMSG_ERROR: a negative errno, then the request's header."""
    return message(ERROR, struct.pack("=i", -code) + bytes(16), sequence=sequence)


def done(sequence: int = CURRENT) -> bytes:
    return message(DONE, bytes(4), sequence=sequence)


class Bad(Exception):
    """Not what the kernel documents."""


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """Expected content of a row of the socket table."""

    body: bytes
    cgroup_id: int
    shutdown: int
    has: int
    drops: int


def decode(data: bytes) -> tuple[list[Row], bool]:
    """The rows of a chain of socket messages, and whether one is marked interrupted. Raises Bad."""
    rows, interrupted = [], False
    for kind, flags, payload in split(data):
        if kind not in (GETSOCK, BY_FAMILY) or len(payload) < BODY.size:
            raise Bad
        rows.append(row(payload))
        interrupted |= bool(flags & DUMP_INTR)
    return rows, interrupted


def split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and payload of each message. Raises Bad."""
    at = 0
    while at < len(data):
        if len(data) - at < HEADER.size:
            raise Bad
        length, kind, flags, _, _ = HEADER.unpack_from(data, at)
        if length < HEADER.size or at + length > len(data):
            raise Bad
        yield kind, flags, data[at + HEADER.size : at + length]
        at += length + -length % 4


def row(payload: bytes) -> Row:
    attrs = dict(attributes(payload[BODY.size :]))  # of two of a kind the last one counts, as in nla_parse
    cgroup, shutdown, memory = attrs.get(CGROUP_ID, b""), attrs.get(SHUTDOWN, b""), attrs.get(SKMEMINFO, b"")
    v6only, options = attrs.get(SKV6ONLY, b""), attrs.get(SOCKOPT, b"")
    transparent = bool(options and options[0] & TRANSPARENT)
    return Row(
        payload[: BODY.size],
        struct.unpack_from("=Q", cgroup)[0] if len(cgroup) >= 8 else 0,
        shutdown[0] if shutdown else 0,
        (len(cgroup) >= 8) * 1 | bool(shutdown) * 2 | any(v6only[:1]) * 4 | transparent * 8,
        struct.unpack_from("=I", memory, 32)[0] if len(memory) >= 36 else 0,
    )


def attributes(data: bytes) -> Iterator[Attribute]:
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4 or at + size > len(data):
            raise Bad
        yield kind, data[at + 4 : at + size]
        at += size + -size % 4


def real_dump(ext: int = 0) -> bytes:
    """Return the current answer of this kernel: the socket messages of a TCPDIAG_GETSOCK dump, one after the other."""
    request = struct.pack("=BBBB48xII", 0, 0, 0, ext, 0xFFF, 0)
    answer = b""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as diag:
        diag.settimeout(5)
        diag.send(message(GETSOCK, request, flags=REQUEST | DUMP))
        while True:
            datagram = diag.recv(1 << 16)
            for kind, flags, payload in split(datagram):
                if kind == DONE:
                    return answer
                answer += message(kind, payload, flags=flags)
