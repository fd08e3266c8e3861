"""Arrangements: filter and sort of live and closed rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tcpwatch.model.columns.columns import BY_KEY, IN_TABLE, SocketColumn
from tcpwatch.model.query.arrangement import Arrangement, arrange, sort_order
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.sockets.rows import Mark, Rows
from tcpwatch.model.states import State
from tests.support.views import Sock, make_rows, sock

NONE = make_rows([])


def arranged(
    rows: Rows, key: str = "cookie", reverse: bool = False, closed: Rows = NONE, wanted: str = ""
) -> Arrangement:
    return arrange(rows, closed, Filter.parse(wanted), BY_KEY[key], reverse)


def cookies(arrangement: Arrangement) -> list[int]:
    return [arrangement.cookie(place) for place in range(len(arrangement))]


ROWS = make_rows([
    sock("TIME_WAIT", "10.0.0.1:80", "10.0.0.9:5"),
    sock("LISTEN", "10.0.0.1:80", recv_queue=7, process="nginx", pid=12),
    sock("ESTAB", "10.0.0.1:80", "10.0.0.10:5", recv_queue=3, process="apache", pid=9),
    sock("ESTAB", "[::1]:80", "[::1]:5", process="nginx", pid=11),
    sock("ESTAB", "10.0.0.1:80", "10.0.0.9:4", mapped=True, recv_queue=3),
])  # fmt: skip
CLOSED = make_rows([
    sock("LAST_ACK", "10.0.0.1:80", "10.0.0.9:6", process="zsh", pid=3, cookie=20),
    sock("ESTAB", "[::1]:81", "[::1]:6", process="apache", pid=9, cookie=10, mark="closed"),
])  # fmt: skip


@pytest.mark.parametrize(("key", "reverse", "expected"), [
    ("cookie", False, [1, 2, 3, 4, 5]),
    ("cookie", True, [5, 4, 3, 2, 1]),
    ("state", False, [2, 3, 4, 5, 1]),
    ("state", True, [1, 3, 4, 5, 2]),
    ("recv_queue", True, [2, 3, 5, 1, 4]),
    ("remote", False, [2, 5, 1, 3, 4]),
    ("owner", False, [1, 5, 3, 4, 2]),
])  # fmt: skip
def test_sorts_and_keeps_equal_rows_by_cookie(key: str, reverse: bool, expected: list[int]) -> None:
    assert cookies(arranged(ROWS, key, reverse)) == expected


@pytest.mark.parametrize(("key", "expected"), [
    ("cookie", [1, 2, 3, 4, 5, 10, 20]),
    ("state", [2, 3, 4, 5, 10, 20, 1]),
    ("remote", [2, 5, 1, 20, 3, 4, 10]),
    ("owner", [1, 5, 3, 10, 4, 2, 20]),
])  # fmt: skip
def test_closed_rows_stand_where_they_were(key: str, expected: list[int]) -> None:
    assert cookies(arranged(ROWS, key, closed=CLOSED)) == expected


def test_filter_counts_and_places() -> None:
    found = arranged(ROWS, "state", closed=CLOSED, wanted="state:open")
    assert cookies(found) == [3, 4, 5, 10]
    assert (len(found), found.shown, found.total) == (4, 3, 5)
    assert [found.place(cookie) for cookie in (3, 10, 1, 20, 99)] == [0, 3, None, None, None]


def test_lines_of_live_and_closed_rows_in_their_order() -> None:
    found = arranged(ROWS, "cookie", True, closed=CLOSED)
    columns = [BY_KEY["cookie"], BY_KEY["owner"]]
    lines = found.lines(0, 3, columns, exact=False)
    assert [(line.mark, line.state, line.cells) for line in lines] == [
        (Mark.NONE, State.LAST_ACK, ("20", "zsh[3]")),
        (Mark.CLOSED, State.ESTABLISHED, ("10", "apache[9]")),
        (Mark.NONE, State.ESTABLISHED, ("5", "")),
    ]
    assert [line.cells for line in found.lines(6, 99, columns, exact=False)] == [("1", "")]
    assert found.lines(7, 99, columns, exact=False) == []


def test_lines_come_with_names_and_without() -> None:
    columns = [BY_KEY["local"], BY_KEY["recv_queue"]]
    rows = make_rows([sock("ESTAB", "10.0.0.1:443", "10.0.0.2:1", recv_queue=1_200_000)])
    named, exact = (arranged(rows).lines(0, 1, columns, exact) for exact in (False, True))
    assert (named[0].cells, named[0].plain) == (("10.0.0.1:https", "1.14 M"), ("10.0.0.1:443", "1200000"))
    assert (exact[0].cells, exact[0].plain) == (("10.0.0.1:443", "1200000"),) * 2


def test_empty() -> None:
    found = arranged(NONE, "remote")
    assert (len(found), found.shown, found.total, found.place(1)) == (0, 0, 0, None)


def test_every_column_sorts_with_and_without_closed_rows() -> None:
    for column in IN_TABLE:
        for reverse in (False, True):
            assert len(arranged(ROWS, column.key, reverse, CLOSED)) == 7
            assert len(arranged(ROWS, column.key, reverse)) == 5


specs = st.builds(
    sock,
    st.sampled_from(["ESTAB", "LISTEN", "TIME_WAIT"]),
    st.sampled_from(["10.0.0.1:80", "10.0.0.1:443"]),
    st.sampled_from(["10.0.0.9:1", "10.0.0.10:1"]),
    recv_queue=st.integers(0, 2),
    age_s=st.sampled_from([0.0, 1.5, 1e6]),
    process=st.sampled_from([None, "a", "b"]),
)


@given(st.lists(specs), st.lists(specs), st.sampled_from(IN_TABLE), st.booleans())
def test_order_is_that_of_the_sort_keys(
    live: list[Sock], closed: list[Sock], column: SocketColumn, reverse: bool
) -> None:
    numbered = [replace(s, cookie=2 * i + 1) for i, s in enumerate(live)]
    ended = [replace(s, cookie=2 * i + 2) for i, s in enumerate(closed)]
    both = make_rows([*numbered, *ended])
    keys = [[k[i].item() for k in column.sort(both)] for i in range(len(both))]
    by_cookie = dict(zip(both.cookie.tolist(), keys, strict=True))
    expected = sorted(sorted(by_cookie), key=by_cookie.__getitem__)
    if reverse:  # a stable sort of the mirrored list, mirrored, keeps equal ones as they were
        expected = sorted(sorted(by_cookie, reverse=True), key=by_cookie.__getitem__)[::-1]
    found = arrange(make_rows(numbered), make_rows(ended), Filter(), column, reverse)
    assert cookies(found) == expected
    for place, cookie in enumerate(expected):
        assert found.place(cookie) == place


@pytest.mark.parametrize("most", [255, 256, 65_535, 65_536, 65_537])
def test_sorted_places_around_sixteen_bits(most: int) -> None:
    keys = (np.array([most, 1, 0, most - 1], np.uint32),)
    assert sort_order(keys, 4, False).tolist() == [2, 1, 3, 0]
    assert sort_order(keys, 4, True).tolist() == [0, 3, 1, 2]


@given(
    st.lists(st.tuples(
        st.integers(0, 2**64 - 1) | st.integers(0, 3), st.floats(allow_nan=False), st.integers(-5, 5), st.booleans(),
    )),
    st.booleans(),
)  # fmt: skip
def test_sorted_places(rows: list[tuple[int, float, int, bool]], reverse: bool) -> None:
    columns = list(zip(*rows, strict=True)) or [()] * 4
    dtypes = (np.uint64, np.float64, np.int64, np.bool_)
    keys: tuple[NDArray[Any], ...] = tuple(np.array(c, dtype) for c, dtype in zip(columns, dtypes, strict=True))
    expected = sorted(range(len(rows)), key=rows.__getitem__)
    if reverse:
        expected = sorted(range(len(rows) - 1, -1, -1), key=rows.__getitem__)[::-1]
    assert sort_order(keys, len(rows), reverse).tolist() == expected
