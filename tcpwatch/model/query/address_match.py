"""Which addresses, as text, contain a term: for all rows at once, without making the text.

An IPv4 address is four fields between dots, an IPv6 address is hextets and, where `::` stands, nothing,
between colons. A term with k separators is k + 1 parts: the first must end a field, the middle ones be fields,
the last begin one. So each part becomes a table over all 256 octets or 65,536 hextets, and each place where
the parts may lie costs one lookup a part. IPv4-mapped IPv6 addresses count as IPv4, as they are shown.
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
"""Octets or hextets of all addresses; None for the empty text beside a `::`."""

_IPV4_TEXT = re.compile(r"[0-9.]*")
_IPV6_TEXT = re.compile(r"[0-9a-f:]*")


@dataclass(frozen=True, slots=True)
class AddressPiece:
    """A piece of an address's text, in lower case; it may have to stand at the start, at the end, or both."""

    text: str
    start: bool = False
    end: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Addresses:
    """One end's addresses, apart: IPv4 as numbers, IPv6 as they came."""

    is_v4: Mask
    v4: NDArray[np.uint32]
    """Of the rows where `is_v4`, in their order."""
    v6: NDArray[Any]
    """Of the other rows: (rows, 8) hextets, big-endian, not copied."""

    @classmethod
    def of(cls, table: Table, name: str) -> Addresses:
        """Of the field `idiag_src` or `idiag_dst` of a socket table."""
        is_v4 = np.asarray(table["idiag_family"] == uapi.AF_INET)
        numbers, is_v4 = ipv4_numbers(table[name], is_v4)
        if is_v4.all():
            return cls(is_v4, numbers, np.empty((0, 8), ">u2"))
        return cls(is_v4, numbers[is_v4], table[name].view(">u2")[~is_v4])

    def __len__(self) -> int:
        return len(self.is_v4)

    def match(self, v4: Callable[[NDArray[np.uint32]], Mask], v6: Callable[[NDArray[Any]], Mask]) -> Mask:
        """A mask over all rows from a test for each family."""
        if len(self.v4) == len(self):
            return v4(self.v4)
        found = np.zeros(len(self), np.bool_)
        if len(self.v4):
            found[self.is_v4] = v4(self.v4)
        found[~self.is_v4] = v6(self.v6)
        return found

    def contain(self, term: AddressPiece) -> Mask:
        """Whose text contains the term."""
        return self.match(lambda values: ipv4_contain(values, term), lambda hextets: ipv6_contain(hextets, term))


def ipv4_contain(values: NDArray[np.uint32], term: AddressPiece) -> Mask:
    """Which IPv4 addresses (numbers in the host's order) contain the term."""
    if not _IPV4_TEXT.fullmatch(term.text):
        return np.zeros(len(values), np.bool_)
    octets = [(values >> np.uint32(shift)).astype(np.uint8) for shift in (24, 16, 8, 0)]
    return _aligned(octets, term, ".", len(values))


def ipv6_contain(hextets: NDArray[Any], term: AddressPiece) -> Mask:
    """Which IPv6 addresses (rows of 8 hextets) contain the term, as inet_ntop(3) writes them."""
    found = np.zeros(len(hextets), np.bool_)
    if not _IPV6_TEXT.fullmatch(term.text.replace(".", "")):
        return found
    fields = np.ascontiguousarray(hextets.T, np.uint16)
    shapes = _SHAPE_OF_ZEROS[_zeros(fields)]
    for shape in np.flatnonzero(np.bincount(shapes, minlength=1)).tolist():
        here = shapes == shape
        some = fields if here.all() else fields[:, here]
        found[here] = _shaped(some, *divmod(shape, 16), term)
    return found


def _shaped(fields: NDArray[np.uint16], start: int, length: int, term: AddressPiece) -> Mask:
    """For addresses whose hextets `start` … `start + length - 1` are written as `::` (length 0: none)."""
    if (start, length) == (0, 6):
        return _compatible(fields[6].astype(np.uint32) << np.uint32(16) | fields[7], term)
    written: list[Field] = list(fields)
    if length:
        at_an_end = (start == 0) + (start + length == 8)
        written[start : start + length] = [None] * (1 + at_an_end)
    return _aligned(written, term, ":", fields.shape[1])


def _compatible(values: NDArray[np.uint32], term: AddressPiece) -> Mask:
    """For IPv4-compatible addresses, `::192.0.2.1`: two colons, then IPv4."""
    found = np.zeros(len(values), np.bool_)
    if not term.start:
        found |= ipv4_contain(values, term)
    for colons in ("::", ":") if not term.start else ("::",):
        if term.text.startswith(colons):
            found |= ipv4_contain(values, AddressPiece(term.text.removeprefix(colons), True, term.end))
    if term.text in (":", "::") or (term.start and "::".startswith(term.text)):
        found |= not term.end
    return found


def _zeros(fields: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """One bit a hextet: it is zero."""
    bits = np.zeros(fields.shape[1], np.uint8)
    for i, field in enumerate(fields):
        bits |= (field == 0).astype(np.uint8) << np.uint8(i)
    return bits


def _shape(zeros: int) -> int:
    """16 * start + length of the longest run of two or more zero hextets, the first of equals; 0 for none."""
    best = (1, 0)
    for start in range(8):
        length = 0
        while start + length < 8 and zeros >> (start + length) & 1:
            length += 1
        if length > best[0]:
            best = (length, start)
    return 16 * best[1] + best[0] if best[0] > 1 else 0


_SHAPE_OF_ZEROS = np.array([_shape(zeros) for zeros in range(256)], np.uint8)


def _aligned(fields: Sequence[Field], term: AddressPiece, separator: str, size: int) -> Mask:
    """Where the parts of the term lie on successive fields, at any place that start and end allow."""
    parts = term.text.split(separator)
    found = np.zeros(size, np.bool_)
    last = len(fields) - len(parts)
    first = last if term.end else 0
    for place in range(max(first, 0), min(last, 0 if term.start else last) + 1):
        found |= _all_hold(fields[place:], parts, term, size)
    return found


def _all_hold(fields: Sequence[Field], parts: Sequence[str], term: AddressPiece, size: int) -> Mask:
    """Where the first field has the first part, and so on; the parts touch each other."""
    hit = np.ones(size, np.bool_)
    for i, part in enumerate(parts):
        closed = (i > 0 or term.start, i < len(parts) - 1 or term.end)
        hit &= _holds(fields[i], part, closed, size)
        if not hit.any():
            break
    return hit


def _holds(field: Field, part: str, closed: tuple[bool, bool], size: int) -> Mask:
    """Which of these fields have the part: at their start, at their end, both, or anywhere."""
    if field is None:
        return np.full(size, part == "")
    size_and_base = (1 << 8, 10) if field.dtype.itemsize == 1 else (1 << 16, 16)
    table = numbers_with(part, *size_and_base, *closed)
    return np.zeros(size, np.bool_) if table is None else table.take(field)
