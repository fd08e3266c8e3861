"""Listeners, and what waits inside: what is drawn, folding, cursor, keys; with Views put in by hand."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tcpwatch import units
from tcpwatch.app import TcpwatchApp
from tcpwatch.model.listeners.accept_stalls import AcceptStall
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.listeners.queue_history import QueueTrend
from tcpwatch.model.view import View
from tcpwatch.sample import SourceInfo
from tcpwatch.screens.flow.page import FlowScreen
from tcpwatch.screens.listeners.page import MOST, ListenersPage
from tcpwatch.screens.main import MainScreen
from tcpwatch.screens.queue.page import QueueScreen
from tests.support.driving import DrivenPilot, at_sizes, at_widths, driven, until
from tests.support.shots import LARGE, SMALL, check_snapshot, make_app, page_shot, painted_lines, shot
from tests.support.shown import ShownTab
from tests.support.views import make_rows, make_sample, make_view, sock
from tests.support.waiting import LISTENERS, looked_into, members, somaxconn, waiting_view

SIZES = pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "160x50"])


@pytest.fixture(autouse=True)
def _few_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of services differ between machines."""
    names = {22: "ssh", 443: "https", 5432: "postgresql"}
    monkeypatch.setattr(units, "service", lambda port: names.get(port, str(port)))


class Shown(ShownTab[ListenersPage]):
    """The app on the listeners' tab, with the keys, and what can be read."""

    page_type = ListenersPage

    def __init__(self, app: TcpwatchApp, pilot: DrivenPilot) -> None:
        super().__init__(app, pilot)
        self.asked: list[ListenerKey | None] = []

    def look_into(self, key: ListenerKey | None) -> None:
        self.asked.append(key)

    @property
    def screen(self) -> QueueScreen:
        assert isinstance(self.app.screen, QueueScreen)
        return self.app.screen

    def line(self, having: str) -> str:
        """The only line with this."""
        found = [line for line in self.lines() if having in line]
        assert len(found) == 1, found
        return found[0]

    def ports(self) -> list[int]:
        """The rows from top to bottom; members of an unfolded group as their inodes."""
        return [row.fullest.inode if row.is_member else row.fullest.local_port for row in self.page.table.records]

    def under_cursor(self) -> int:
        row = self.page.table.record
        assert row is not None
        return row.fullest.inode if row.is_member else row.fullest.local_port


@asynccontextmanager
async def shown(view: View | None = None, size: tuple[int, int] = SMALL) -> AsyncIterator[Shown]:
    app = make_app()
    async with driven(app, size) as pilot:
        it = Shown(app, pilot)
        app.watch_queue = it.look_into  # type: ignore[method-assign]  # there is no monitor to be asked
        await pilot.press("3")
        if view is not None:
            await it.show(view)
        yield it


# What is drawn


@SIZES
async def test_looks(size: tuple[int, int]) -> None:
    async with shown(somaxconn(waiting_view(), 3), size) as it:
        await it.press("o", "j")
        check_snapshot(f"listeners_{size[0]}x{size[1]}", page_shot(it.app))
        await it.press("n", "o")
        check_snapshot(f"listeners_exact_{size[0]}x{size[1]}", page_shot(it.app))


async def test_small_things_still_show_the_queue() -> None:
    async with shown(waiting_view(), (40, 10)) as it:
        assert "513/512" in it.line("*:https")


async def test_nothing_important_is_cut_at_any_width() -> None:
    async with shown(waiting_view()) as it:
        async for width in at_widths(it.pilot, range(40, 200, 13), 24):
            figures = it.line(":8443")
            assert "0/4,096" in figures
            assert "…" not in figures.split(maxsplit=1)[1]
            assert all(len(line) <= width for line in it.lines())


async def test_the_first_step_and_nobody() -> None:
    async with shown() as it:
        assert "no data yet" in it.lines()[2]
        await it.show(make_view())
        assert "No TCP listeners." in shot(it.app)
        assert "0 listeners · overflows – · drops –" in it.lines()[2]
        await it.press("enter", "o", "c", "x")


