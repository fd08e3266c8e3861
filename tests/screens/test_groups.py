"""Groups of connections: what is drawn, each way to group, opening and going back, keys; with Views put in by hand."""

from __future__ import annotations

import csv
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from textual.widgets import Input

from tcpwatch import units
from tcpwatch.app import TcpwatchApp
from tcpwatch.model.query.groups import TOP, GroupField, group_sockets
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.sockets.throughput import Throughput
from tcpwatch.model.view import View
from tcpwatch.sample import SourceInfo
from tcpwatch.screens.connections.page import ConnectionsPage
from tcpwatch.screens.flow.page import FlowScreen
from tcpwatch.screens.shared.arranger import LatestRequestWorker
from tcpwatch.screens.shared.page import SocketsRequested
from tests.support.driving import DrivenPilot, driven, until
from tests.support.kernel.infos import make_infos
from tests.support.shots import LARGE, SMALL, check_snapshot, make_app, page_shot, painted_lines, recorded_calls, shot
from tests.support.shown import ShownTab
from tests.support.views import Sock, make_rows, make_sample, make_view, sock, view_of

SIZES = pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "160x50"])
HOSTILE = "[@click=app.quit]x[/]"


@pytest.fixture(autouse=True)
def _few_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of services differ between machines."""
    names = {22: "ssh", 443: "https", 5432: "postgresql"}
    monkeypatch.setattr(units, "service", lambda port: names.get(port, str(port)))


def _some() -> tuple[Sock, ...]:
    nginx = {"process": "nginx", "pid": 1235, "cgroup_id": 4711}
    app = {"process": HOSTILE, "pid": 9, "cgroup_id": 815}
    return (
        sock("LISTEN", "0.0.0.0:443", **nginx, recv_queue=7, send_queue=511),  # type: ignore[arg-type]
        *(sock("ESTAB", "10.0.0.1:443", f"203.0.113.{at % 3 + 7}:{40000 + at}", recv_queue=100 * at, **nginx)  # type: ignore[arg-type]
          for at in range(12)),
        sock("ESTAB", "[2001:db8::10]:443", "[2001:db8:85a3:1:0:8a2e:a56f:ed]:57189", **nginx, send_queue=400_000),  # type: ignore[arg-type]
        *(sock("CLOSE_WAIT", f"10.0.0.1:{51000 + at}", "10.0.0.9:5432", recv_queue=1, **app) for at in range(5)),  # type: ignore[arg-type]
        *(sock("TIME_WAIT", "10.0.0.1:443", f"203.0.113.9:{50000 + at}") for at in range(3)),
    )  # fmt: skip


SOCKS = _some()
THROUGHPUT = Throughput(
    make_infos({at: {"bytes_received": 50_000 * at, "bytes_acked": 1_000 * at, "total_retrans": at % 2}
                for at in range(2, 15)}, 1001),
    make_infos({at: {} for at in range(2, 15)}),
)  # fmt: skip
"""Of nginx's connections, by their cookies."""


def some_view(*socks: Sock, step: int = 1) -> View:
    view = make_view(*(socks or SOCKS), step=step)
    return replace(view, rows=replace(view.rows, throughput=THROUGHPUT))


class Shown(ShownTab[ConnectionsPage]):
    """The app on the tab of connections, with the keys, and what can be read."""

    page_type = ConnectionsPage

    def __init__(self, app: TcpwatchApp, pilot: DrivenPilot) -> None:
        super().__init__(app, pilot)
        self.said: list[str] = []

    def notify(self, message: str, **options: object) -> None:
        assert options["markup"] is False
        self.said.append(message)

    def title(self) -> str:
        return self.lines()[2].strip()

    def names(self) -> list[str]:
        """The groups from top to bottom."""
        assert self.page.groups.display
        return [row.name for row in self.page.groups.records]

    def under_cursor(self) -> str | None:
        marked = [line for line in self.lines() if line[1:2] == "▸"]
        row = self.page.groups.record
        assert len(marked) == 1
        return row.name if row is not None and self.page.groups.display else None


