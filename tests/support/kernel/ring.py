"""Pages of a ring buffer, written and read with struct: slow, and obviously what ring_buffer.h says.

Sources: include/linux/ring_buffer.h, kernel/trace/ring_buffer.c of Linux 6.18.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from tcpwatch.kernel.trace.event_format import PageHeader

HEADER = PageHeader(timestamp=0, commit=8, commit_size=8, data=16)
PAGE = 512
MISSED, STORED = 1 << 31, 1 << 30


class Event(NamedTuple):
    """One event that was read: ns, byte offset and bytes of its payload."""

    time: int
    at: int
    size: int


class Bad(Exception):
    """Not what a ring buffer holds."""


def word(type_len: int, delta: int) -> bytes:
    return struct.pack("<I", type_len | delta << 5)


def short(payload: bytes, delta: int = 0) -> bytes:
    assert 0 < len(payload) <= 112
    assert len(payload) % 4 == 0
    return word(len(payload) // 4, delta) + payload


def long(payload: bytes, delta: int = 0) -> bytes:
    return word(0, delta) + struct.pack("<I", 4 + len(payload)) + payload + bytes(-len(payload) % 4)


def discarded(size: int, delta: int = 1) -> bytes:
    return word(29, delta) + struct.pack("<I", 4 + size) + bytes(size)


def time_extend(delta: int) -> bytes:
    return word(30, delta & 0x7FFFFFF) + struct.pack("<I", delta >> 27)


def time_stamp(absolute: int) -> bytes:
    return word(31, absolute & 0x7FFFFFF) + struct.pack("<I", absolute >> 27)


END = word(29, 0)


def page(data: bytes, begin: int = 0, flags: int = 0, size: int = PAGE) -> bytes:
    assert len(data) <= size - 16
    return (struct.pack("<QQ", begin, len(data) | flags) + data).ljust(size, b"\0")


def read(pages: bytes, size: int = PAGE) -> list[Event]:
    """The events of all pages. Raises Bad."""
    return [event for at in range(0, len(pages), size) for event in _events(pages, at, size)]


def _events(pages: bytes, start: int, size: int) -> Iterator[Event]:
    now, commit = struct.unpack_from("<QQ", pages, start)
    used = commit & 0x7FFFFFF
    if used > size - 16:
        raise Bad
    at, end = start + 16, start + 16 + used // 4 * 4
    while at < end:
        (head,) = struct.unpack_from("<I", pages, at)
        kind, delta = head & 31, head >> 5
        at += 4
        if kind == 29 and delta == 0:
            return
        length = 4 * kind
        if kind in (0, 29, 30, 31):
            if at == end:
                raise Bad
            (after,) = struct.unpack_from("<I", pages, at)
            at += 4
            if kind == 30:
                delta += after << 27
            elif kind == 31:
                delta += (after << 27) - now
            elif after == 0:
                raise Bad
            length = 0 if kind in (30, 31) else (after - 1) // 4 * 4
        now += delta
        if at + length > end:
            raise Bad
        if length and kind < 29:
            yield Event(now, at, length)
        at += length
