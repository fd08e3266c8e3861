"""Decode pages of the ring buffer into events: many pages at once, in step k the k-th event of all of them.

Sources: include/linux/ring_buffer.h, kernel/trace/ring_buffer.c, and the reader of libtraceevent (kbuffer-parse.c). A
page is a header (event_format.PageHeader), then events: a word with type_len in its low 5 bits and time_delta above
(the time since the previous event in ns), then a payload by type_len. Only for little-endian machines: on others the
order of the two bit fields is reversed (`check_byte_order`). No content of a page leads to a read outside the page
(tests/kernel/trace/test_ring_buffer.py).
"""

from __future__ import annotations

import errno
import sys
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.trace.event_format import PageHeader
from tcpwatch.kernel.trace.tracefs import TraceError

PADDING, TIME_EXTEND, TIME_STAMP = 29, 30, 31
"""RINGBUF_TYPE_*; 1 to 28 is the length of the payload in words; with 0, the length is in the next word."""
MISSED_EVENTS = 1 << 31
"""RB_MISSED_EVENTS: the kernel overwrote events between the previous page and this one."""
_LENGTH = (1 << 27) - 1
"""Bits of commit without its flags."""
_TYPE_BITS, _TYPE = np.uint32(5), np.uint32(0x1F)
_DELTA_BITS = 27
_ONE, _SHORT = np.uint32(1), np.uint32(PADDING - 1)

Words = NDArray[np.uint32]


class PageEvents(NamedTuple):
    """The events of pages: columns with one row per event, page by page, in the order of writing."""

    time: NDArray[np.int64]
    """Nanoseconds on the trace clock."""
    at: NDArray[np.intp]
    """Word offset of the payload in all the pages."""
    size: NDArray[np.intp]
    """Words of the payload, at least one; they are inside the page."""
    missed: bool
    """The kernel overwrote events before one of these pages."""


def check_byte_order() -> None:
    """Raise TraceError on a big-endian machine."""
    if sys.byteorder != "little":
        raise TraceError(errno.EOPNOTSUPP, "traces are read on little-endian machines only")


def decode_pages(pages: Words, header: PageHeader) -> PageEvents:
    """Decode `pages`, contiguous with one row per page. Raises TraceError if they are invalid."""
    if pages.shape[1] < (header.data >> 2) + 2:
        raise _invalid("a page without room for an event")
    commit = pages[:, header.commit >> 2]
    used = (commit & np.uint32(_LENGTH)).astype(np.intp)
    if bool((used > 4 * pages.shape[1] - header.data).any()):
        raise _invalid(f"a page with {int(used.max())} bytes of events")
    low, high = (pages[:, (header.timestamp >> 2) + place].astype(np.int64) for place in (0, 1))
    begin = np.arange(len(pages)) * pages.shape[1] + (header.data >> 2)
    walk = _Walk(pages.reshape(-1), begin, begin + (used >> 2), low | high << 32)
    return walk.events(missed=bool((commit & np.uint32(MISSED_EVENTS)).any()))


class _Walk:
    """A position in each page with events left; each step advances all positions by one event."""

    def __init__(self, words: Words, at: NDArray[np.intp], end: NDArray[np.intp], now: NDArray[np.int64]) -> None:
        self._words = words
        some = at < end
        self._at, self._end, self._now = at[some], end[some], now[some]
        self._events: list[tuple[NDArray[np.int64], NDArray[np.intp], NDArray[Any]]] = []

    def events(self, missed: bool) -> PageEvents:
        """Walk to the end of all pages."""
        while len(self._at):
            self._step()
        if not self._events:
            none = np.empty(0, np.int64)
            return PageEvents(none, none, none, missed)
        time, at, size = (np.concatenate(column) for column in zip(*self._events, strict=True))
        order = np.argsort(at)
        return PageEvents(time[order], at[order], size[order].astype(np.intp), missed)

    def _step(self) -> None:
        head = self._words[self._at]
        length, delta = head & _TYPE, head >> _TYPE_BITS
        if bool((length - _ONE >= _SHORT).any()):  # 0 becomes the largest number
            self._uncommon(length.astype(np.intp), delta.astype(np.int64))
        else:
            self._advance(delta, self._at + 1, length, None)

    def _uncommon(self, length: NDArray[np.intp], delta: NDArray[np.int64]) -> None:
        """Do a step in which a page has anything else than a short event."""
        # A padding without a time delta fills the rest of its page; no word follows it.
        last = (length == PADDING) & (delta == 0)
        if last.any():
            self._keep(~last)
            length, delta = length[~last], delta[~last]
        short = (length > 0) & (length < PADDING)
        if bool((~short & (self._at + 1 >= self._end)).any()):
            raise _invalid("an event that is cut off")
        after = self._words[np.where(short, self._at, self._at + 1)].astype(np.int64)
        extended = (after << _DELTA_BITS) + delta
        # An absolute time lacks the five highest bits: 2^59 ns are 18 years of uptime.
        stamp = length == TIME_STAMP
        delta = np.where(stamp, extended - self._now, np.where(length == TIME_EXTEND, extended, delta))
        # The length of a long event or of padding is in bytes and includes its own word.
        rest = np.where((length == 0) | (length == PADDING), (after + 3 >> 2) - 1, 0)
        if bool((rest < 0).any()):
            raise _invalid("an event shorter than its length")
        body = np.where(short, length, rest)
        self._advance(delta, self._at + np.where(short, 1, 2), body, (length < PADDING) & (body > 0))

    def _advance(
        self,
        delta: NDArray[np.int64] | NDArray[np.uint32],
        at: NDArray[np.intp],
        size: NDArray[np.intp] | NDArray[np.uint32],
        is_event: NDArray[np.bool_] | None,
    ) -> None:
        """Advance each page by one entry and record its events; `is_event` None: all of them are events."""
        self._now = self._now + delta
        self._at = at + size
        events = (self._now, at, size)
        self._events.append(events if is_event is None else (self._now[is_event], at[is_event], size[is_event]))
        left = self._end - self._at
        least = int(left.min(initial=1))
        if least < 0:
            raise _invalid("an event that leads out of its page")
        if least == 0:
            self._keep(left > 0)

    def _keep(self, which: NDArray[np.bool_]) -> None:
        self._at, self._end, self._now = self._at[which], self._end[which], self._now[which]


def _invalid(text: str) -> TraceError:
    return TraceError(errno.EPROTO, f"the trace has {text}")
