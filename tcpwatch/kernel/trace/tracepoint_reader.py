"""Tracepoints: what the kernel's TCP does, each change of state with its time, as its tracepoints tell it. Needs root.

They are recorded in an instance of our own (tracefs.Instance), on CLOCK_MONOTONIC, in buffers whose total does not grow
with the number of processors. Of all network namespaces together. An event takes 60 to 100 bytes of the buffer.
"""

from __future__ import annotations

import atexit
import errno
import os
import time
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from tcpwatch.arrays.backlog import Backlog
from tcpwatch.arrays.opaque_rows import concat_rows, opaque
from tcpwatch.kernel.trace import decode_events, event_format, ring_buffer
from tcpwatch.kernel.trace.event_format import EventFormat
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind, TraceEvents
from tcpwatch.kernel.trace.tracefs import TraceError, TraceInstance

_LARGEST_KB, _TOTAL_KB, _LEAST_KB = 8 * 1024, 64 * 1024, 1024
"""Of the buffer: for one processor, for all together, but so much for each at least."""
_KEPT = 1_000_000
"""Events that wait to be taken: 70 MB."""
_AT_ONCE = 1024 * 1024
"""Bytes of pages that are read before they are decoded."""
_IOV_MAX = 256
"""Pages of one readv; the kernel allows 1024."""


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
    """Records from the moment that it is made. Not safe to be used by two threads at once."""

    def __init__(self, buffer_kb: int = 0) -> None:
        """`buffer_kb` for each processor, if not the usual. Raises TraceError, of one line for people."""
        ring_buffer.check_byte_order()
        self._instance = TraceInstance()
        self._files: list[int] = []
        try:
            self._set_up(buffer_kb)
        except BaseException:
            self.close()
            raise
        atexit.register(self.close)  # so that an end without close() leaves nothing behind in the kernel

    def _set_up(self, buffer_kb: int) -> None:
        instance = self._instance
        self._header = event_format.page_header(instance.read("events/header_page"))
        page = _page_size(instance)
        instance.write("trace_clock", "mono")
        processors = len(instance.processors())
        buffer_kb = buffer_kb or max(_LEAST_KB, min(_LARGEST_KB, _TOTAL_KB // max(1, processors)))
        instance.write("buffer_size_kb", str(buffer_kb))
        with suppress(TraceError):  # the names of processes, which nobody asks for, cost work at each switch of them
            instance.write("trace_options", "norecord-cmd")
        self._buffer_pages = max(1, buffer_kb * 1024 // page)
        count = max(4, _AT_ONCE // page)
        self._pages = np.zeros((count, page >> 2), np.uint32)
        data = self._pages.reshape(-1).data.cast("B")
        self._places = [data[at : at + page] for at in range(0, len(data), page)]
        self._backlog = Backlog(_KEPT, (np.empty(0, TRACE_EVENT),))
        self._overrun = self._lost = 0
        self._reset_reasons: dict[int, str] = {}
        self._drop_reasons: dict[int, str] = {}
        self._formats: dict[int, tuple[TraceEventKind, EventFormat]] = {}
        self._files = instance.raw_pages()
        self.missing = tuple(point.name for point in _TRACEPOINTS if not self._enable(point))
        """Tracepoints that this kernel lacks."""

    def _enable(self, point: _Tracepoint) -> bool:
        instance, folder = self._instance, f"events/{point.name}"
        if not instance.has(folder):
            if point.required:
                raise TraceError(errno.ENOENT, f"this kernel has no tracepoint {point.name}")
            return False
        form = event_format.parse(instance.read(f"{folder}/format"))
        if point.kind is TraceEventKind.DROP:
            self._drop_reasons = {number: name for number, name in form.symbols("reason").items() if _of_tcp(name)}
            if not self._drop_reasons or not form.has("protocol", "reason"):
                return False  # before Linux 5.17: they do not tell why
            instance.write(f"{folder}/filter", _drop_filter(set(self._drop_reasons)))
        elif point.filter:
            instance.write(f"{folder}/filter", point.filter)
        if point.kind is TraceEventKind.RESET_SENT:
            self._reset_reasons = form.symbols("reason")
        self._formats[form.id] = (point.kind, form)
        instance.write(f"{folder}/enable", "1")
        return True

    def read(self) -> float:
        """Fetch what the kernel has recorded; how full the fullest processor's buffer was, from 0 to 1 or so.

        Raises TraceError where it cannot be read, or is not what the kernel described.
        """
        filled = most = 0
        for file in self._files:
            pages = 0
            # As much as the buffer holds: that ends though events come as fast as they are read.
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
        return most / self._buffer_pages

    def take(self) -> TraceEvents:
        """Everything that has happened before this call and after the one before. Raises TraceError, as `read`."""
        until = time.monotonic()
        self.read()
        (events,), forgotten = self._backlog.take()
        times = events["time"]
        if bool((times[1:] < times[:-1]).any()):
            events = opaque(events)[np.argsort(times, kind="stable")].view(TRACE_EVENT)
        # What came while the processors' buffers were read, one after the other, has holes: it is for the next time.
        whole = int(np.searchsorted(events["time"], until, "right"))
        if whole < len(events):
            self._backlog.add(events[whole:])
            events = events[:whole]
        events.flags.writeable = False
        lost, self._lost = self._lost, 0
        return TraceEvents(events, lost + forgotten, self._reset_reasons, self._drop_reasons)

    def close(self) -> None:
        """Stop recording and remove the instance; closing twice is harmless."""
        atexit.unregister(self.close)
        for file in self._files:
            os.close(file)
        self._files = []
        self._instance.close()

    def _decode(self, count: int) -> None:
        pages = self._pages[:count]
        events = ring_buffer.decode_pages(pages, self._header)
        if events.missed:
            # Some pages have the number of what is missing before them, but not those that are full to the end.
            before, self._overrun = self._overrun, self._instance.overrun()
            self._lost += self._overrun - before
        words = pages.reshape(-1)
        ids = words[events.at] & 0xFFFF  # common_type, the first field of all
        parts, places = [], []
        for number, (kind, form) in self._formats.items():
            which = np.flatnonzero(ids == number)
            if len(which):
                told = decode_events.payloads(words, events.at[which], events.size[which], form)
                parts.append(decode_events.decode_trace_events(kind, form, told, events.time[which]))
                places.append(which)
        if parts:
            order = np.argsort(np.concatenate(places))
            self._backlog.add(opaque(concat_rows(parts))[order].view(TRACE_EVENT))


def _page_size(instance: TraceInstance) -> int:
    """Bytes of one page of the ring buffer, which since Linux 6.8 may be several of the machine's."""
    if not instance.has("buffer_subbuf_size_kb"):
        return os.sysconf("SC_PAGE_SIZE")
    text = instance.read("buffer_subbuf_size_kb").strip()
    if not text.isdecimal() or not 1 <= int(text) <= 16 * 1024:
        raise TraceError(errno.EPROTO, f"tracefs: a page of {text!r} KB")
    return 1024 * int(text)


def _read_pages(file: int, places: list[memoryview]) -> int:
    """How many pages were read; fewer than there are places when no more are there."""
    try:
        size = os.readv(file, places)  # for each of them the kernel makes one read of one page
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
    """What kfree_skb has to pass: few comparisons, as every freed packet of the host is held against them."""
    begins = sorted(number for number in numbers if number - 1 not in numbers)
    ends = sorted(number for number in numbers if number + 1 not in numbers)
    ranges = [
        f"reason == {begin}" if begin == end else f"(reason >= {begin} && reason <= {end})"
        for begin, end in zip(begins, ends, strict=True)
    ]
    return f"(protocol == 0x800 || protocol == 0x86dd) && ({' || '.join(ranges)})"
