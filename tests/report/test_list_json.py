"""`tcpwatch list` as JSON lines and CSV."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest

from tcpwatch.model.columns.columns import EXPORTED
from tcpwatch.model.view import View
from tcpwatch.report import list_json
from tcpwatch.units.printable import printable
from tests.report import golden
from tests.report.views import small_host
from tests.support.views import make_view, sock


def json_rows(view: View) -> list[dict[str, Any]]:
    output = "".join(list_json.as_json(view, list_json.in_order(view.rows)))
    assert output.isascii()
    return [json.loads(line) for line in output.splitlines()]


def csv_rows(view: View) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO("".join(list_json.as_csv(view, list_json.in_order(view.rows))))))


def test_json() -> None:
    view = small_host()
    golden.check("list.json", "".join(list_json.as_json(view, list_json.in_order(view.rows))))


def test_csv() -> None:
    view = small_host()
    golden.check("list.csv", "".join(list_json.as_csv(view, list_json.in_order(view.rows))))


def test_the_promised_keys() -> None:
    promised = """state local_address local_port remote_address remote_port recv_queue send_queue timer timer_s
        retransmits uid user inode cookie interface pid process cgroup_id role phase"""
    rows = json_rows(small_host())
    assert all(list(row) == [column.key for column in EXPORTED] for row in rows)
    assert set(promised.split()) <= set(rows[0])
    assert list(csv_rows(small_host())[0]) == list(rows[0])


def test_order_is_state_then_local_then_remote() -> None:
    view = make_view(
        sock("TIME-WAIT", "10.0.0.1:1", "10.0.0.1:1"),
        sock("ESTAB", "10.0.0.2:1", "10.0.0.1:1"),
        sock("ESTAB", "10.0.0.1:9", "10.0.0.1:2"),
        sock("ESTAB", "10.0.0.1:9", "10.0.0.1:10"),
        sock("ESTAB", "9.0.0.1:9", "10.0.0.1:1"),
        sock("ESTAB", "[::1]:1", "[::1]:1"),
        sock("LISTEN", "10.0.0.1:80", cookie=90),
        sock("LISTEN", "10.0.0.1:80", cookie=80),
    )
    rows = json_rows(view)
    assert [(r["state"], r["local_address"], r["remote_port"], r["cookie"]) for r in rows] == [
        ("LISTEN", "10.0.0.1", 0, 80),
        ("LISTEN", "10.0.0.1", 0, 90),
        ("ESTABLISHED", "9.0.0.1", 1, 5),
        ("ESTABLISHED", "10.0.0.1", 2, 3),
        ("ESTABLISHED", "10.0.0.1", 10, 4),
        ("ESTABLISHED", "10.0.0.2", 1, 2),
        ("ESTABLISHED", "::1", 1, 6),
        ("TIME_WAIT", "10.0.0.1", 1, 1),
    ]


def test_only_the_kept_rows() -> None:
    view = make_view(sock("ESTAB", "10.0.0.1:1"), sock("LISTEN", "10.0.0.1:2"), sock("ESTAB", "10.0.0.1:0"))
    assert list_json.in_order(view.rows, np.array([True, False, True])).tolist() == [2, 0]
    assert list_json.in_order(view.rows, np.zeros(3, np.bool_)).tolist() == []


def test_nothing_to_list() -> None:
    view = make_view()
    assert json_rows(view) == []
    assert "".join(list_json.as_csv(view, list_json.in_order(view.rows))).startswith("state,local_address,")


def test_blocks_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    view = small_host()
    whole_json, whole_csv = json_rows(view), csv_rows(view)
    for size in (1, 2, 3):
        monkeypatch.setattr(list_json, "BLOCK", size)
        assert json_rows(view) == whole_json
        assert csv_rows(view) == whole_csv


def test_columns_that_psutil_lacks_are_null() -> None:
    for row in json_rows(small_host(kind="psutil")):
        unknown = ["recv_queue", "send_queue", "timer", "timer_s", "retransmits", "uid", "user", "inode", "cookie"]
        assert {row[key] for key in unknown} == {None}
        assert row["local_port"] in (80, 9999, 40000)
    assert {row["uid"] for row in csv_rows(small_host(kind="psutil"))} == {""}


@pytest.mark.parametrize("name", ['a"b', "a\nb\r", "\x1b[31m\x9b", "中文", "\u202e", "},\n{", "%s%d", "\\", "=1+1"])
def test_any_name_is_encoded(name: str) -> None:
    view = make_view(sock("ESTAB", "10.0.0.1:1", "10.0.0.2:2", process=name, pid=1), sock("ESTAB", "10.0.0.1:1"))
    output = "".join(list_json.as_json(view, list_json.in_order(view.rows)))
    assert output.replace("\n", "").isprintable()
    assert [row["process"] for row in map(json.loads, output.splitlines())] == [None, printable(name)]
    output = "".join(list_json.as_csv(view, list_json.in_order(view.rows)))
    assert output.replace("\n", "").isprintable()
    assert len(list(csv.reader(io.StringIO(output)))) == 3
