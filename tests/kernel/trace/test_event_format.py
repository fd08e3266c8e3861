"""Event formats of the kernel, and invalid texts."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.kernel.trace import event_format
from tcpwatch.kernel.trace.decode_events import check_fields
from tcpwatch.kernel.trace.event_format import PageHeader
from tcpwatch.kernel.trace.tracefs import TraceError
from tests.support.kernel import tracepoint_texts as texts


def test_fields_have_the_described_offsets() -> None:
    form = event_format.parse(texts.SET_STATE)
    assert form.id == 2287
    fields = dict(form.dtype.fields or {})
    assert {name: (kind.str or kind, at) for name, (kind, at, *_) in fields.items() if name != "common_pid"} == {
        "common_type": ("<u2", 0),
        "skaddr": ("<u8", 8),
        "oldstate": ("<i4", 16),
        "newstate": ("<i4", 20),
        "sport": ("<u2", 24),
        "dport": ("<u2", 26),
        "family": ("<u2", 28),
        "protocol": ("<u2", 30),
        "saddr": ("|V4", 32),
        "daddr": ("|V4", 36),
        "saddr_v6": ("|V16", 40),
        "daddr_v6": ("|V16", 56),
    }
    assert form.dtype["saddr_v6"] == np.dtype((np.uint8, (16,)))
    assert form.dtype.itemsize == 72
    assert form.has("sport", "dport")
    assert not form.has("sport", "reason")


def test_arrays_and_what_is_neither_number_nor_array() -> None:
    fields = (
        "u32 many[3];\toffset:8;\tsize:12",
        "char comm[TASK_COMM_LEN];\toffset:20;\tsize:16",
        "odd x;\toffset:36;\tsize:3",
    )
    text = "ID: 1\nformat:\n" + "".join(f"\tfield:{field};\tsigned:1;\n" for field in fields)
    text += '\tfield:__data_loc char[] name;\toffset:40;\tsize:4;\n\nprint fmt: ""\n'
    dtype = event_format.parse(text).dtype
    assert [dtype[name] for name in ("many", "comm", "x", "name")] == [
        np.dtype(("<i4", (3,))), np.dtype((np.int8, (16,))), np.dtype((np.uint8, (3,))), np.dtype("<u4"),
    ]  # fmt: skip


def test_names_of_numbers() -> None:
    form = event_format.parse(texts.SEND_RESET)
    assert form.symbols("reason") == {0: "NOT_SPECIFIED", 1: "NO_SOCKET", 11: "TCP_ABORT_ON_CLOSE"}
    assert form.symbols("state") == {}  # constants that this kernel did not replace by their numbers
    assert form.symbols("nothing") == {}
    form = event_format.parse(texts.SET_STATE)
    assert form.symbols("family") == {2: "AF_INET", 10: "AF_INET6"}
    assert form.symbols("oldstate")[12] == "TCP_NEW_SYN_RECV"


def test_a_parenthesis_in_a_name_ends_nothing() -> None:
    fmt = '"%s", __print_symbolic(REC->x, { 0x1, "a)" }, { 2, "b" }), __print_symbolic(REC->y, { 3, "c" })'
    text = f"ID: 1\n\tfield:int x;\toffset:0;\tsize:4;\nprint fmt: {fmt}"
    assert event_format.parse(text).symbols("x") == {1: "a)", 2: "b"}


def test_the_page_header() -> None:
    assert event_format.page_header(texts.HEADER_PAGE) == PageHeader(0, 8, 8, 16)
    old = texts.HEADER_PAGE.replace("offset:8;\tsize:8", "offset:8;\tsize:4").replace("offset:16", "offset:12")
    assert event_format.page_header(old) == PageHeader(0, 8, 4, 12)


@pytest.mark.parametrize(
    "text",
    [
        "",
        texts.HEADER_PAGE,  # has no ID
        "ID: 1\nformat:\n",
        "ID: 1\n\tfield:char all_that_follows[];\toffset:12;\tsize:0;\n",
        "ID: 1\n\tfield:int x;\toffset:99999999999;\tsize:4;\n",
        "ID: 1\n\tfield:int x;\toffset:0;\tsize:4;\n\tfield:int x;\toffset:4;\tsize:4;\n",
        "ID: 1\n\tfield:(*);\toffset:0;\tsize:4;\n",
    ],
)
def test_invalid_input_is_refused(text: str) -> None:
    with pytest.raises(TraceError, match="tracefs describes"):
        event_format.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        texts.SET_STATE,
        texts.HEADER_PAGE.replace("timestamp;\toffset:0;\tsize:8", "timestamp;\toffset:0;\tsize:4"),
        texts.HEADER_PAGE.replace("offset:16", "offset:17"),
        texts.HEADER_PAGE.replace("commit", "commits"),
    ],
)
def test_a_strange_page_header_is_refused(text: str) -> None:
    with pytest.raises(TraceError, match="tracefs describes"):
        event_format.page_header(text)


@given(st.sampled_from([texts.SET_STATE, texts.SEND_RESET, texts.HEADER_PAGE]), st.data())
def test_changed_texts_are_understood_or_refused(text: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.text(max_size=4)) + text[at + data.draw(st.integers(0, 4)) :]
    with suppress(TraceError):
        event_format.parse(text).symbols("reason")
    with suppress(TraceError):
        event_format.page_header(text)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("__u8 daddr_v6[16];\toffset:56;\tsize:16", "__u8 daddr_v6[16];\toffset:56;\tsize:6"),
        ("int oldstate;\toffset:16;\tsize:4", "int oldstate;\toffset:16;\tsize:3"),
        ("int common_pid;", "int common_tid;"),
        ("__u8 saddr[4];\toffset:32;\tsize:4", "__u8 saddr[28];\toffset:32;\tsize:28"),
    ],
)
def test_fields_of_unexpected_types_are_refused(before: str, after: str) -> None:
    check_fields(event_format.parse(texts.SET_STATE))
    assert before in texts.SET_STATE
    with pytest.raises(TraceError, match="unexpected types"):
        check_fields(event_format.parse(texts.SET_STATE.replace(before, after)))


def test_numbers_of_symbols_that_are_no_literals_of_python() -> None:
    form = event_format.parse(texts.SEND_RESET.replace('{ 1, "NO_SOCKET" }', '{ 010, "TEN" }, { 0x, "NONE" }'))
    assert form.symbols("reason")[10] == "TEN"