@asynccontextmanager
async def shown(view: View | None = None, size: tuple[int, int] = SMALL, keys: str = "a") -> AsyncIterator[Shown]:
    app = make_app()
    async with driven(app, size) as pilot:
        it = Shown(app, pilot)
        await pilot.press("2")
        it.page.notify = it.notify  # type: ignore[method-assign]
        if view is not None:
            await it.show(view)
        await it.press(*keys)
        yield it


# What is drawn


@SIZES
async def test_looks(size: tuple[int, int]) -> None:
    name = f"{size[0]}x{size[1]}"
    async with shown(some_view(), size) as it:
        await it.press("j")
        check_snapshot(f"groups_process_{name}", page_shot(it.app))
        await it.press("a", "a")
        check_snapshot(f"groups_service_{name}", page_shot(it.app))
        await it.press("n")
        check_snapshot(f"groups_service_exact_{name}", page_shot(it.app))
        await it.press("slash", *"state:est", "enter", "a", "a")
        check_snapshot(f"groups_state_{name}", page_shot(it.app))


WAYS = {
    GroupField.PROCESS: ["nginx[1235]", f"{HOSTILE}[9]", "(kernel, no process)"],
    GroupField.PEER: ["203.0.113.9", "10.0.0.9", "203.0.113.7", "203.0.113.8", "2001:db8:85a3:1:0:8a2e:a56f:ed",
              "(no peer)"],
    GroupField.SERVICE: ["10.0.0.9:5432", "203.0.113.7:40000"],
    GroupField.LOCAL_PORT: ["443", "51000", "51001", "51002", "51003", "51004"],
    GroupField.STATE: ["ESTABLISHED", "CLOSE_WAIT", "TIME_WAIT", "LISTEN"],
    GroupField.CGROUP: ["4711", "815", "unknown (half-open, TIME_WAIT)"],
}  # fmt: skip


async def test_a_goes_through_all_ways_to_group_and_back_to_single_sockets() -> None:
    async with shown(some_view(), keys="") as it:
        assert it.title() == "22 sockets · sort State ▲"
        for by in GroupField:
            await it.press("a")
            assert it.title().startswith(f"by {by.value}: {len(it.names())} groups of 22 sockets · sort Sockets ▼"), by
            assert it.names()[: len(WAYS[by])] == WAYS[by]
            assert it.lines()[3].split()[0] == by.value.split()[0].capitalize()
        await it.press("a")
        assert it.title() == "22 sockets · sort State ▲"
        assert it.page.table.has_focus
        for by in reversed(GroupField):
            await it.press("A")
            assert it.title().startswith(f"by {by.value}: ")
        await it.press("A")
        assert it.title() == "22 sockets · sort State ▲"


async def test_a_name_for_each_port_as_long_as_numbers_are_not_exact() -> None:
    async with shown(some_view(), keys="aaaa") as it:
        assert it.lines()[4].split()[:2] == ["▸https", "17"]
        await it.press("n")
        assert it.lines()[4].split()[:2] == ["▸443", "17"]


async def test_the_first_view_knows_no_throughput() -> None:
    async with shown(make_view(*SOCKS)) as it:
        assert it.lines()[4].split() == ["▸nginx[1235]", "14", "13", "–", "–", "–", "6600", "391", "k"]


async def test_more_groups_than_are_told() -> None:
    many = [sock("ESTAB", f"10.0.0.1:{1000 + at}", "192.0.2.1:80") for at in range(TOP + 5)]
    async with shown(make_view(*many), keys="aaaa") as it:
        assert it.title().startswith("by local port: 1,000 largest of 1,005 groups of 1,005 sockets")


async def test_nothing_to_group() -> None:
    async with shown() as it:
        assert it.title() == ""
        await it.press("j", "enter", "x", "c", "a", "escape")
        await it.press("a")
        await it.show(make_view())
        assert "No TCP sockets." in shot(it.app)
        await it.press("j", "enter", "x", "c")
        await it.show(some_view())
        await it.press("slash", *"port:1", "enter")
        assert "None of 22 sockets match the filter." in shot(it.app)
        assert it.title() == "by process: 0 groups of 0 of 22 sockets · filter port:1 · sort Sockets ▼"
        assert it.said == []


