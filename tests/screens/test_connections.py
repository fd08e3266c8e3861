"""The connections page, with Views put in by hand."""

from __future__ import annotations

import csv
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textual.app import App, ComposeResult
from textual.widgets import Input, Static

from tcpwatch import units
from tcpwatch.model.columns.columns import EXPORTED, IN_TABLE
from tcpwatch.model.query.arrangement import Arrangement
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.sockets.throughput import Throughput
from tcpwatch.sample import SourceInfo
from tcpwatch.screens.connections import page as connections
from tcpwatch.screens.connections.page import ConnectionsPage
from tcpwatch.screens.shared.arranger import LatestRequestWorker
from tcpwatch.screens.shared.page import FlowSelected
from tests.support.driving import DrivenPilot, driven, until
from tests.support.kernel.infos import make_infos
from tests.support.shots import check_snapshot, painted_lines, recorded_calls, shot
from tests.support.views import Sock, make_rows, make_sample, make_view, sock, view_of


class PageApp(App[None]):
    """Nothing but the page; remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[int] = []
        self.said: list[str] = []

    def compose(self) -> ComposeResult:
        yield ConnectionsPage()

    def on_flow_selected(self, message: FlowSelected) -> None:
        self.opened.append(message.cookie)

    def notify(self, message: str, **options: object) -> None:
        assert options["markup"] is False
        self.said.append(message)


class Opened:
    """The page, the keys, and what can be read on the screen."""

    def __init__(self, app: PageApp, pilot: DrivenPilot) -> None:
        self.app, self.pilot = app, pilot
        self.page = app.query_one(ConnectionsPage)
        self.table = self.page.table

    async def show(self, *socks: Sock, step: int = 1, closed: tuple[Sock, ...] = ()) -> None:
        view = make_view(*socks, step=step, closed=closed)
        self.page.show(replace(view, rows=replace(view.rows, throughput=THROUGHPUT)))
        await self.pilot.pause()

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    def lines(self) -> list[str]:
        """The table's lines as text."""
        return [self.table.render_line(y).text for y in range(self.table.size.height)]

    def title(self) -> str:
        lines = self.page.heading.lines
        return "".join(piece for piece, _ in lines[0]).strip() if lines else ""

    def wrong(self) -> str:
        return str(self.page.query_one(".filter--wrong", Static).content) if self.page.query(".-wrong") else ""

    def under_cursor(self) -> int | None:
        marked = [line for line in self.lines() if line[1:2] == "▸"]
        assert len(marked) <= 1
        return self.table.cursor_cookie if marked else None


@asynccontextmanager
async def opened(width: int = 80, height: int = 24) -> AsyncIterator[Opened]:
    app = PageApp()
    async with driven(app, (width, height)) as pilot:
        page = Opened(app, pilot)
        page.table.focus()
        await pilot.pause()
        yield page


