"""CSV text: quoting, empty fields, blocks."""

from __future__ import annotations

import csv
import io
from typing import Any

from tcpwatch.exporters.csv_writer import BLOCK, records_csv, write_csv
from tcpwatch.exporters.records import tab_separated


def test_fields_are_quoted_where_they_must_be_and_none_is_empty() -> None:
    assert list(write_csv(["a", "b"], [["x,y", None], ['"', 0]])) == ['a,b\n"x,y",\n"""",0\n']
    assert list(write_csv(["a", "b"], [])) == ["a,b\n"]


def test_the_header_comes_with_the_first_block() -> None:
    blocks = list(write_csv(["n"], ([n] for n in range(2 * BLOCK + 1))))
    assert [block.count("\n") for block in blocks] == [BLOCK + 1, BLOCK, 1]
    assert [int(line) for (line,) in list(csv.reader("".join(blocks).splitlines()))[1:]] == list(range(2 * BLOCK + 1))


def test_records() -> None:
    records: list[dict[str, Any]] = [{"a": 1, "b": None}, {"a": 2.5, "b": "c"}]
    assert list(records_csv(records)) == ["a,b\n1,\n2.5,c\n"]
    assert list(records_csv([])) == []
    assert tab_separated(records[0]) == "1\t"


def test_no_text_is_a_formula_and_numbers_stay() -> None:
    texts = ["=1+1", "+1", "-1", "@A1", "\tx", "＝1", "a=1", "", "'x"]
    (block,) = write_csv(["n", "text", "list"], ([-5, text, [-1, 2]] for text in texts))
    rows = list(csv.reader(io.StringIO(block, newline="")))[1:]
    assert [row[1] for row in rows] == [f"'{text}" for text in texts[:6]] + texts[6:]
    assert {(row[0], row[2]) for row in rows} == {("-5", "-1 2")}
