"""Which columns fit, and text cut to fit a cell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tcpwatch.model.columns.columns import BY_KEY, IN_TABLE
from tcpwatch.widgets.lines import fit
from tcpwatch.widgets.table.layout import GAP, laid_out

MAIN = [BY_KEY[key] for key in ("state", "local", "remote", "recv_queue", "owner")]


@given(st.integers(0, 400), st.dictionaries(st.sampled_from([c.key for c in IN_TABLE]), st.integers(0, 60)))
def test_columns_keep_their_order_and_stay_within_the_room(room: int, wants: dict[str, int]) -> None:
    placed = laid_out(IN_TABLE, room, wants)
    columns = [one.column for one in placed]
    assert columns == [column for column in IN_TABLE if column in columns]
    assert all(one.column.width <= one.width <= one.column.width + one.column.grow for one in placed)
    at = 0
    for one in placed:
        assert one.left == at + GAP
        at = one.left + one.width
    assert at <= room or {one.column.key for one in placed} == {"state", "remote"}


def widths(room: int, wants: dict[str, int], asked: str = "") -> dict[str, int]:
    return {one.column.key: one.width for one in laid_out(MAIN, room, wants, asked)}


def test_the_important_columns_stay() -> None:
    assert list(widths(0, {})) == ["state", "remote"]
    assert list(widths(60, {})) == ["state", "local", "remote"]
    assert list(widths(60, {}, "owner")) == ["state", "remote", "recv_queue", "owner"]


def test_a_column_that_can_have_all_it_wants_goes_before_one_that_cannot() -> None:
    everything = sum(column.width + GAP for column in MAIN)
    assert widths(everything + 4, {"remote": 20, "owner": 4})["owner"] == 14
    assert widths(everything + 9, {"remote": 20, "owner": 4})["remote"] == 26


@pytest.mark.parametrize(("text", "width", "right", "expected"), [
    ("abc", 5, False, "abc  "),
    ("12", 5, True, "   12"),
    ("123456", 4, True, "123…"),
    ("nginx[1234]", 8, False, "ngi…234]"),
    ("日本語", 5, False, "日…語"),
    ("日本語", 4, False, " …語"),
    ("abc", 2, False, "a…"),
    ("abc", 1, False, "…"),
    ("abc", 0, False, ""),
])  # fmt: skip
def test_fitted(text: str, width: int, right: bool, expected: str) -> None:
    assert fit(text, width, right, middle=not right) == expected


@given(st.text("ab日本[]é…"), st.integers(0, 12), st.booleans(), st.booleans())
def test_fitted_text_has_exactly_the_width(text: str, width: int, right: bool, middle: bool) -> None:
    assert cell_len(fit(text, width, right, middle)) == width