async def test_a_source_that_tells_no_queues_has_no_figures() -> None:
    rows = make_rows([*LISTENERS, *members()])
    sample = make_sample(rows, source=SourceInfo("psutil", "user"))
    listeners = make_view(*LISTENERS, *members(), sample=sample).listeners
    view = waiting_view(sample=sample, listeners=listeners, queue_trend=QueueTrend())
    async with shown(view, LARGE) as it:
        row = it.line("nginx")
        assert "513" not in row
        assert "–" in row
        assert not any(sign in row for sign in "▁▂▃▄▅▆▇█≥")
        await it.press("enter")
        assert it.screen.row is not None
        await it.show(looked_into(view, it.screen.row.fullest.local_port))
        assert "This source cannot list the members of a queue." in shot(it.app)


@pytest.mark.parametrize(("opened", "sign"), [(1298.0, ""), (9_000.0, "≥")])
async def test_what_the_polls_cannot_have_seen(opened: float, sign: str) -> None:
    async with shown(waiting_view(accepted_at_most_per_s=opened)) as it:
        assert f" {sign}47 " in it.line("https")
        assert ("accept ≥: 1,297 of 9,000/s" in shot(it.app)) is bool(sign)
        await it.pilot.resize_terminal(*LARGE)
        assert ("accept rates are minimums: 9,000/s accepted, 1,297/s attributed" in shot(it.app)) is bool(sign)


async def test_a_socket_that_certainly_accepts_nothing_has_an_exact_figure() -> None:
    view = waiting_view(accepted_at_most_per_s=9_000.0)
    stalled = tuple(replace(one, stall=AcceptStall(9.0) if one.local_port == 22 else None) for one in view.listeners)
    async with shown(replace(view, listeners=stalled)) as it:
        assert " 0 " in it.line("sshd")
        assert "≥" not in it.line("sshd")
        assert " ≥0 " in it.line("8443")


async def test_the_sign_stays_for_some_seconds() -> None:
    async with shown(waiting_view(accepted_at_most_per_s=9_000.0)) as it:
        for step, sign in ((3, "≥"), (9, "≥"), (14, ""), (15, "")):
            await it.show(waiting_view(step=step, accepted_at_most_per_s=1298.0))
            assert f" {sign}47 " in it.line("https"), step


async def test_half_open_without_a_listener() -> None:
    async with shown(waiting_view()) as it:
        assert it.lines()[3] == " 2 half-open connections whose listener has closed"
        await it.show(make_view(*LISTENERS))
        assert it.lines()[3] == ""


# Groups


async def test_a_lazy_member_is_seen_in_the_folded_group() -> None:
    async with shown(waiting_view()) as it:
        row = it.line("*:9000")
        assert row.startswith("+▸")
        assert "×3" in row
        assert "6/12" in row
        assert "5/4" in row, "the fullest"


async def test_unfolding_shows_each_member_with_its_own_depth() -> None:
    async with shown(waiting_view()) as it:
        folded = it.ports()
        await it.press("o")
        assert it.ports() == [9000, 100_006, 100_007, 100_005, *folded[1:]]
        lines = it.lines()
        first = next(y for y, line in enumerate(lines) if "*:9000" in line)
        assert [line.split()[3:4] for line in lines[first + 1 : first + 4]] == [["5/4"], ["1/4"], ["0/4"]]
        assert "app[901]" in lines[first + 1]
        await it.press("j", "j", "o")
        assert (it.ports(), it.under_cursor()) == (folded, 9000)


async def test_only_groups_unfold() -> None:
    async with shown(waiting_view()) as it:
        before = it.ports()
        await it.press("j", "o")
        assert it.ports() == before
        assert "o unfold" in it.lines()[-1]
        await it.show(make_view(sock("LISTEN", "0.0.0.0:22", process="sshd", pid=700)))
        assert "o unfold" not in it.lines()[-1]


