"""The page of timelines: what is drawn, the moment, the window, cursor, filter, export; with Views put in by hand."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcpwatch import units
from tcpwatch.app import TcpwatchApp
from tcpwatch.model.lifecycle.archive import RECORD, Archive
from tcpwatch.model.lifecycle.trace.stats import TraceStats
from tcpwatch.model.query.timeline import timelines_at
from tcpwatch.model.query.timeline_arrangement import TimelineArrangement, TimelineArranger, TimelineSort
from tcpwatch.model.view import View
from tcpwatch.screens.main import MainScreen
from tcpwatch.screens.shared.page import FlowSelected
from tcpwatch.screens.timelines import page as timelines
from tcpwatch.screens.timelines import table as timeline_table
from tcpwatch.screens.timelines.page import TimelinesPage
from tests.support.driving import at_widths, driven, until
from tests.support.lifetimes import living
from tests.support.shots import LARGE, SMALL, check_snapshot, make_app, page_shot, painted_lines, shot
from tests.support.shown import ShownTab
from tests.support.views import NOW, make_view, sock

SIZES = pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "160x50"])


@pytest.fixture(autouse=True)
def _same_services(utc: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the names of services, which differ between machines."""
    names = {443: "https", 5432: "postgresql"}
    monkeypatch.setattr(units, "service", lambda port: names.get(port, str(port)))


class Shown(ShownTab[TimelinesPage]):
    """The app on the tab, with the keys, and what can be read."""

    page_type = TimelinesPage

    def line(self, having: str) -> str:
        """The only row of the table with this."""
        found = [line for line in self.lines()[5:-2] if having in line]
        assert len(found) == 1, found
        return found[0]

    def moment(self) -> str:
        """What the last line but one says."""
        return self.lines()[-2]

    def cookies(self) -> list[int]:
        chosen = self.page.table.arrangement
        return [chosen.cookie(place) for place in range(len(chosen))] if chosen is not None else []

    def under_cursor(self) -> int:
        flow = self.page.table.flow
        assert flow is not None
        return flow.cookie


@asynccontextmanager
async def shown(view: View | None = None, size: tuple[int, int] = SMALL) -> AsyncIterator[Shown]:
    app = make_app()
    async with driven(app, size) as pilot:
        it = Shown(app, pilot)
        app.watch_flows = lambda cookies: None  # type: ignore[method-assign]  # there is no monitor to be asked
        await pilot.press("6")
        if view is not None:
            await it.show(view)
        yield it


BEGUN = [3, 15, 7, 14, 12, 6, 5, 2, 13, 11, 4]
"""The flows of `living`, the newest first."""


# What is drawn


@SIZES
async def test_looks(size: tuple[int, int]) -> None:
    async with shown(living(), size) as it:
        check_snapshot(f"timelines_{size[0]}x{size[1]}", page_shot(it.app))
        await it.press(*"jjjj", *["left"] * 14, "less_than_sign", "n")
        check_snapshot(f"timelines_held_exact_{size[0]}x{size[1]}", page_shot(it.app))


async def test_every_width_has_rows_and_an_axis() -> None:
    async with shown(living()) as it:
        async for width in at_widths(it.pilot, range(40, 240, 13), 24):
            assert all(len(line) <= width for line in it.lines())
            assert "━" in it.lines()[5 + BEGUN.index(2)]
            assert "x" in it.lines()[5 + BEGUN.index(11)]
            assert it.page.table.cells >= 14
            assert "▼" in it.lines()[4]


async def test_the_first_step_and_nobody() -> None:
    async with shown() as it:
        assert "no data yet" in shot(it.app)
        await it.press("0", "left", "less_than_sign", "f", "c", "x", "enter", "right_square_bracket")
        await it.show(make_view())
        assert "No connections, and none" in shot(it.app)
        assert it.lines()[2].startswith(" 0 flows: 0 live, 0 closed")
        await it.press("0", "left", "less_than_sign", "f", "c", "x", "enter", "j")


