"""TracepointReader: state transitions, retransmits, resets, drops and errors from the kernel's tracepoints. Needs root.

Events of all network namespaces are recorded in a trace instance of our own (tracefs.TraceInstance), on
CLOCK_MONOTONIC, in buffers whose total size does not depend on the number of processors. An event takes 60 to 100
bytes.
"""

from __future__ import annotations

import atexit
import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.backlog import Backlog, Chunk
from tcpwatch.arrays.opaque_rows import concat_rows, opaque, take_rows
from tcpwatch.config.memory import BUDGET
from tcpwatch.kernel.trace import decode_events, event_format, ring_buffer
from tcpwatch.kernel.trace.event_format import EventFormat
from tcpwatch.kernel.trace.foreign_events import LATE_S, without_foreign
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind, TraceEvents
from tcpwatch.kernel.trace.tracefs import TraceError, TraceInstance

_LARGEST_KB, _TOTAL_KB, _LEAST_KB = 8 * 1024, 64 * 1024, 1024
"""Size of the buffers: largest for one processor, total, and smallest for one processor."""
_KEPT = BUDGET.trace
_AT_ONCE = 1024 * 1024
"""Bytes of pages that are decoded together."""
_IOV_MAX = 256
"""Pages per readv(); the kernel allows 1024."""


Destroyed = Callable[[], tuple[NDArray[np.uint64], float] | None]
"""Returns `own` and `until` of foreign_events.without_foreign; None if they are not known."""


@dataclass(frozen=True, slots=True)
class _Tracepoint:
    name: str
    kind: TraceEventKind
    filter: str = ""
    required: bool = False


_TRACEPOINTS = (
    _Tracepoint("sock/inet_sock_set_state", TraceEventKind.STATE, "protocol == 6", required=True),
    _Tracepoint("tcp/tcp_destroy_sock", TraceEventKind.DESTROYED, required=True),
    _Tracepoint("tcp/tcp_retransmit_skb", TraceEventKind.RETRANSMIT),
    _Tracepoint("tcp/tcp_retransmit_synack", TraceEventKind.SYNACK_RETRANSMIT),
    _Tracepoint("tcp/tcp_send_reset", TraceEventKind.RESET_SENT),
    _Tracepoint("tcp/tcp_receive_reset", TraceEventKind.RESET_RECEIVED),
    _Tracepoint("skb/kfree_skb", TraceEventKind.DROP),
    _Tracepoint("sock/inet_sk_error_report", TraceEventKind.ERROR, "protocol == 6 && error > 0"),
)
_DROPS = ("SOCKET_RCVBUFF", "SOCKET_BACKLOG", "PROTO_MEM", "NO_SOCKET")
"""Drop reasons that concern TCP, beside those that begin with TCP_; UDP has these too."""