async def test_psutil_tells_no_queues_no_throughput_and_no_cgroups() -> None:
    rows = make_rows([replace(one, cgroup_id=None, recv_queue=0, send_queue=0) for one in SOCKS])
    view = view_of(rows, make_rows([]), sample=make_sample(rows, source=SourceInfo("psutil", "user")))
    async with shown(view, LARGE) as it:
        assert it.lines()[3].split() == ["Process", "▼Sockets", "Share", "Estab"]
        kinds = [it.title().partition(":")[0]]
        while it.page.groups.display:
            await it.press("a")
            kinds.append(it.title().partition(":")[0])
        assert kinds == [
            "by process", "by peer", "by service", "by local port", "by state", "22 sockets · sort State ▲"
        ]  # fmt: skip


async def test_a_hostile_name_is_shown_as_it_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with shown(some_view(), LARGE) as it:
        await it.press("j", "c")
        assert f"{HOSTILE}[9]" in it.app.clipboard
        assert f"▸{HOSTILE}[9]" in shot(it.app)
        table = it.page.groups
        assert not any(segment.style and segment.style.meta for y in range(9) for segment in table.render_line(y))
        await it.press("enter")
        assert it.title() == "5 of 22 sockets · filter pid:9 · sort State ▲"


async def test_only_lines_that_differ_are_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with shown(some_view()) as it:
        painted = painted_lines(it.page.groups, monkeypatch)
        await it.show(some_view(step=2))
        assert painted == []
        await it.show(some_view(*SOCKS[:-1], step=3))
        assert painted == [3]


async def test_resizing_at_any_moment() -> None:
    async with shown(some_view()) as it:
        for size in ((20, 6), (1, 1), (200, 60), SMALL):
            await it.pilot.resize_terminal(*size)
            await it.press("a", "a", "a", "a", "a", "a", "a")
            assert all(len(line) <= size[0] for line in it.lines())
        assert it.title().startswith("by process: 3 groups")


# Opening a group, and going back


async def test_enter_shows_the_sockets_of_a_group_and_esc_goes_back() -> None:
    async with shown(some_view()) as it:
        await it.press("slash", *"-state:listen", "enter", "s", "left", "enter", "j", "j")
        before = it.lines()
        assert it.under_cursor() == "nginx[1235]"
        await it.press("enter")
        assert it.title() == "13 of 22 sockets · filter -state:listen pid:1235 · sort State ▲"
        assert it.page.table.has_focus
        await it.press("escape")
        assert it.lines() == before
        assert it.page.groups.has_focus
        await it.press("escape")
        assert it.title() == "by process: 3 groups of 22 sockets · sort Process ▲"
        await it.press("escape")
        assert it.title() == "22 sockets · sort State ▲"
        assert it.page.table.has_focus
        await it.press("escape")
        assert not isinstance(it.app.screen.query_one("ContentSwitcher").visible_content, ConnectionsPage)  # type: ignore[attr-defined]


async def test_what_enter_shows_is_the_group() -> None:
    async with shown(some_view(), keys="") as it:
        for by in GroupField:
            await it.press("a")
            for at, row in enumerate(it.page.groups.records):
                it.page.groups.move_to(at)
                it.said.clear()
                await it.press("enter")
                if not row.filter:
                    assert it.said == [f"no filter selects the sockets of this group: {row.name}"], by
                    continue
                assert it.title().startswith(f"{row.sockets} of 22 sockets · filter {row.filter} · "), (by, row.name)
                await it.press("escape")
                assert it.under_cursor() == row.name, by
                assert it.page.filter.text == "", (by, row.name)


async def test_a_flow_opens_from_inside_a_group_and_the_way_back_is_kept() -> None:
    async with shown(some_view()) as it:
        await it.press("enter", "enter")
        assert isinstance(it.app.screen, FlowScreen)
        await it.press("escape")
        assert it.title().startswith("14 of 22 sockets · filter pid:1235")
        await it.press("escape")
        assert it.title().startswith("by process: 3 groups")


