"""`tcpwatch list` as text."""

from __future__ import annotations

import re

import pytest

from tcpwatch import units
from tcpwatch.report import list_json, list_text
from tcpwatch.report.ansi import cell_width, fitted
from tests.report import golden
from tests.report.views import small_host
from tests.support.views import make_view, sock

ESCAPE = re.compile("\x1b\\[[0-9;]*m")


def listed(width: int | None = None, *, colour: bool = False, kind: str = "sock_diag") -> str:
    view = small_host(kind=kind)
    return "".join(list_text.as_text(view, list_json.in_order(view.rows), width, True, colour))


def test_width_without_a_limit() -> None:
    golden.check("list.txt", listed())


def test_width_of_80_cells() -> None:
    golden.check("list-80.txt", listed(80))


@pytest.mark.parametrize("width", range(1, 130))
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = listed(width).splitlines()
    assert len(lines) == 8
    assert max(map(cell_width, lines)) <= width


def test_colour_does_not_change_the_text() -> None:
    coloured = listed(colour=True)
    assert ESCAPE.sub("", coloured).replace(" ", "") == listed().replace(" ", "")
    lines = coloured.splitlines()
    assert lines[0].startswith("\x1b[1mState ")
    assert lines[1].startswith("\x1b[36mLISTEN     \x1b[0m  ")
    assert lines[3].startswith("\x1b[32mESTABLISHED\x1b[0m  ")
    assert lines[6].startswith("\x1b[33mTIME_WAIT  \x1b[0m  ")
    assert lines[7].startswith("CLOSED "), "which is in no phase"


def test_columns_that_psutil_lacks_are_not_shown() -> None:
    assert listed(kind="psutil").splitlines()[0].split() == ["State", "Local", "Remote", "Process", "Role"]


def test_nothing_to_list() -> None:
    view = make_view()
    lines = "".join(list_text.as_text(view, list_json.in_order(view.rows))).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("State  Local  Remote  Recv-Q")


def test_wide_characters_are_aligned() -> None:
    view = make_view(
        sock("ESTAB", "10.0.0.1:1", "10.0.0.2:2", process="中文", pid=1),
        sock("ESTAB", "10.0.0.1:1", "10.0.0.2:3", process="four", pid=2),
    )
    first, second = "".join(list_text.as_text(view, list_json.in_order(view.rows), exact=True)).splitlines()[1:]
    assert "中文[1]" in first
    assert cell_width(first) == cell_width(second)


def test_control_characters_are_not_printed() -> None:
    view = make_view(sock("ESTAB", "10.0.0.1:1", "10.0.0.2:2", process="\x1b[31m\n", pid=1))
    assert "\\x1b[31m\\x0a[1]" in "".join(list_text.as_text(view, list_json.in_order(view.rows)))


@pytest.mark.parametrize(
    ("words", "width", "right", "shown"),
    [
        ("abc", 5, False, "abc  "),
        ("abc", 5, True, "  abc"),
        ("abcdef", 5, False, "ab…ef"),
        ("中文字", 5, False, "…字  "),
        ("中文字", 4, False, "…字 "),
        ("e\u0301", 2, False, "e\u0301 "),
        ("abc", 0, False, ""),
    ],
)
def test_fitted(words: str, width: int, right: bool, shown: str) -> None:
    assert fitted(words, width, right) == shown
    assert cell_width(shown) == width


@pytest.mark.parametrize(
    ("share", "shown"), [(0.0, ""), (1e-9, "▏"), (0.5, "██"), (0.53, "██▏"), (1.0, "████"), (7.0, "████"), (-1.0, "")]
)
def test_bar(share: float, shown: str) -> None:
    assert units.bar(share, 4).rstrip() == shown