class TracepointReader:
    """Records from its creation on. Not thread-safe."""

    def __init__(self, buffer_kb: int = 0, destroyed: Destroyed = lambda: None) -> None:
        """Start recording; `buffer_kb` per processor, 0 for the default. Raises TraceError.

        `destroyed` is asked when there are too many events: those of other namespaces are left out then.
        """
        self._destroyed = destroyed
        ring_buffer.check_byte_order()
        self._instance = TraceInstance()
        self._files: list[int] = []
        try:
            self._set_up(buffer_kb)
        except BaseException:
            self.close()
            raise
        atexit.register(self.close)  # so that an exit without close() removes the trace instance

    def _set_up(self, buffer_kb: int) -> None:
        instance = self._instance
        self._header = event_format.page_header(instance.read("events/header_page"))
        page = _page_size(instance)
        instance.write("trace_clock", "mono")
        processors = len(instance.processors())
        buffer_kb = buffer_kb or max(_LEAST_KB, min(_LARGEST_KB, _TOTAL_KB // max(1, processors)))
        instance.write("buffer_size_kb", str(buffer_kb))
        with suppress(TraceError):  # recording process names, which are not used, costs time at each context switch
            instance.write("trace_options", "norecord-cmd")
        self._buffer_pages = max(1, buffer_kb * 1024 // page)
        count = max(4, _AT_ONCE // page)
        self._pages = np.zeros((count, page >> 2), np.uint32)
        data = self._pages.reshape(-1).data.cast("B")
        self._places = [data[at : at + page] for at in range(0, len(data), page)]
        self._backlog = Backlog(_KEPT, (np.empty(0, TRACE_EVENT),), self._without_foreign)
        self._overrun = self._lost = self._foreign = 0
        self._complete_until = time.monotonic()
        """Events of all processors until then were read: until then it is known who had a socket's address."""
        self._reset_reasons: dict[int, str] = {}
        self._drop_reasons: dict[int, str] = {}
        self._formats: dict[int, tuple[TraceEventKind, EventFormat]] = {}
        self._files = instance.raw_pages()
        self.missing = tuple(point.name for point in _TRACEPOINTS if not self._enable(point))
        """Tracepoints that this kernel does not have."""

    def _enable(self, point: _Tracepoint) -> bool:
        instance, folder = self._instance, f"events/{point.name}"
        if not instance.has(folder):
            if point.required:
                raise TraceError(errno.ENOENT, f"this kernel has no tracepoint {point.name}")
            return False
        form = event_format.parse(instance.read(f"{folder}/format"))
        decode_events.check_fields(form)
        if point.kind is TraceEventKind.DROP:
            self._drop_reasons = {number: name for number, name in form.symbols("reason").items() if _of_tcp(name)}
            if not self._drop_reasons or not form.has("protocol", "reason"):
                return False  # before Linux 5.17: without a reason
            instance.write(f"{folder}/filter", _drop_filter(set(self._drop_reasons)))
        elif point.filter:
            instance.write(f"{folder}/filter", point.filter)
        if point.kind is TraceEventKind.RESET_SENT:
            self._reset_reasons = form.symbols("reason")
        self._formats[form.id] = (point.kind, form)
        instance.write(f"{folder}/enable", "1")
        return True

    def read(self) -> float:
        """Read recorded events into the backlog; return how full the fullest processor's buffer was, about 0 to 1.

        Raises TraceError if the trace cannot be read or does not match its description.
        """
        filled = most = 0
        begin = time.monotonic()
        for file in self._files:
            pages = 0
            # At most one buffer: this ends even if events arrive as fast as they are read.
            while pages < self._buffer_pages:
                asked = self._places[filled : filled + _IOV_MAX]
                got = _read_pages(file, asked)
                filled, pages = filled + got, pages + got
                if filled == len(self._places):
                    self._decode(filled)
                    filled = 0
                if got < len(asked):
                    break
            most = max(most, pages)
        if filled:
            self._decode(filled)
        self._complete_until = begin
        return most / self._buffer_pages

    def take(self) -> TraceEvents:
        """Return the events between the previous call and this one. Raises TraceError like read()."""
        until = time.monotonic()
        self.read()
        (events,), dropped = self._backlog.take()
        times = events["time"]
        if bool((times[1:] < times[:-1]).any()):
            events = opaque(events)[np.argsort(times, kind="stable")].view(TRACE_EVENT)
        # Events that arrived while the buffers were read one by one are incomplete: they are for the next call.
        whole = int(np.searchsorted(events["time"], until, "right"))
        if whole < len(events):
            self._backlog.add(events[whole:].copy())  # a view would keep all of them
            events = events[:whole]
        events.flags.writeable = False
        lost, self._lost = self._lost, 0
        foreign, self._foreign = self._foreign, 0
        return TraceEvents(events, lost + dropped, self._reset_reasons, self._drop_reasons, self.missing, foreign)

    def _without_foreign(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        if (own := self._destroyed()) is None:
            return chunks
        cookies, until = own
        until = min(until, self._complete_until + LATE_S)
        kept, foreign = without_foreign([chunk[0] for chunk in chunks], cookies, until)
        self._foreign += foreign
        return [(chunk,) for chunk in kept if len(chunk)]

    def close(self) -> None:
        """Stop recording and remove the instance; closing twice is harmless."""
        while self._files:
            os.close(self._files.pop())
        self._instance.close()
        atexit.unregister(self.close)

    def _decode(self, count: int) -> None:
        pages = self._pages[:count]
        events = ring_buffer.decode_pages(pages, self._header)
        if events.missed:
            # A page has the number of events lost before it only if it has room for the number.
            before, self._overrun = self._overrun, self._instance.overrun()
            self._lost += self._overrun - before
        words = pages.reshape(-1)
        ids = words[events.at] & 0xFFFF  # common_type, the first field
        parts, places = [], []
        for number, (kind, form) in self._formats.items():
            which = np.flatnonzero(ids == number)
            if len(which):
                payload = decode_events.payloads(words, events.at[which], events.size[which], form)
                parts.append(decode_events.decode_trace_events(kind, form, payload, events.time[which]))
                places.append(which)
        if parts:
            order = np.argsort(np.concatenate(places))
            decoded = opaque(concat_rows(parts))[order].view(TRACE_EVENT)
            unknown = (decoded["kind"] == TraceEventKind.STATE) & ((decoded["old"] == 0) | (decoded["new"] == 0))
            if unknown.any():  # a state of a newer kernel
                self._lost += int(unknown.sum())
                decoded = take_rows(decoded, ~unknown)
            self._backlog.add(decoded)


def _page_size(instance: TraceInstance) -> int:
    """Return the size of a ring buffer page in bytes; since Linux 6.8 it may be several memory pages."""
    if not instance.has("buffer_subbuf_size_kb"):
        return os.sysconf("SC_PAGE_SIZE")
    text = instance.read("buffer_subbuf_size_kb").strip()
    if not text.isdecimal() or not 1 <= int(text) <= 16 * 1024:
        raise TraceError(errno.EPROTO, f"tracefs: a page of {text!r} KB")
    return 1024 * int(text)


def _read_pages(file: int, places: list[memoryview]) -> int:
    """Read pages and return their number; fewer than there are places if no more are available."""
    try:
        size = os.readv(file, places)  # the kernel reads one page into each of them
    except BlockingIOError:
        return 0
    except OSError as error:
        raise TraceError(error.errno or errno.EIO, f"the trace cannot be read: {error.strerror}") from error
    if size % len(places[0]):
        raise TraceError(errno.EPROTO, f"the trace has pages of another size: {size} bytes")
    return size // len(places[0])


def _of_tcp(name: str) -> bool:
    return name.startswith("TCP_") or name in _DROPS


def _drop_filter(numbers: set[int]) -> str:
    """Return a filter for kfree_skb with few comparisons, as the kernel applies it to every freed packet."""
    begins = sorted(number for number in numbers if number - 1 not in numbers)
    ends = sorted(number for number in numbers if number + 1 not in numbers)
    ranges = [
        f"reason == {begin}" if begin == end else f"(reason >= {begin} && reason <= {end})"
        for begin, end in zip(begins, ends, strict=True)
    ]
    return f"(protocol == 0x800 || protocol == 0x86dd) && ({' || '.join(ranges)})"
