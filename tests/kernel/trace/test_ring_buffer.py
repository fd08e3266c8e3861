"""The decoder of ring-buffer pages against a slow reference, and against bytes that no kernel would write."""

from __future__ import annotations

import struct
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tcpwatch.kernel.trace import ring_buffer
from tcpwatch.kernel.trace.event_format import PageHeader
from tcpwatch.kernel.trace.tracefs import TraceError
from tests.support.kernel import ring

PAYLOADS = st.integers(1, 28).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words))
DELTAS = st.integers(0, 0x7FFFFFF)
RECORDS = st.one_of(
    st.builds(ring.short, PAYLOADS, DELTAS),
    st.builds(ring.short, PAYLOADS, DELTAS),
    st.builds(ring.long, st.binary(max_size=150), DELTAS),
    st.builds(ring.discarded, st.integers(0, 10).map(lambda words: 4 * words), st.integers(1, 0x7FFFFFF)),
    st.builds(ring.time_extend, st.integers(0, 1 << 50)),
    st.builds(ring.time_stamp, st.integers(0, 1 << 58)),
    st.just(ring.END),
)


def fitting(records: list[bytes]) -> bytes:
    data = b""
    for record in records:
        if len(data) + len(record) <= ring.PAGE - 16:
            data += record
    return data


PAGES = st.builds(
    ring.page,
    st.lists(RECORDS, max_size=30).map(fitting),
    st.integers(0, 1 << 60),
    st.sampled_from([0, 0, ring.MISSED, ring.MISSED | ring.STORED]),
)


def decode(data: bytes) -> ring_buffer.PageEvents:
    pages = np.frombuffer(data, np.uint32).reshape(-1, ring.PAGE // 4)
    return ring_buffer.decode_pages(pages, ring.HEADER)


def decoded(data: bytes) -> list[ring.Event]:
    time, at, size, _ = decode(data)
    rows = zip(time.view(np.uint64).tolist(), (4 * at).tolist(), (4 * size).tolist(), strict=True)
    return [ring.Event(*row) for row in rows]


def wrapped(events: list[ring.Event]) -> list[ring.Event]:
    """Return the low 64 bits of times that no kernel would write."""
    return [event._replace(time=event.time & (1 << 64) - 1) for event in events]


def check(data: bytes) -> None:
    """The same events as the reference's in the same order, or TraceError for invalid bytes."""
    try:
        events = ring.read(data)
    except ring.Bad:
        with pytest.raises(TraceError):
            decode(data)
    else:
        assert decoded(data) == wrapped(events)


@given(st.lists(PAGES, min_size=1, max_size=6))
def test_same_events_as_the_reference(pages: list[bytes]) -> None:
    data = b"".join(pages)
    assert decoded(data) == ring.read(data)
    assert decode(data).missed == any(page[11] & 0x80 for page in pages)


@given(st.lists(PAGES, min_size=1, max_size=4), st.data())
def test_pages_with_changed_bytes_lead_nowhere_else(pages: list[bytes], data: st.DataObject) -> None:
    spoiled = bytearray(b"".join(pages))
    for _ in range(data.draw(st.integers(1, 8))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(spoiled))


@given(st.lists(st.binary(min_size=ring.PAGE - 16, max_size=ring.PAGE - 16), min_size=1, max_size=3))
@example([bytes(ring.PAGE - 16)])
@example([b"\xff" * (ring.PAGE - 16)])
def test_no_bytes_lead_out_of_a_page(pages: list[bytes]) -> None:
    """Also where the page says that it is full."""
    check(b"".join(struct.pack("<QQ", 5, ring.PAGE - 16) + page for page in pages))
    whole = b"".join(pages)
    check(whole[: len(whole) // ring.PAGE * ring.PAGE] or bytes(ring.PAGE))


@pytest.mark.parametrize(
    "data",
    [
        ring.word(2, 1) + bytes(4),  # leads beyond the committed bytes
        ring.short(b"abcd") + ring.word(0, 1),  # its length is missing
        ring.word(30, 1),
        ring.word(31, 1),
        ring.word(29, 1),
        ring.word(0, 1) + bytes(4),  # shorter than its own length
        ring.word(0, 1) + struct.pack("<I", 1 << 31),
        ring.word(29, 1) + struct.pack("<I", 0xFFFFFFFF),
    ],
)
def test_invalid_input_is_refused(data: bytes) -> None:
    for pages in ([ring.page(data)], [ring.page(data), ring.page(ring.short(b"next"))]):
        with pytest.raises(TraceError, match="the trace has"):
            decode(b"".join(pages))


def test_a_page_with_an_impossible_length_is_refused() -> None:
    with pytest.raises(TraceError, match="bytes of events"):
        decode(struct.pack("<QQ", 0, ring.PAGE - 15) + bytes(ring.PAGE - 16))
    with pytest.raises(TraceError, match="without room"):
        ring_buffer.decode_pages(np.zeros((1, 5), np.uint32), ring.HEADER)


def test_times_add_up() -> None:
    data = [
        ring.short(b"one_", 5),
        ring.time_extend(1 << 40),
        ring.short(b"two_", 7),
        ring.discarded(8, 2),
        ring.short(b"tri_", 1),
        ring.time_stamp(9 << 30),
        ring.long(b"four" * 40, 3),
    ]
    events = decode(ring.page(b"".join(data), begin=1000))
    ns = 1000 + 5 + (1 << 40)
    assert events.time.tolist() == [1005, ns + 7, ns + 7 + 2 + 1, (9 << 30) + 3]
    assert events.size.tolist() == [1, 1, 1, 40]


def test_a_32_bit_kernel_s_page() -> None:
    header = PageHeader(timestamp=0, commit=8, commit_size=4, data=12)
    data = ring.short(b"one_", 5) + ring.short(b"twotwo__", 6)
    page = (struct.pack("<QI", 100, len(data)) + data).ljust(ring.PAGE, b"\0")
    events = ring_buffer.decode_pages(np.frombuffer(page, np.uint32).reshape(1, -1), header)
    assert (events.time.tolist(), (4 * events.at).tolist()) == ([105, 111], [16, 24])


def test_other_byte_orders_are_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    ring_buffer.check_byte_order()
    monkeypatch.setattr(sys, "byteorder", "big")
    with pytest.raises(TraceError, match="little-endian machines only"):
        ring_buffer.check_byte_order()
