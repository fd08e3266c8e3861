"""Parse the kernel's description of its trace, `format` files and `header_page`, into numpy dtypes.

Sources: f_show and trace_event_define_fields in kernel/trace/trace_events.c, ring_buffer_print_page_header in
kernel/trace/ring_buffer.c. The offsets of fields differ between kernels: all of them are taken from these files.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

import numpy as np

from tcpwatch.kernel.trace.tracefs import TraceError

_FIELD = re.compile(
    r"^\s*field:\s*([^;]+);\s*offset:([0-9]{1,9});\s*size:([0-9]{1,9});(?:\s*signed:([01]);)?", re.MULTILINE
)
_NAME = re.compile(r"(\w+)\s*(?:\[([^\]]*)\])?$")
_PAIR = re.compile(r"\{\s*(0x[0-9a-fA-F]{1,16}|[0-9]{1,20})\s*,\s*\"([^\"]*)\"\s*\}")
_LARGEST = 16 * 1024 * 1024
"""Largest size of a struct in bytes: that of the largest page of a ring buffer."""


@dataclass(frozen=True, slots=True, eq=False)
class EventFormat:
    """Layout of an event's payload."""

    id: int
    """common_type of the event."""
    dtype: np.dtype[np.void]
    """The fields with the kernel's names at their offsets; it ends with the last field."""
    print_fmt: str

    def has(self, *names: str) -> bool:
        """Return whether the event has all these fields."""
        return set(names) <= set(self.dtype.names or ())

    def symbols(self, field: str) -> dict[int, str]:
        """Return number → name of a field that the kernel prints by name; empty for other fields.

        Names without a number, which exist in old kernels, are left out.
        """
        begin = re.search(rf"__print_symbolic\(REC->{re.escape(field)}\s*,", self.print_fmt)
        if not begin:
            return {}
        pairs = _PAIR.finditer(self.print_fmt, begin.end(), _end_of_call(self.print_fmt, begin.end()))
        return {int(pair[1], 16 if pair[1].startswith("0x") else 10): pair[2] for pair in pairs}


@dataclass(frozen=True, slots=True)
class PageHeader:
    """Offsets in a page of the ring buffer, in bytes."""

    timestamp: int
    commit: int
    commit_size: int
    """Size of local_t: 4 or 8."""
    data: int


def parse(text: str) -> EventFormat:
    """Parse a `format` file. Raises TraceError if the text is anything else."""
    number = re.search(r"^ID: (\d{1,5})$", text, re.MULTILINE)
    if not number:
        raise _invalid("an event's format without an ID")
    head, _, print_fmt = text.partition("\nprint fmt:")
    return EventFormat(int(number[1]), _dtype(head), print_fmt)


def page_header(text: str) -> PageHeader:
    """Parse `header_page`. Raises TraceError if the text is anything else."""
    places = dict(_dtype(text).fields or {})
    try:
        timestamp, commit, data = places["timestamp"], places["commit"], places["data"]
    except KeyError as error:
        raise _invalid(f"a page header without {error.args[0]}") from error
    commit_size = commit[0].itemsize
    if timestamp[0].itemsize != 8 or commit_size not in (4, 8):
        raise _invalid("a page header with a timestamp or a commit of odd size")
    header = PageHeader(timestamp[1], commit[1], commit_size, data[1])
    if any(place % 4 for place in (header.timestamp, header.commit, header.data)):
        raise _invalid("a page header that is not aligned")
    return header


def _dtype(text: str) -> np.dtype[np.void]:
    names: list[str] = []
    kinds: list[object] = []
    offsets: list[int] = []
    for declaration, *numbers, signed in _FIELD.findall(text):
        offset, size = (int(number) for number in numbers)
        name = _NAME.search(declaration.strip())
        if size == 0:  # a flexible array, which numpy cannot represent
            continue
        if not name or offset + size > _LARGEST:
            raise _invalid(f"a field {declaration!r} of {size} bytes at {offset}")
        names.append(name[1])
        kinds.append(_kind(size, name[2], signed == "1"))
        offsets.append(offset)
    if not names or len(set(names)) < len(names):
        raise _invalid("a format without fields, or with two of one name")
    return np.dtype({"names": names, "formats": kinds, "offsets": offsets})


def _kind(size: int, length: str | None, signed: bool) -> object:
    """Return the dtype of a number or an array of numbers, otherwise of bytes."""
    letter = "i" if signed else "u"
    if not length:
        return f"={letter}{size}" if size in (1, 2, 4, 8) else (np.uint8, (size,))
    count = int(length) if length.isdecimal() and len(length) < 10 and int(length) else size
    each = size // count
    return (f"={letter}{each}", (count,)) if each in (1, 2, 4, 8) and each * count == size else (np.uint8, (size,))


def _end_of_call(text: str, at: int) -> int:
    """Return the index of the parenthesis that closes the one open at `at`."""
    depth, quoted = 1, False
    for place in range(at, len(text)):
        letter = text[place]
        if letter == '"':
            quoted = not quoted
        elif not quoted:
            depth += (letter == "(") - (letter == ")")
            if depth == 0:
                return place
    return len(text)


def _invalid(text: str) -> TraceError:
    return TraceError(errno.EPROTO, f"tracefs describes {text}")