async def test_how_well_times_are_known_is_said() -> None:
    async with shown(living()) as it:
        assert "times from the trace" in it.lines()[3]
        await it.show(living(trace=TraceStats(why_no_trace="needs root")))
        assert "times exact to one poll: no trace (needs root)" in it.lines()[3]
        await it.show(living(trace=TraceStats(on=True, events_lost=1_234, destroy_events_lost=1)))
        assert "1,234 trace events lost · 1 end lost" in it.lines()[3]
        await it.show(living(archive=replace(living().archive, records_total=90_000)))
        assert "keeps 6 of 90,000 closed" in it.lines()[3]


async def test_only_lines_that_differ_are_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with shown(living()) as it:
        await it.press("left")
        painted = painted_lines(it.page.table, monkeypatch)
        await it.show(living())
        assert painted == []


# The moment


async def test_the_cursor_shows_the_moment() -> None:
    async with shown(living()) as it:
        assert it.moment() == " ▼ now  SYN_RCVD for 3 s · since 22:13:17.0 (polled ±1.0 s)"
        await it.press("j", "j", *["left"] * 4)
        assert it.moment().startswith(" ▼ 22:13:13.")
        assert "ESTABLISHED for 14 s of 14 s · since 22:13:00.010 (trace)" in it.moment()
        await it.press("j")
        assert "ended 6.2 s before" not in it.moment()
        await it.press("f")
        assert it.moment().startswith(" ▼ now  ended 6.000 s ago: closed by peer · destroy event")
        await it.press("G")
        assert "ESTABLISHED for at least 1 h 00 m · before 21:13:20.0" in it.moment()


async def test_a_moment_before_the_beginning_and_one_between_two_polls() -> None:
    async with shown(living(), LARGE) as it:
        await it.press(*["left"] * 20)
        assert "begins 22:13:17.0 (polled ±1.0 s)" in it.moment()
        await it.press("f", *"jjjjj")
        table = it.page.table
        table.set_window(table.window.with_cursor_at(NOW - 9.5, NOW, table.cells))
        await it.pilot.pause()
        assert "ESTABLISHED or CLOSE_WAIT: the state changed between two polls" in it.moment()


async def test_repeats_are_told_where_they_happened() -> None:
    async with shown(living()) as it:
        table = it.page.table
        assert "*" in it.line("203.0.113.2")
        await it.press(*"jjjjjjj", "0")
        table.set_window(table.window.with_cursor_at(NOW - 19.95, NOW, table.cells))
        await it.pilot.pause()
        assert "2 retransmitted" in it.moment()


async def test_a_flow_of_two_milliseconds_is_found_by_zooming() -> None:
    async with shown(living()) as it:
        await it.press(*"jjjj")
        assert it.line("203.0.113.12").split("2.0 ms")[1].strip() == "|"
        table = it.page.table
        cell = table.axis.cell(NOW - 25)
        table.set_window(table.window.with_cursor_at(table.axis.middle(cell), NOW, table.cells))
        await it.press(*["less_than_sign"] * 12)
        assert "< 5 ms >" in it.lines()[3]
        assert "E━━" in it.line("203.0.113.12")


# The window


async def test_following_moves_with_each_view_and_a_held_window_stands_still() -> None:
    async with shown(living()) as it:
        before = it.lines()[4]
        await it.show(living(step=20))
        assert it.lines()[4] != before
        await it.press("left")
        held = it.lines()[4]
        assert "fixed, f follows" in it.lines()[3]
        await it.show(living(step=60))
        assert it.lines()[4] == held
        await it.press("f")
        assert "following" in it.lines()[3]
        assert it.lines()[4] != held


async def test_keys_of_the_window() -> None:
    async with shown(living()) as it:
        table = it.page.table
        await it.press("less_than_sign")
        assert "< 30 s >" in it.lines()[3]
        await it.press("greater_than_sign", "greater_than_sign")
        assert "< 2 m >" in it.lines()[3]
        await it.press("left_square_bracket")
        assert table.moment == NOW - 60
        await it.press("shift+left")
        assert table.moment == NOW - 120
        await it.press("right_square_bracket", "shift+right", "shift+right")
        assert table.moment == NOW
        await it.press("h", "h", "l", "left", "right")
        assert table.cursor_cell == table.cells - 2