async def test_a_group_that_becomes_one_socket() -> None:
    async with shown(waiting_view()) as it:
        await it.press("o", "j")
        await it.show(make_view(*LISTENERS[:5]))
        assert it.ports().count(9000) == 1
        assert "×" not in it.line("*:9000")


# The cursor and the order


async def test_the_cursor_stays_on_its_listener_while_rows_move() -> None:
    async with shown(waiting_view()) as it:
        await it.press("G")
        assert it.under_cursor() == 8443
        fuller = [replace(s, recv_queue=5000) if s.cookie == 8 else s for s in LISTENERS]
        await it.show(make_view(*fuller, step=3))
        assert it.under_cursor() == 8443
        await it.show(make_view(*fuller[:-1], step=4))
        assert it.page.table.cursor == 1, "the place, where the listener has gone"


async def test_order() -> None:
    async with shown(waiting_view()) as it:
        assert it.ports() == [9000, 443, 8080, 22, 5432, 8443]
        await it.press("s")
        assert "sort by Accept-Q ▼" in it.lines()[2]
        await it.press("s")
        assert it.ports() == [22, 5432, 8443, 8080, 443, 9000]
        await it.press("left", "left")
        assert it.ports() == [22, 443, 5432, 8080, 8443, 9000]
        await it.press("enter")
        assert "sort Listener ▲" in it.lines()[2]


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_every_column_sorts(size: tuple[int, int]) -> None:
    async with shown(waiting_view(), size) as it:
        await it.press("s", *["left"] * 20)
        seen = []
        for _ in range(20):
            seen.append(it.page.table.column.key)
            assert it.page.table.column.title in it.lines()[4] or not it.page.table.column.title
            await it.press("right")
        assert len(set(seen)) == 12


async def test_the_order_survives_a_resize() -> None:
    async with shown(waiting_view(), LARGE) as it:
        await it.press("s", "s")
        await it.pilot.resize_terminal(*SMALL)
        await it.show(waiting_view(step=3))
        assert "▲Accept-Q" in it.lines()[4]


# The filter


async def test_filtering_while_typing() -> None:
    async with shown(waiting_view(), LARGE) as it:
        all_of_them = it.ports()
        await it.press("slash", *"process:nginx")
        assert it.ports() == [443]
        assert it.lines()[2].startswith(" 1 of 8 listeners · filter process:nginx · overflows ")
        await it.press("enter")
        assert it.page.table.has_focus
        await it.show(waiting_view(step=3))
        assert it.ports() == [443]
        await it.press("escape")
        assert it.ports() == all_of_them
        assert it.lines()[2].startswith(" 8 listeners, 1 group · overflows ")
        assert isinstance(it.page, ListenersPage), "Esc takes the filter away and stays here"
        await it.press("slash", *"x:", "escape")
        assert it.page.table.has_focus


async def test_a_group_is_shown_when_a_member_passes() -> None:
    async with shown(waiting_view()) as it:
        it.page.set_filter("pid:901")
        await it.press("o")
        assert it.ports() == [9000, 100_006, 100_007, 100_005], "with all its members"
        assert it.lines()[2].startswith(" 3 of 8 listeners, 1 group · filter pid:901")
        it.page.set_filter("-pid:901")
        await it.press("j")
        assert it.ports()[0] == 9000, "others of it pass"


async def test_a_group_stays_unfolded_while_a_filter_hides_it_and_the_cursor_comes_back() -> None:
    async with shown(waiting_view()) as it:
        await it.press("o", "j")
        before = it.ports()
        it.page.set_filter("process:nginx")
        await it.show(waiting_view(step=3))
        assert (it.ports(), it.under_cursor()) == ([443], 443)
        it.page.set_filter("")
        await it.show(waiting_view(step=4))
        assert it.ports() == before
        assert it.under_cursor() == before[1], "a member of the group"
        await it.press("G")
        it.page.set_filter("process:nginx")
        await it.show(waiting_view(step=5))
        await it.press("j")
        it.page.set_filter("")
        await it.show(waiting_view(step=6))
        assert it.under_cursor() == 443, "where somebody moved the cursor since"