async def test_inside_a_group_its_sockets_are_grouped_in_the_next_way() -> None:
    async with shown(some_view()) as it:
        await it.press("enter", "a")
        assert it.title() == "by peer: 5 groups of 14 of 22 sockets · filter pid:1235 · sort Sockets ▼"
        await it.press("enter")
        assert it.title() == "4 of 22 sockets · filter pid:1235 raddr:203.0.113.7 · sort State ▲"
        await it.press("escape")
        assert it.title().startswith("by peer: 5 groups of 14 of 22 sockets")
        await it.press("A", "enter")
        assert it.title() == "14 of 22 sockets · filter pid:1235 · sort State ▲", "the same term is not said twice"
        await it.press("escape", "escape")
        assert it.title() == "by process: 3 groups of 22 sockets · sort Sockets ▼"


async def test_a_filter_of_ones_own_leaves_the_group() -> None:
    async with shown(some_view()) as it:
        await it.press("enter", "slash", "end", "space", *"state:est", "enter")
        assert it.title().startswith("13 of 22 sockets · filter pid:1235 state:est")
        await it.press("escape")
        assert it.title() == "by process: 3 groups of 22 sockets · sort Sockets ▼", "it still was inside"
        await it.press("enter", "slash", *"state:tw", "enter")
        assert it.title().startswith("3 of 22 sockets · filter state:tw")
        await it.press("escape")
        assert it.title() == "22 sockets · sort State ▲"


async def test_whoever_asks_for_sockets_sees_sockets() -> None:
    async with shown(some_view()) as it:
        await it.press("1")
        it.app.screen.post_message(SocketsRequested("state:tw"))
        await it.pilot.pause()
        await it.pilot.pause()
        assert it.title() == "3 of 22 sockets · filter state:tw · sort State ▲"
        await it.press("a", "1")
        it.app.screen.post_message(SocketsRequested("state:tw"))
        await it.pilot.pause()
        await it.pilot.pause()
        assert it.title() == "3 of 22 sockets · filter state:tw · sort State ▲"
        assert it.page.table.has_focus


async def test_the_keys_go_to_what_is_seen_when_one_comes_back_to_the_tab() -> None:
    async with shown(some_view()) as it:
        await it.press("j", "1", "2", "j")
        assert it.under_cursor() == "(kernel, no process)"
        assert it.page.groups.has_focus
        await it.press("question_mark", "escape", "a")
        assert it.title().startswith("by peer")


async def test_grouping_leaves_a_filter_that_cannot_be_understood_as_it_is() -> None:
    async with shown(some_view()) as it:
        it.page.set_filter("state:nonsense")
        await it.press("a")
        assert it.page.query_one(Input).value == "state:nonsense"
        assert "no state is spelled" in shot(it.app)
        assert it.title().startswith("by process: 3 groups of 22 sockets")


# Filter, order, cursor


async def test_what_passes_is_grouped_while_one_types() -> None:
    async with shown(some_view()) as it:
        await it.press("j")
        await it.press("slash", *"state:tw")
        assert it.title() == "by process: 1 group of 3 of 22 sockets · filter state:tw · sort Sockets ▼"
        assert it.names() == ["(kernel, no process)"]
        await it.press("a")
        assert it.title().startswith("by process"), "a letter like others"
        await it.press("escape")
        assert it.under_cursor() == f"{HOSTILE}[9]", "it was hidden"
        assert it.page.groups.has_focus


async def test_sorting() -> None:
    async with shown(some_view(), LARGE) as it:
        await it.press("s", "left")
        assert it.title().startswith("sort by Process ▲")
        assert it.names() == ["(kernel, no process)", f"{HOSTILE}[9]", "nginx[1235]"]
        await it.press("escape")
        orders = {}
        header = it.lines()[3]
        for title in ("Rx/s", "Unread", "Unsent", "Retr/s"):
            await it.pilot.click(it.page.groups, offset=(header.index(title) + 1, 0))
            orders[title] = it.names()[0]
            assert f"sort {title} ▼" in it.title()
        assert set(orders.values()) == {"nginx[1235]"}
        await it.pilot.click(it.page.groups, offset=(header.index("Rx/s") + 1, 0))
        await it.pilot.click(it.page.groups, offset=(header.index("Rx/s") + 1, 0))
        assert it.names()[0] == "nginx[1235]", "unknown ones are last either way"