async def test_fit_shows_all_of_the_flow_under_the_cursor() -> None:
    async with shown(living()) as it:
        await it.press(*"jjjj", "0")
        assert "R┄┄" in it.line("203.0.113.12")
        assert "C╍╍" in it.line("203.0.113.12")
        assert "< 2.2 ms >" in it.lines()[3]
        await it.press("G", "0")
        assert "< 1 h 06 m >" in it.lines()[3]


async def test_a_click_sets_the_flow_and_the_moment() -> None:
    async with shown(living()) as it:
        table = it.page.table
        await it.pilot.click(table, offset=(60, 4))
        assert it.under_cursor() == BEGUN[3]
        assert it.lines()[4][60] == "▼"
        await it.pilot.click(table, offset=(10, 2))
        assert it.under_cursor() == BEGUN[1]
        assert it.lines()[4][60] == "▼"


async def test_left_and_right_choose_a_column_while_one_is_chosen() -> None:
    async with shown(living()) as it:
        await it.press("s", "right")
        assert "sort by Length" in it.lines()[2]
        assert "following" in it.lines()[3]
        await it.press("enter", "left")
        assert "sort Length ▼" in it.lines()[2]
        assert "fixed" in it.lines()[3]
        assert isinstance(it.app.screen, MainScreen), "Enter ended the choice"


async def test_a_resize_keeps_the_moment() -> None:
    async with shown(living()) as it:
        await it.press("j", *["left"] * 5)
        moment = it.page.table.moment
        await it.pilot.resize_terminal(*LARGE)
        assert it.page.table.moment == moment
        assert it.lines()[4].rindex("▼") > 90


# The cursor and the order


async def test_the_cursor_stays_on_its_flow_also_when_that_closes() -> None:
    async with shown(living()) as it:
        await it.press("j", "j")
        assert it.under_cursor() == 7
        view = living(2, sock("SYN_SENT", "10.0.0.1:5", "10.0.0.2:6", cookie=99))
        await it.show(view)
        assert (it.under_cursor(), it.page.table.cursor) == (7, 3)
        await it.press(*"jjjjj")
        assert it.under_cursor() == 2
        record = np.zeros(1, RECORD)
        record["cookie"], record["begin"], record["end"], record["state"] = 2, NOW - 45, NOW + 1, 1
        gone = [at for at, cookie in enumerate(view.rows.cookie.tolist()) if cookie != 2]
        past = replace(view.archive, records=(*view.archive.records, record))
        await it.show(replace(view, step=3, rows=view.rows.take(np.array(gone)), archive=past))
        assert it.under_cursor() == 2
        assert it.line("▸").startswith("×▸?")


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_every_order_can_be_chosen(size: tuple[int, int]) -> None:
    async with shown(living(), size) as it:
        assert it.cookies() == BEGUN
        await it.press("s", *["left"] * 9)
        seen = []
        for _ in range(9):
            seen.append(it.page.table.by)
            assert it.page.table.arrangement is not None
            assert it.page.table.arrangement.by is seen[-1]
            await it.press("right")
        assert set(seen) == set(TimelineSort)
        await it.press("left", "right", "s", "enter")
        assert "sort Ending ▼" in it.lines()[2]


async def test_pause_freezes() -> None:
    async with shown(living()) as it:
        await it.press("space")
        before = it.lines()[2:]
        await it.show(living(step=30))
        assert it.lines()[2:] == before
        await it.press("j", "left", "less_than_sign", "0")
        assert "fixed" in it.lines()[3]
        await it.press("space", "f")
        assert it.page.table.now == NOW + 29


# The filter


async def test_filtering_while_typing() -> None:
    async with shown(living()) as it:
        await it.press(*"jjjj", "slash", *"process:app")
        assert it.cookies() == [13, 4]
        assert it.lines()[2].startswith(" 2 of 11 flows: 1 live, 1 closed · filter process:app")
        await it.press("enter")
        assert it.page.table.has_focus
        await it.show(living(step=2))
        assert it.cookies() == [13, 4]
        await it.press("escape")
        assert (it.cookies(), it.under_cursor()) == (BEGUN, 12), "back on the flow that was hidden"
        it.page.set_filter("port:1")
        await it.pilot.pause()
        assert "None of 11 flows match the filter." in shot(it.app)
        await it.press("enter", "x", "c", "0")