async def test_a_filter_that_nothing_passes_or_nobody_understands() -> None:
    async with shown(waiting_view()) as it:
        it.page.set_filter("port:1")
        await it.press("x", "c", "enter", "o")
        assert "None of 8 listeners match the filter." in shot(it.app)
        assert "/ edits the filter, Esc clears it." in shot(it.app)
        it.page.set_filter("state:nonsense")
        await it.press("j")
        assert "no state is spelled" in shot(it.app)


async def test_only_what_the_filter_shows_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with shown(waiting_view()) as it:
        it.page.set_filter("process:nginx")
        await it.press("x")
        await until(it.pilot, lambda: bool(list(tmp_path.glob("tcpwatch-listeners-*.csv"))))
    (path,) = tmp_path.iterdir()
    with path.open(encoding="utf-8", newline="") as file:
        assert [line["local_port"] for line in csv.DictReader(file)] == ["443"]


# What is painted


async def test_only_lines_that_differ_are_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with shown(waiting_view(), LARGE) as it:
        painted = painted_lines(it.page.table, monkeypatch)
        await it.show(waiting_view())
        assert painted == []
        view = waiting_view()
        others = (replace(one, drops_per_s=5.0) if one.local_port == 22 else one for one in view.listeners)
        await it.show(replace(view, listeners=tuple(others)))
        assert painted == [1 + it.ports().index(22)]


# What waits inside


async def test_inside_looks() -> None:
    async with shown(looked_into(waiting_view(), 443)) as it:
        await it.press("j", "enter")
        async for width, height in at_sizes(it.pilot, (SMALL, LARGE)):
            check_snapshot(f"listeners_inside_{width}x{height}", page_shot(it.app))


async def test_inside_a_group_looks() -> None:
    async with shown(looked_into(waiting_view(), 9000)) as it:
        await it.press("enter")
        async for width, height in at_sizes(it.pilot, (SMALL, LARGE)):
            check_snapshot(f"listeners_inside_group_{width}x{height}", page_shot(it.app))


async def test_members_come_with_the_next_view_and_are_asked_for_as_long() -> None:
    view = waiting_view()
    key = view.listeners[1].key
    async with shown(view) as it:
        await it.press("j", "enter")
        assert it.asked == [key]
        assert "Waiting for the next poll." in shot(it.app)
        await it.show(looked_into(waiting_view(step=3), 443))
        assert "Accept queue: 7, 2 closed by the client" in shot(it.app)
        assert "SYN queue: 5, 3 retried" in shot(it.app)
        await it.press("escape")
        assert isinstance(it.app.screen, MainScreen)
        await until(it.pilot, lambda: it.asked == [key, None])


async def test_oldest_first_and_what_is_told_of_each() -> None:
    async with shown(looked_into(waiting_view(), 443)) as it:
        await it.press("j", "enter")
        ages = [one.age_s for one in it.screen.accept_queue.table.records]
        assert ages == sorted(ages, reverse=True)
        assert it.line("203.0.113.0:4000").split() == ["▸", "≥30", "s", "203.0.113.0:4000", "0"]
        assert it.line("203.0.113.6:4006").split()[:3] == ["24", "s", "203.0.113.6:4006"]
        assert "1034" in it.line("203.0.113.2:4002")
        assert "client closed" in it.line("203.0.113.2:4002")
        assert "~" in it.line("198.51.100.0:5000")
        assert "~" not in it.line("198.51.100.4:5004")


async def test_enter_on_a_member_opens_its_flow() -> None:
    async with shown(looked_into(waiting_view(), 443)) as it:
        await it.press("j", "enter", "j", "enter")
        assert isinstance(it.app.screen, FlowScreen)
        assert "203.0.113.1:4001" in it.lines()[1]
        await it.press("escape", "tab", "enter")
        assert isinstance(it.app.screen, FlowScreen)
        assert "SYN_RCVD" in it.lines()[1]
        await it.press("escape")
        assert it.asked[-1] is not None


