"""Find a text in the addresses of all rows at once, without converting the addresses to text.

An IPv4 address is four fields separated by dots; an IPv6 address is hextets separated by colons, with an empty field
for `::`. A term with k separators has k + 1 parts: a field must end with the first part, the next fields must equal the
middle parts, and a field must begin with the last part. Each part becomes a table over all 256 octets or 65,536
hextets, so that testing one alignment costs one lookup per part. IPv4-mapped IPv6 addresses count as IPv4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.address_words import ipv4_numbers
from tcpwatch.arrays.digits import numbers_with
from tcpwatch.kernel.netlink import uapi

Mask = NDArray[np.bool_]
Table = NDArray[np.void]
Field = NDArray[np.uint8] | NDArray[np.uint16] | None
"""An octet or hextet of every address; None for the empty field of a `::`."""

_IPV4_TEXT = re.compile(r"[0-9.]*")
_IPV6_TEXT = re.compile(r"[0-9a-f:]*")


@dataclass(frozen=True, slots=True)
class AddressPiece:
    """Text to find, in lower case; with `start` and `end`, only at the start or the end of the address."""

    text: str
    start: bool = False
    end: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Addresses:
    """Local or remote addresses of all rows, IPv4 and IPv6 apart."""

    is_v4: Mask
    v4: NDArray[np.uint32]
    """Addresses of the rows where `is_v4` is true, as numbers."""
    v6: NDArray[Any]
    """Addresses of the other rows: (rows, 8) hextets, big-endian."""

    @classmethod
    def of(cls, table: Table, name: str) -> Addresses:
        """Return the addresses in the field `idiag_src` or `idiag_dst` of a socket table."""
        is_v4 = np.asarray(table["idiag_family"] == uapi.AF_INET)
        numbers, is_v4 = ipv4_numbers(table[name], is_v4)
        if is_v4.all():
            return cls(is_v4, numbers, np.empty((0, 8), ">u2"))
        return cls(is_v4, numbers[is_v4], table[name].view(">u2")[~is_v4])

    def __len__(self) -> int:
        return len(self.is_v4)

    def match(self, v4: Callable[[NDArray[np.uint32]], Mask], v6: Callable[[NDArray[Any]], Mask]) -> Mask:
        """Return a mask over all rows from one test per family."""
        if len(self.v4) == len(self):
            return v4(self.v4)
        matched = np.zeros(len(self), np.bool_)
        if len(self.v4):
            matched[self.is_v4] = v4(self.v4)
        matched[~self.is_v4] = v6(self.v6)
        return matched

    def contain(self, term: AddressPiece) -> Mask:
        """Return which addresses contain the term."""
        return self.match(lambda values: ipv4_contain(values, term), lambda hextets: ipv6_contain(hextets, term))


def ipv4_contain(values: NDArray[np.uint32], term: AddressPiece) -> Mask:
    """Return which IPv4 addresses (numbers in host order) contain the term."""
    if not _IPV4_TEXT.fullmatch(term.text):
        return np.zeros(len(values), np.bool_)
    octets = [(values >> np.uint32(shift)).astype(np.uint8) for shift in (24, 16, 8, 0)]
    return _match_anywhere(octets, term, ".", len(values))


def ipv6_contain(hextets: NDArray[Any], term: AddressPiece) -> Mask:
    """Return which IPv6 addresses (rows of 8 hextets) contain the term, spelled as by inet_ntop(3)."""
    matched = np.zeros(len(hextets), np.bool_)
    if not _IPV6_TEXT.fullmatch(term.text.replace(".", "")):
        return matched
    fields = np.ascontiguousarray(hextets.T, np.uint16)
    shapes = _SHAPE_OF_ZEROS[_zeros(fields)]
    for shape in np.flatnonzero(np.bincount(shapes, minlength=1)).tolist():
        same = shapes == shape
        alike = fields if same.all() else fields[:, same]
        matched[same] = _match_shape(alike, *divmod(shape, 16), term)
    return matched


def _match_shape(fields: NDArray[np.uint16], start: int, length: int, term: AddressPiece) -> Mask:
    """Match addresses whose hextets `start` … `start + length - 1` are written as `::` (length 0: no `::`)."""
    if (start, length) == (0, 6):
        return _match_compatible(fields[6].astype(np.uint32) << np.uint32(16) | fields[7], term)
    written: list[Field] = list(fields)
    if length:
        at_an_end = (start == 0) + (start + length == 8)
        written[start : start + length] = [None] * (1 + at_an_end)
    return _match_anywhere(written, term, ":", fields.shape[1])


def _match_compatible(values: NDArray[np.uint32], term: AddressPiece) -> Mask:
    """Match IPv4-compatible addresses: two colons, then an IPv4 address, `::192.0.2.1`."""
    matched = np.zeros(len(values), np.bool_)
    if not term.start:
        matched |= ipv4_contain(values, term)
    for colons in ("::", ":") if not term.start else ("::",):
        if term.text.startswith(colons):
            matched |= ipv4_contain(values, AddressPiece(term.text.removeprefix(colons), True, term.end))
    if term.text in (":", "::") or (term.start and "::".startswith(term.text)):
        matched |= not term.end
    return matched


def _zeros(fields: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Return one bit per hextet: 1 if the hextet is zero."""
    bits = np.zeros(fields.shape[1], np.uint8)
    for i, field in enumerate(fields):
        bits |= (field == 0).astype(np.uint8) << np.uint8(i)
    return bits


def _shape(zeros: int) -> int:
    """Return 16 * start + length of the first longest run of two or more zero hextets; 0 for none."""
    best = (1, 0)
    for start in range(8):
        length = 0
        while start + length < 8 and zeros >> (start + length) & 1:
            length += 1
        if length > best[0]:
            best = (length, start)
    return 16 * best[1] + best[0] if best[0] > 1 else 0


_SHAPE_OF_ZEROS = np.array([_shape(zeros) for zeros in range(256)], np.uint8)


def _match_anywhere(fields: Sequence[Field], term: AddressPiece, separator: str, size: int) -> Mask:
    """Match the parts of the term with successive fields, at each position that `start` and `end` allow."""
    parts = term.text.split(separator)
    matched = np.zeros(size, np.bool_)
    last = len(fields) - len(parts)
    first = last if term.end else 0
    for position in range(max(first, 0), min(last, 0 if term.start else last) + 1):
        matched |= _match_parts(fields[position:], parts, term, size)
    return matched


def _match_parts(fields: Sequence[Field], parts: Sequence[str], term: AddressPiece, size: int) -> Mask:
    """Match the first part with the first field, the second part with the second field, and so on."""
    hit = np.ones(size, np.bool_)
    for i, part in enumerate(parts):
        closed = (i > 0 or term.start, i < len(parts) - 1 or term.end)
        hit &= _match_part(fields[i], part, closed, size)
        if not hit.any():
            break
    return hit


def _match_part(field: Field, part: str, closed: tuple[bool, bool], size: int) -> Mask:
    """Return which fields contain the part; `closed`: at the start and at the end of the field."""
    if field is None:
        return np.full(size, part == "")
    size_and_base = (1 << 8, 10) if field.dtype.itemsize == 1 else (1 << 16, 16)
    table = numbers_with(part, *size_and_base, *closed)
    return np.zeros(size, np.bool_) if table is None else table.take(field)
