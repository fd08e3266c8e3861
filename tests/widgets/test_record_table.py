"""The table of records: columns, cursor, sorting, children; with records that are nothing but names and numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.style import Style
from textual.app import App, ComposeResult

from tcpwatch.widgets.lines import Line, cells_of
from tcpwatch.widgets.table.cursor_table import CursorTable
from tcpwatch.widgets.table.record_columns import CellContext, RecordColumn, fit_pieces, sorted_records
from tcpwatch.widgets.table.record_table import RecordTable
from tests.support.driving import DrivenPilot, driven
from tests.support.shots import painted_lines


@dataclass(frozen=True)
class Thing:
    name: str
    size: int | None = 0
    parts: tuple[Thing, ...] = ()


def _size(one: Thing, look: CellContext) -> Line:
    return ((f"{one.size:,}" if look.exact else f"{one.size}", Style.null()),)


COLUMNS: tuple[RecordColumn[Thing], ...] = (
    RecordColumn("name", "Name", "", lambda one, look: ((one.name, Style.null()),), lambda one: one.name, 6, 8, 0),
    RecordColumn("size", "Size", "", _size, lambda one: one.size, 5, 0, 1, True),
    RecordColumn("bar", "", "", lambda one, look: (("█" * look.width, Style.null()),), None, 4, 3, 9),
)
THINGS = (Thing("b", 20), Thing("a", 3000), Thing("c", 1))


class TableApp(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.table: RecordTable[Thing] = RecordTable(
            COLUMNS, lambda one: one.name, sort="size", reverse=True, children=lambda one: one.parts,
            mark=lambda one: "-" if one.parts else " ",
        )  # fmt: skip

    def compose(self) -> ComposeResult:
        yield self.table

    def on_cursor_table_opened(self, message: CursorTable.Opened) -> None:
        assert message.table is self.table
        assert self.table.record is not None
        self.opened.append(self.table.record.name)


class Shown:
    def __init__(self, app: TableApp, pilot: DrivenPilot) -> None:
        self.app, self.pilot, self.table = app, pilot, app.table

    async def show(self, *things: Thing) -> None:
        self.table.show(things, ("nothing here",))
        await self.pilot.pause()

    def lines(self) -> list[str]:
        return [self.table.render_line(y).text.rstrip() for y in range(self.table.size.height)]

    def names(self) -> str:
        return "".join(one.name for one in self.table.records)

    @property
    def cursor(self) -> str | None:
        return self.table.record.name if self.table.record else None


@asynccontextmanager
async def shown(width: int = 30, height: int = 8) -> AsyncIterator[Shown]:
    app = TableApp()
    async with driven(app, (width, height)) as pilot:
        app.table.focus()
        await pilot.pause()
        yield Shown(app, pilot)


async def test_header_rows_and_cursor() -> None:
    async with shown() as it:
        await it.show(*THINGS)
        assert it.lines()[:5] == [
            "  Name   ▼Size",
            " ▸a       3000 ███████",
            "  b         20 ███████",
            "  c          1 ███████",
            "",
        ]


async def test_columns_leave_by_priority_and_texts_are_cut() -> None:
    async with shown(15, 5) as it:
        await it.show(Thing("a-long-name", 123456))
        assert it.lines()[:2] == ["  Name   ▼Size", " ▸a-…ame 1234…"]
        await it.pilot.resize_terminal(10, 5)
        assert it.lines()[:2] == ["  Name", " ▸a-l…ame"]


async def test_a_column_widens_for_what_comes_in_sight() -> None:
    async with shown(25) as it:
        await it.show(*THINGS)
        await it.show(Thing("a-long-name", 5), *THINGS)
        assert any("a-long-name" in line for line in it.lines())
        before = it.lines()[0]
        await it.show(*THINGS)
        assert it.lines()[0] == before, "columns do not jump back"


async def test_the_cursor_stays_on_its_record_while_rows_move() -> None:
    async with shown() as it:
        await it.show(*THINGS)
        await it.pilot.press("j")
        assert it.cursor == "b"
        await it.show(Thing("a", 1), Thing("b", 5000), Thing("c", 3), Thing("d", 9000))
        assert it.names() == "dbca"
        assert it.cursor == "b"
        await it.show(Thing("a", 1), Thing("c", 3))
        assert it.cursor == "a", "the place, where the record has gone"
        await it.show()
        assert not it.table.records
        assert "nothing here" in it.lines()[2]


async def test_an_untouched_cursor_stays_at_the_top() -> None:
    async with shown() as it:
        await it.show(*THINGS)
        await it.show(Thing("z", 9_999), *THINGS)
        assert it.cursor == "z"


KEYS = {"G": "099", "g": "000", "ctrl+d": "002", "pagedown": "007", "up": "006", "k": "005", "pageup": "000",
        "end": "099", "ctrl+u": "097", "down": "098", "home": "000", "j": "001"}  # fmt: skip


async def test_keys_move_and_scroll() -> None:
    async with shown(30, 6) as it:
        await it.show(*(Thing(f"{at:03}", -at) for at in range(100)))
        for key, where in KEYS.items():
            await it.pilot.press(key)
            assert it.cursor == where
            assert any(line.startswith(" ▸" + where) for line in it.lines())


async def test_sorting_by_keys_and_by_mouse() -> None:
    async with shown() as it:
        await it.show(*THINGS)
        await it.pilot.press("left")
        assert it.names() == "abc", "not while no column is chosen"
        await it.pilot.press("s", "s")
        assert it.names() == "cba"
        await it.pilot.press("left")
        assert it.names() == "abc"
        await it.pilot.press("right", "right")
        assert it.table.column.key == "size", "the bar is no column to sort by"
        await it.pilot.press("enter")
        assert not it.table.choosing_sort
        assert it.app.opened == []
        await it.pilot.click(RecordTable, offset=(3, 0))
        assert (it.table.column.key, it.names()) == ("name", "abc")
        await it.pilot.click(RecordTable, offset=(3, 0))
        assert it.names() == "cba"


async def test_escape_ends_choosing() -> None:
    async with shown() as it:
        await it.pilot.press("s", "escape")
        assert not it.table.choosing_sort


async def test_enter_and_a_double_click_open() -> None:
    async with shown() as it:
        await it.pilot.press("enter")
        await it.show(*THINGS)
        await it.pilot.press("j", "enter")
        await it.pilot.click(RecordTable, offset=(5, 3), times=2)
        assert it.app.opened == ["b", "c"]


async def test_children_stay_behind_their_record_in_the_same_order() -> None:
    whole = Thing("p", 100, (Thing("x", 1), Thing("y", 99)))
    async with shown() as it:
        await it.show(Thing("a", 3), whole, Thing("q", 5000))
        assert it.names() == "qpyxa"
        assert it.lines()[2].startswith("- p")
        await it.pilot.press("s", "s")
        assert it.names() == "apxyq"


async def test_exact_numbers() -> None:
    async with shown() as it:
        await it.show(*THINGS)
        it.table.show_exact(True)
        await it.pilot.pause()
        assert "3,000" in it.lines()[1]


async def test_text_of_records_is_no_markup() -> None:
    async with shown() as it:
        await it.show(Thing("[b]x[/]"))
        assert "[b]x[/]" in it.lines()[1]


@given(st.lists(st.sampled_from(["x", "日本", "long text", ""]), max_size=4), st.integers(0, 12), st.booleans())
def test_a_cell_has_its_width(texts: Sequence[str], width: int, right: bool) -> None:
    line = tuple((text, Style.null()) for text in texts)
    assert cells_of(fit_pieces(line, width, right)) == width


@pytest.mark.parametrize("reverse", [False, True])
def test_unknown_ones_come_last_and_equal_ones_keep_their_order(reverse: bool) -> None:
    things = [Thing("n", None), Thing("a", 1), Thing("b", 2), Thing("c", 1)]
    names = "".join(one.name for one in sorted_records(things, lambda one: one.size, reverse, lambda one: ()))
    assert names == ("bacn" if reverse else "acbn")


async def test_only_lines_that_differ_are_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with shown() as it:
        await it.show(*THINGS)
        painted = painted_lines(it.table, monkeypatch)

        async def paints(*things: Thing) -> list[int]:
            painted.clear()
            await it.show(*things)
            return painted

        assert await paints(*THINGS) == []
        assert await paints(Thing("b", 21), *THINGS[1:]) == [2]
        assert await paints(Thing("b", 1000), *THINGS[1:], Thing("d", 0)) == [2, 4]
        await it.pilot.press("j")
        assert await paints(Thing("b", 9000), *THINGS[1:], Thing("d", 0)) == [1, 2], "with the cursor"
        assert await paints(*(Thing(name, at) for at, name in enumerate("abcdef"))) == list(range(8))


async def test_another_theme_paints_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async with shown() as it:
        await it.show(*THINGS)
        before = it.table.render_line(0)
        it.app.theme = "textual-light"
        await it.pilot.pause()
        assert it.table.render_line(0) != before