async def test_numbers_in_names_are_sorted_as_numbers_and_states_as_they_follow() -> None:
    socks = [sock("ESTAB", f"10.0.0.1:{port}", f"10.0.0.{port}:1") for port in (9, 10, 100, 2)]
    async with shown(make_view(*socks, sock("SYN_SENT", "10.0.0.1:3", "10.0.0.3:1")), keys="aas") as it:
        await it.press("left", "enter")
        assert it.names() == ["10.0.0.2", "10.0.0.3", "10.0.0.9", "10.0.0.10", "10.0.0.100"]
        await it.press("a", "a", "a")
        assert it.names() == ["SYN_SENT", "ESTABLISHED"]


async def test_the_cursor_stays_on_its_group_while_others_come() -> None:
    async with shown(some_view()) as it:
        await it.press("j")
        more = [sock("ESTAB", "10.0.0.1:1", f"10.0.0.2:{at + 1}", process="new", pid=77) for at in range(99)]
        await it.show(some_view(*SOCKS, *more, step=2))
        assert it.names()[0] == "new[77]"
        assert it.under_cursor() == f"{HOSTILE}[9]"
        renamed = [replace(one, process="other") if one.pid == 9 else one for one in SOCKS]
        await it.show(some_view(*renamed, step=3))
        assert it.under_cursor() == "other[9]"


async def test_each_way_to_group_keeps_its_cursor() -> None:
    async with shown(some_view()) as it:
        await it.press("j", "a")
        assert it.under_cursor() == "203.0.113.9", "at the top"
        await it.press("G", "a", "A")
        assert it.under_cursor() == "(no peer)"
        await it.press("A")
        assert it.under_cursor() == f"{HOSTILE}[9]"


async def test_an_untouched_cursor_stays_at_the_top() -> None:
    async with shown(some_view()) as it:
        more = [sock("ESTAB", "10.0.0.1:1", f"10.0.0.2:{at + 1}", process="new", pid=77) for at in range(99)]
        await it.show(some_view(*SOCKS, *more, step=2))
        assert it.under_cursor() == "new[77]"


# Export, copy, help


async def test_export_writes_the_groups_that_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with shown(some_view()) as it:
        await it.press("s", "left", "enter", "x")
        await until(it.pilot, lambda: bool(it.said))
        (path,) = tmp_path.iterdir()
        assert path.name.startswith("tcpwatch-groups-")
        assert it.said == [f"3 groups written to {path}"]
        with path.open(newline="", encoding="utf-8") as file:
            kernel, hostile, nginx = csv.DictReader(file)
        assert (hostile["by"], hostile["group"], hostile["filter"]) == ("process", f"{HOSTILE}[9]", "pid:9")
        assert (nginx["sockets"], nginx["established"], nginx["recv_queue"]) == ("14", "13", "6600")
        assert float(nginx["rx_bytes_per_s"]) == 50_000 * sum(range(2, 15))
        assert (kernel["filter"], kernel["rx_bytes_per_s"]) == ("", "")


async def test_copy() -> None:
    async with shown(some_view()) as it:
        await it.press("c")
        assert it.app.clipboard.split("\t")[:4] == ["process", "nginx[1235]", "pid:1235", "14"]
        assert it.said == ["row sent to the terminal's clipboard"]


async def test_the_help_tells_keys_and_columns() -> None:
    async with shown(some_view(), (160, 60)) as it:
        await it.press("question_mark")
        told = " ".join(shot(it.app).split())
        for words in (
            "a group",
            "A previous grouping",
            "back to single sockets",
            "Segments retransmitted per second",
        ):
            assert words in told, words


# Many