# What a person does with them


async def test_enter_opens_a_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    monkeypatch.setattr(TcpwatchApp, "on_flow_selected", lambda app, message: opened.append(message.cookie))
    async with shown(living()) as it:
        await it.press(*"jjjj", "enter")
        assert opened == [12]
        assert FlowSelected(12).cookie == 12


async def test_copy_and_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with shown(living()) as it:
        it.page.set_filter("port:443")
        await it.press(*"jjj", "c")
        assert it.app.clipboard.startswith("12\t10.0.0.1\t443\t203.0.113.12\t40012\tserver\tnginx[1234]\t1234\tFalse")
        await it.press("x")
        await until(it.pilot, lambda: bool(list(tmp_path.glob("tcpwatch-timelines-*.csv"))))
    (path,) = tmp_path.iterdir()
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["cookie"]) for line in lines] == [3, 7, 14, 12, 6, 5, 2, 11]
    assert (lines[3]["ending"], lines[3]["length_s"], lines[3]["received_bytes"]) == ("closed by peer", "0.002", "400")


async def test_help_explains_the_signs() -> None:
    async with shown(living(), (300, 60)) as it:
        await it.press("question_mark")
        told = shot(it.app)
        for words in ("E━━━", "closed with a FIN", "half a window earlier", "Timelines' columns", "zoom out"):
            assert words in told


async def test_hostile_names_are_shown_as_they_are_spelled() -> None:
    name = "[@click=app.quit]x[/]"
    flow = sock("ESTAB", "10.0.0.1:5", "10.0.0.2:6", process=name, pid=9, age_s=5)
    async with shown(make_view(flow, trace=TraceStats(why_no_trace="[/x]")), (200, 24)) as it:
        assert "[@clic" in it.line("10.0.0.2:6")
        assert "no trace ([/x])" in it.lines()[3]


# Very many


def crowd(size: int, first: int = 1) -> np.ndarray[Any, Any]:
    """Records of flows that closed, one each 0.1 ms."""
    records = np.zeros(size, RECORD)
    records["cookie"] = first + np.arange(size)
    records["begin"] = NOW - 60 + np.arange(size) * 1e-4
    records["end"], records["ending"], records["state"] = records["begin"] + 0.5, 2, 1
    records["row"]["idiag_family"], records["row"]["idiag_sport"], records["row"]["idiag_dport"] = 2, 443, 5000
    return records


async def test_of_a_hundred_thousand_only_those_in_sight_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(chosen: TimelineArrangement, first: int, last: int) -> Any:
        made.append(last - first)
        return timelines_at(chosen, first, last)

    monkeypatch.setattr(timeline_table, "timelines_at", counted)
    view = make_view(archive=Archive((crowd(60_000), crowd(40_000, 60_001))))
    async with shown(view) as it:
        await until(it.pilot, lambda: "100,000 flows" in shot(it.app))
        await it.press("j", "G", "left", "less_than_sign")
        assert it.under_cursor() == 1
        assert sum(made) <= 4 * it.page.table.size.height
        await it.press("slash", *"port:5001", "enter")
        await until(it.pilot, lambda: "None of 100,000 flows match" in shot(it.app))


async def test_an_answer_that_comes_late_does_not_undo_a_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timelines, "MAX_INLINE_FLOWS", 0)
    async with shown(living()) as it:
        await until(it.pilot, lambda: bool(it.cookies()))
        page, old = it.page, it.page.table.arrangement
        assert old is not None
        page._worker._receive(0, TimelineArranger().arrange(old.view, old.filter, TimelineSort.END, False))
        assert page.table.arrangement is old


async def test_a_bug_in_the_thread_ends_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timelines, "MAX_INLINE_FLOWS", 0)
    monkeypatch.setattr(TimelineArranger, "arrange", lambda *request: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        async with shown(living()) as it:
            await until(it.pilot, lambda: it.app._exception is not None)