async def test_a_listener_that_has_gone() -> None:
    async with shown(looked_into(waiting_view(), 443)) as it:
        await it.press("j", "enter")
        await it.show(make_view(*LISTENERS[1:], step=3))
        assert "*:https  this listener has closed" in it.lines()[1]
        assert "203.0.113" not in shot(it.app)
        await it.show(looked_into(waiting_view(step=4), 443))
        assert "203.0.113.1" in shot(it.app)


async def test_paused_nothing_comes() -> None:
    async with shown(waiting_view()) as it:
        await it.press("space", "enter")
        assert "Not updated while paused (space)." in shot(it.app)


async def test_only_the_first_are_listed() -> None:
    crowd = [
        sock("SYN_RCVD", "10.0.0.1:22", f"198.51.{at >> 8}.{at & 255}:6000", cookie=1000 + at) for at in range(1200)
    ]
    async with shown(looked_into(waiting_view(*crowd), 22)) as it:
        await it.press(*"jjj", "enter", "tab", "G")
        assert "SYN queue: 1,200, first 1,000 listed" in shot(it.app)
        assert len(it.screen.syn_queue.table.records) == 1000


# Copy, export, help


async def test_copy() -> None:
    async with shown(waiting_view()) as it:
        await it.press("j", "c")
        assert it.app.clipboard.startswith("0.0.0.0\t443\tnginx\t1234\t513\t512\t")


async def test_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with shown(waiting_view()) as it:
        await it.press("o", "x")
        await until(it.pilot, lambda: bool(list(tmp_path.glob("tcpwatch-listeners-*.csv"))))
    (path,) = tmp_path.iterdir()
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["accept_queue"] for line in lines[:4]] == ["5", "1", "0", "513"]
    assert lines[3]["process"] == "nginx"
    assert lines[3]["oldest_wait_s"] == "75.0"
    assert len(lines) == len(LISTENERS)


async def test_an_export_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    async with shown(waiting_view()) as it:
        monkeypatch.setattr(it.page, "notify", lambda words, **how: said.append(words))
        monkeypatch.setattr("tcpwatch.screens.shared.export.write_new", _refused)
        await it.press("x")
        await until(it.pilot, lambda: bool(said))
    assert said[0].startswith("cannot write ")
    assert "Permission denied" in said[0]


def _refused(*_: object) -> None:
    raise PermissionError(13, "Permission denied")


async def test_help_explains_the_columns() -> None:
    async with shown(waiting_view(), (120, 60)) as it:
        await it.press("question_mark")
        assert "SO_REUSEPORT" in shot(it.app)
        await it.press("escape", "enter", "question_mark")
        assert "client closed" in shot(it.app)


async def test_the_next_one_opened_is_asked_for_although_the_last_one_is_still_closing() -> None:
    async with shown(waiting_view()) as it:
        keys = {one.local_port: one.key for one in it.app.view.listeners}  # type: ignore[union-attr]
        await it.press("enter", "escape", "j", "enter")
        assert it.asked == [keys[9000], None, keys[443]]


async def test_of_very_many_listeners_the_fullest_are_shown_and_the_filter_finds_the_others() -> None:
    depths = {9_000: 3, 9_500: 1}
    socks = [
        sock("LISTEN", f"0.0.0.0:{port}", recv_queue=depths.get(port, 0), send_queue=10)
        for port in range(8_000, 8_000 + MOST + 300)
    ]
    view = make_view(*socks)
    async with shown(view) as it:
        assert it.ports()[:3] == [9_000, 9_500, 8_000]
        assert len(it.ports()) == MOST
        assert it.line("2,300 listeners, the 2,000 with the fullest accept queues shown")
        it.page.set_filter(f"lport:{8_000 + MOST + 299}")
        await it.show(view)
        assert it.ports() == [8_000 + MOST + 299]
        assert not any("queues shown" in line for line in it.lines())