def many_rows(number: int) -> Rows:
    """So many established rows, quickly; 50,000 peers' ports."""
    one = make_rows([sock("ESTAB", "10.0.0.1:1", "10.0.0.2:2", process="x", pid=1)])
    rows = one.take(np.zeros(number, np.intp))
    cookie = np.arange(1, number + 1, dtype=np.uint64)
    table = rows.table.copy()
    table["idiag_cookie"], table["idiag_dport"] = cookie, cookie % 50_000 + 1
    return replace(rows, table=table, cookie=cookie)


def many_view(number: int = 60_000) -> View:
    return view_of(many_rows(number), make_rows([]), listeners=())


async def test_no_key_is_lost_as_groups_take_the_place_of_sockets() -> None:
    async with shown(some_view(), keys="") as it:
        page = it.page
        page._show_table(page.groups, page.table)
        assert page.check_action("group", (1,))
        assert page.check_action("filter", ())


async def test_many_are_grouped_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set[str]()

    def group(rows: Rows, by: GroupField) -> object:
        threads.add(threading.current_thread().name)
        return group_sockets(rows, by)

    monkeypatch.setattr("tcpwatch.screens.shared.arranger.group_sockets", group)
    async with shown(many_view(), keys="") as it:
        for by in ("by process", "by peer", "by service"):
            await it.press("a")
            await until(it.pilot, lambda by=by: it.title().startswith(by))  # type: ignore[misc]
        assert it.title().startswith("by service: 1,000 largest of 50,000 groups of 60,000 sockets")
        await it.press("slash", *"rport:17", "enter")
        await until(it.pilot, lambda: "filter rport:17 " in it.title())
        assert it.title().startswith("by service: 1 group of 2 of 60,000 sockets")
        await it.press("enter")
        await until(it.pilot, lambda: it.title().startswith("2 of 60,000 sockets"))
        assert threads == {"arranger"}


class Held:
    """In the thread, groups are made when a test lets them be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[GroupField] = []
        self._go = threading.Semaphore(0)

        def group(rows: Rows, by: GroupField) -> object:
            if threading.current_thread().name == "arranger":
                self.begun.append(by)
                assert self._go.acquire(timeout=10)
            return group_sockets(rows, by)

        monkeypatch.setattr("tcpwatch.screens.shared.arranger.group_sockets", group)

    def let(self) -> None:
        self._go.release()


async def test_the_picture_before_stays_until_the_answer_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    async with shown(many_view(), keys="") as it:
        await until(it.pilot, lambda: it.title().startswith("60,000 sockets"))
        await it.press("a")
        await until(it.pilot, lambda: held.begun == [GroupField.PROCESS])
        await it.press("j", "j")
        assert it.title() == "60,000 sockets · sort State ▲"
        assert it.page.table.cursor == 2, "and its keys work"
        held.let()
        await until(it.pilot, lambda: it.title().startswith("by process: 1 group of 60,000 sockets"))
        assert it.page.groups.has_focus


async def test_no_answer_of_another_grouping_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    titles, answers = [], recorded_calls(LatestRequestWorker, "_receive", monkeypatch)
    async with shown(many_view(), keys="") as it:
        await until(it.pilot, lambda: it.title().startswith("60,000 sockets"))
        await it.press("a")
        await until(it.pilot, lambda: held.begun == [GroupField.PROCESS])
        await it.press("a", "a", "a")
        held.let()
        await until(it.pilot, lambda: held.begun == [GroupField.PROCESS, GroupField.LOCAL_PORT])
        await until(it.pilot, lambda: len(answers) == 2)
        titles.append(it.title())
        await it.press("escape")  # single sockets again
        held.let()
        await until(it.pilot, lambda: len(answers) == 4)  # the table's too
        titles.append(it.title())
        await it.press("a")
        await until(it.pilot, lambda: len(held.begun) == 3)
        await it.show(some_view(step=2))  # few, at once
        held.let()
        await until(it.pilot, lambda: len(answers) == 5)
        titles.append(it.title())
    assert titles == ["60,000 sockets · sort State ▲"] * 2 + ["by process: 3 groups of 22 sockets · sort Sockets ▼"]