@pytest.fixture(autouse=True)
def _few_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of services differ between machines."""
    names = {22: "ssh", 443: "https", 5432: "postgresql"}
    monkeypatch.setattr(units, "service", lambda port: names.get(port, str(port)))


HOSTILE = "[@click=app.quit]x[/]"
SOCKS = (
    sock("LISTEN", "0.0.0.0:22", process="sshd", pid=801, send_queue=128, role="listener", age_s=9e5, begin_seen=False),
    sock("LISTEN", "[::]:443", process="nginx", pid=1234, also=[(1235, "nginx"), (1236, "nginx")], recv_queue=513,
         send_queue=511, role="listener", age_s=9e5, begin_seen=False),
    sock("SYN_RCVD", "10.0.0.1:443", "203.0.113.7:40001", timer="on", timer_s=2.5, retransmits=3, role="server"),
    sock("ESTABLISHED", "10.0.0.1:443", "203.0.113.200:40002", process="nginx", pid=1235, user="www-data", uid=33,
         send_queue=4_000_000, role="server", age_s=75, state_age_s=75, mark="new", timer="on", timer_s=0.2),
    sock("ESTABLISHED", "[2001:db8::10]:443", "[2001:db8:85a3:1:0:8a2e:a56f:ed]:57189", process="nginx", pid=1235,
         user="www-data", uid=33, role="server", age_s=3, recv_queue=70_000),
    sock("CLOSE_WAIT", "192.168.100.200:51234", "192.168.100.201:5432", process=HOSTILE, pid=9, recv_queue=1,
         role="client", closer="peer", age_s=7200, state_age_s=3700, mark="changed"),
    sock("TIME_WAIT", "10.0.0.1:443", "203.0.113.9:40003", timer="timewait", timer_s=31, closer="local", age_s=29),
    sock("FIN_WAIT_2", "10.0.0.1:443", "203.0.113.9:40004", process="\\x1b[31mred", pid=7, timer="timewait", age_s=1),
)  # fmt: skip
THROUGHPUT = Throughput(
    make_infos({
        4: {"bytes_acked": 987_654_321, "rtt": 23_456, "total_retrans": 12, "busy_time": 10**6},
        5: {"bytes_received": 1_234, "rtt": 45},
        6: {"bytes_acked": 99, "bytes_received": 512, "rtt": 250_000},
    }, 1001),
    make_infos({4: {}, 5: {}, 6: {}}),
)  # fmt: skip
"""Of the three that are flows, by their cookies."""
CLOSED = (sock("LAST_ACK", "10.0.0.1:443", "203.0.113.5:40009", cookie=100, age_s=5),)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (160, 50), (40, 12)])
async def test_looks(width: int, height: int) -> None:
    async with opened(width, height) as page:
        await page.show(*SOCKS, closed=CLOSED)
        await page.press("j")
        check_snapshot(f"connections_{width}x{height}", shot(page.app))
        page.page.show_exact(True)
        await page.pilot.pause()
        check_snapshot(f"connections_exact_{width}x{height}", shot(page.app))


async def test_hostile_names_are_shown_as_they_are_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with opened(200) as page:
        await page.show(*SOCKS)
        shown = "\n".join(page.lines())
        assert f"{HOSTILE}[9]" in shown
        assert "\\x1b[31mred[7]" in shown
        await page.press("slash", *HOSTILE, "enter", "c")
        assert page.title() == f"1 of 8 sockets · filter {HOSTILE} · sort State ▲"
        assert not any(segment.style and segment.style.meta for y in range(9) for segment in page.table.render_line(y))


async def test_the_cursor_stays_on_its_flow() -> None:
    async with opened() as page:
        await page.show(*SOCKS)
        await page.press("G", "k")
        flow = page.under_cursor()
        await page.show(*(sock("LISTEN", f"10.0.0.1:{port}", cookie=1000 + port) for port in range(9)), *SOCKS, step=2)
        assert page.under_cursor() != flow  # other cookies: the flow has gone, the cursor stays in its place
        place = page.table.cursor
        flow = page.under_cursor()
        assert flow is not None
        await page.press("s", "right", "s", "enter")
        assert page.under_cursor() == flow
        assert page.table.cursor != place


async def test_the_cursor_keeps_its_line_of_the_screen_while_rows_come_and_go() -> None:
    many = [sock("ESTAB", f"10.0.0.1:{port}", "10.0.0.2:1", cookie=1000 + port) for port in range(1, 400)]
    async with opened() as page:
        await page.show(*many)
        await page.press(*["pagedown"] * 4)
        before = page.lines()
        await page.show(*(sock("LISTEN", f"10.0.0.1:{port}", cookie=port) for port in range(1, 30)), *many, step=2)
        assert page.lines() == before
        await page.show(*many[:20], step=3)
        assert page.table.cursor == 19
        assert page.under_cursor() == 1020


async def test_an_untouched_cursor_stays_at_the_top() -> None:
    async with opened() as page:
        await page.show(*SOCKS)
        await page.show(sock("LISTEN", "10.0.0.1:1", cookie=0), *SOCKS, step=2)
        assert page.under_cursor() == 0
        assert page.table.cursor == 0


async def test_moving() -> None:
    many = [sock("ESTAB", f"10.0.0.1:{port}", "10.0.0.2:1") for port in range(1, 101)]
    async with opened() as page:
        await page.show(*many)
        places = []
        for key in ("j", "down", "k", "up", "pagedown", "pageup", "ctrl+d", "ctrl+u", "G", "j", "g", "end", "home"):
            await page.press(key)
            assert page.under_cursor() == page.table.cursor + 1, key
            places.append(page.table.cursor)
        assert places == [1, 2, 1, 0, 22, 0, 11, 0, 99, 99, 0, 99, 0]
        await page.pilot.click(page.table, offset=(5, 6))
        assert page.table.cursor == 5
        await page.pilot.click(page.table, offset=(5, 6), times=2)
        await page.press("j", "enter")
        assert page.app.opened == [6, 7]


async def test_sorting() -> None:
    async with opened(160) as page:
        await page.show(*SOCKS)
        assert page.title() == "8 sockets · sort State ▲"
        await page.press("s")
        assert "←→ column" in page.title()
        await page.press("left", "right", "right", "right")  # State is the leftmost
        assert page.title().startswith("sort by Recv-Q ▼")
        assert page.table.cursor_cookie == 5
        await page.press("s")
        assert page.title().startswith("sort by Recv-Q ▲")
        await page.press("enter")
        assert page.title() == "8 sockets · sort Recv-Q ▲"
        assert page.app.opened == []
        await page.press("left")  # nothing is chosen any more
        assert page.title() == "8 sockets · sort Recv-Q ▲"
        header = page.lines()[0]
        await page.pilot.click(page.table, offset=(header.index("Remote"), 0))
        assert page.title() == "8 sockets · sort Remote ▲"
        await page.pilot.click(page.table, offset=(header.index("Remote"), 0))
        assert page.title() == "8 sockets · sort Remote ▼"
        assert "▼Remote" in page.lines()[0]


async def test_what_rows_are_sorted_by_is_seen() -> None:
    async with opened() as page:
        await page.show(*SOCKS)
        assert "Closed by" not in page.lines()[0]
        while not page.title().startswith("sort by Closed by"):
            await page.press(*(["s"] if not page.table.choosing_sort else []), "right")
        assert "▲Closed by" in page.lines()[0]
        await page.press(*["right"] * 30)
        assert page.table.column is IN_TABLE[-1]


async def test_filtering_while_typing() -> None:
    async with opened() as page:
        await page.show(*SOCKS)
        await page.press("slash", *"state:es")
        assert page.title() == "2 of 8 sockets · filter state:es · sort State ▲"
        await page.press("t", "x")
        assert "no state is spelled 'estx'" in page.wrong()
        assert page.title().startswith("2 of 8 sockets")
        await page.press("enter")  # not with a filter that cannot be understood
        assert page.page.query_one(Input).has_focus
        await page.press("backspace", "enter")
        assert page.wrong() == ""
        assert page.table.has_focus
        assert not page.page.query_one(Input).is_on_screen
        assert page.title() == "2 of 8 sockets · filter state:est · sort State ▲"
        await page.press("escape")
        assert page.title() == "8 sockets · sort State ▲"
        await page.press("slash", *"nginx", "escape")
        assert page.title() == "8 sockets · sort State ▲"
        assert page.table.has_focus


async def test_the_cursor_comes_back_when_a_filter_hid_its_flow() -> None:
    async with opened() as page:
        await page.show(*SOCKS)
        await page.press("j", "j")
        flow = page.under_cursor()
        page.page.set_filter("state:tw")
        await page.pilot.pause()
        assert page.under_cursor() != flow
        await page.show(*SOCKS, step=2)
        page.page.set_filter("")
        await page.pilot.pause()
        assert page.under_cursor() == flow


async def test_a_filter_from_elsewhere() -> None:
    async with opened() as page:
        page.page.set_filter("state:tw")  # before the first View
        await page.show(*SOCKS)
        assert page.title().startswith("1 of 8 sockets · filter state:tw")
        page.page.set_filter("state:nonsense")
        await page.pilot.pause()
        assert "no state is spelled" in page.wrong()
        assert page.page.query_one(Input).value == "state:nonsense"


async def test_what_an_empty_table_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with opened() as page:
        assert "no data yet" in "".join(page.lines())
        await page.press("j", "G", "enter", "s", "c", "x")
        await page.show()
        assert "No TCP sockets." in "".join(page.lines())
        await page.show(*SOCKS, step=2)
        page.page.set_filter("port:1")
        await page.pilot.pause()
        assert "None of 8 sockets match the filter." in "".join(page.lines())
        await page.press("j", "pagedown", "enter", "c")
        assert page.app.opened == []


async def test_a_source_that_cannot_tell_has_fewer_columns() -> None:
    async with opened(160) as page:
        rows = make_rows(SOCKS)
        view = view_of(rows, make_rows([]), sample=make_sample(rows, source=SourceInfo("psutil", "user")))
        page.page.show(view)
        await page.pilot.pause()
        assert "Recv-Q" not in page.lines()[0]
        assert "Process" in page.lines()[0]


async def test_export_writes_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with opened() as page:
        await page.show(*SOCKS, closed=CLOSED)
        page.page.set_filter("-state:listen")
        await page.press("s", "right", "enter", "x")
        await _until_said(page, "written")
        (path,) = tmp_path.iterdir()
        assert page.app.said == [f"6 sockets written to {path}"]
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
        assert header == [column.key for column in EXPORTED]
        shown = page.table.arrangement
        assert shown is not None
        cookies = [int(line[header.index("cookie")]) for line in lines]
        assert cookies == [c for c in map(shown.cookie, range(len(shown))) if c != 100]
        assert HOSTILE in path.read_text(encoding="utf-8")


async def test_an_export_that_fails_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connections, "export_name", lambda now: "no/such/folder.csv")
    monkeypatch.setenv("HOME", "/nonexistent")
    async with opened() as page:
        await page.show(*SOCKS)
        await page.press("x")
        await _until_said(page, "cannot write")
        assert page.app.said == [f"cannot write {tmp_path}/no/such/folder.csv: No such file or directory"]
        assert not list(tmp_path.iterdir())


async def test_one_export_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    going = threading.Event()

    def slow(*_: object) -> Iterator[str]:
        going.wait(30)
        yield "a"

    monkeypatch.setattr(connections, "sockets_csv", slow)
    async with opened() as page:
        await page.show(*SOCKS)
        await page.press("x", "x")
        going.set()
        await _until_said(page, "written to")
        assert page.app.said[0] == "the previous export is still being written"
        assert len(list(tmp_path.iterdir())) == 1


async def test_exports_of_one_second_have_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connections, "export_name", lambda now: "a.csv")
    async with opened() as page:
        await page.show(*SOCKS)
        await page.press("x")
        await _until_said(page, "written")
        await page.press("x")
        await until(page.pilot, lambda: len(page.app.said) == 2)
        assert page.app.said == [f"8 sockets written to {tmp_path}/{name}" for name in ("a.csv", "a-2.csv")]


async def _until_said(page: Opened, word: str) -> None:
    await until(page.pilot, lambda: any(word in said for said in page.app.said))


async def test_copy() -> None:
    async with opened() as page:
        await page.show(*SOCKS)
        await page.press("c")
        cells = page.app.clipboard.split("\t")
        assert cells[:3] == ["LISTEN", "0.0.0.0:22", "0.0.0.0:*"]
        assert "sshd[801]" in cells


def many_rows(number: int) -> Rows:
    """So many established rows, quickly."""
    one = make_rows([sock("ESTAB", "10.0.0.1:1", "10.0.0.2:2", process="x", pid=1)])
    rows = one.take(np.zeros(number, np.intp))
    cookie = np.arange(1, number + 1, dtype=np.uint64)
    table = rows.table.copy()
    table["idiag_cookie"], table["idiag_dport"] = cookie, cookie % 50_000 + 1
    return Rows(**{**{name: getattr(rows, name) for name in Rows.__slots__}, "table": table, "cookie": cookie})


async def test_a_big_table_is_arranged_in_a_thread_and_the_latest_request_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = recorded_calls(LatestRequestWorker, "_receive", monkeypatch)
    async with opened() as page:
        rows = many_rows(50_000)
        page.page.show(view_of(rows, make_rows([]), listeners=()))
        assert page.table.arrangement is None  # not in the UI's loop
        for port in range(1, 30):
            page.page.set_filter(f"rport:{port}")
        await until(page.pilot, lambda: "filter rport:29" in page.title())
        assert page.title() == "1 of 50,000 sockets · filter rport:29 · sort State ▲"
        page.page.refilter()
        requested = page.page._worker._requested
        await page.show(*SOCKS, step=2)  # a small table, at once; the late answer does not replace it
        await until(page.pilot, lambda: answers[-1][0] == requested)
        assert page.title() == "0 of 8 sockets · filter rport:29 · sort State ▲"


async def test_only_lines_that_differ_are_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(160, 50) as page:
        painted = painted_lines(page.table, monkeypatch)

        async def paints(*socks: Sock) -> list[int]:
            painted.clear()
            await page.show(*socks)
            return painted

        many = [sock("ESTAB", f"10.0.0.1:{port}", "10.0.0.2:1", process="x", pid=1) for port in range(1, 100)]
        await page.show(*many)
        assert await paints(*many) == []
        many[3], many[90] = replace(many[3], recv_queue=7), replace(many[90], recv_queue=7)
        assert await paints(*many) == [4]
        many.append(sock("TIME_WAIT", "10.0.0.1:9", "10.0.0.2:1"))
        assert await paints(*many) == [], "it is out of sight"
        assert page.table.vertical_scrollbar.window_virtual_size == page.table.virtual_size.height == 101
        many = [replace(one, send_queue=port % 9) for port, one in enumerate(many)]
        assert await paints(*many) == list(range(49))
        wider = replace(many[0], process="a-process-of-a-long-name")
        assert await paints(wider, *many[1:]) == list(range(49)), "the columns moved"
        page.page.set_filter("state:tw")
        await page.pilot.pause()
        assert await paints(wider, *many[1:]) == []
        assert await paints(*many[:-1]) == [1, 2, 3], "nothing, why, and what can be done"


async def test_moving_and_focus_paint_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened() as page:
        await page.show(*SOCKS)
        painted = painted_lines(page.table, monkeypatch)
        await page.press("j")
        assert painted == [1, 2]
        assert page.under_cursor() == 2


async def test_scrolling_makes_text_of_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    make = Arrangement.lines

    def lines(shown: Arrangement, first: int, last: int, *how: Any) -> list[Any]:
        asked.append((first, last))
        return make(shown, first, last, *how)

    monkeypatch.setattr(Arrangement, "lines", lines)
    monkeypatch.setattr(DrivenPilot, "draws", True)
    many = [sock("ESTAB", f"10.0.0.1:{port}", "10.0.0.2:1") for port in range(1001, 3001)]
    async with opened() as page:
        await page.show(*many)
        asked.clear()
        await page.press(*"jjj", "ctrl+d", "ctrl+d", "k")
        assert asked == [(22, 26)]
        await page.press("G", "g")
        assert asked == [(22, 26), (1978, 2000)]
        for _ in range(100):
            await page.press("pagedown")
        assert len(page.table._finished) <= 512 + 24


async def test_resizing_at_any_moment() -> None:
    async with opened() as page:
        await page.show(*SOCKS)
        await page.press("j", "j")
        for size in ((20, 4), (1, 1), (200, 60), (80, 24)):
            await page.pilot.resize_terminal(*size)
            assert all(len(line) == page.table.scrollable_content_region.width for line in page.lines())
        assert page.under_cursor() == 3
