"""The Teardown screen: its lines at both sizes, and the cursor on its tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len
from textual.pilot import Pilot

from tcpwatch.app import TcpwatchApp
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NOT_LOOKED, UNKNOWN_PERMISSION
from tcpwatch.model.analyses.silent_peers import SilentPeer, SilentPeers
from tcpwatch.model.analyses.stalls import Stalls, UnreadProgram
from tcpwatch.model.analyses.unanswered_connects import Unanswered, UnansweredConnects
from tcpwatch.model.analyses.zero_windows import ZeroWindowPeer, ZeroWindows
from tcpwatch.model.sockets.endpoint import Endpoint
from tcpwatch.model.sockets.programs import Program
from tcpwatch.model.view import Gauge, View
from tcpwatch.sample import SourceInfo
from tcpwatch.screens.connections.page import ConnectionsPage
from tcpwatch.screens.teardown import ports
from tcpwatch.screens.teardown.glossary import GLOSSARY
from tcpwatch.screens.teardown.stalls import stalled_table
from tests.support.busy import HOSTILE
from tests.support.driving import at_sizes, at_widths, driven
from tests.support.shots import LARGE, SMALL, check_snapshot, make_app, page_shot, shot
from tests.support.views import Sock, make_rows, make_sample, make_view, shared, sock

KNOBS = {
    "ip_local_port_range_low": 32_768, "ip_local_port_range_high": 32_867, "tcp_timestamps": 1, "tcp_tw_reuse": 1,
}  # fmt: skip
API, DATABASE = "192.0.2.1:443", "10.0.0.7:5432"


def calls(ports: Sequence[int], remote: str = API, local: str = "10.0.0.1", **facts: Any) -> list[Sock]:
    """Return connections that this host opened."""
    given = {"role": "client", "process": "app", "pid": 12, **facts}
    return [sock("ESTAB", f"{local}:{port}", remote, **given) for port in ports]


def waits(ports: Sequence[int], remote: str = API, local: str = "10.0.0.1", left_s: float = 0.0) -> list[Sock]:
    """Return TIME_WAITs that this host opened; one ends each second, or all at once."""
    return [
        sock("TIME_WAIT", f"{local}:{port}", remote, role="client", timer="timewait", timer_s=left_s or at % 60 + 0.5)
        for at, port in enumerate(ports)
    ]


def served(count: int, port: int = 80) -> list[Sock]:
    """Return TIME_WAITs on the port of a listener."""
    return [
        sock("TIME_WAIT", f"10.0.0.1:{port}", f"198.51.100.{at % 200}:{2000 + at}", role="server", timer="timewait",
             timer_s=1.0 + at % 7)
        for at in range(count)
    ]  # fmt: skip


def left_open(count: int, process: str = "leaky", pid: int = 77, unread: int = 0, age_s: float = 90.0) -> list[Sock]:
    """Return CLOSE_WAITs of a process."""
    return [
        sock("CLOSE_WAIT", f"10.0.0.1:{8000 + pid}", f"203.0.113.{at}:{pid}", process=process, pid=pid,
             recv_queue=unread, age_s=age_s, role="server")
        for at in range(count)
    ]  # fmt: skip


def view_with(*socks: Sock, knobs: dict[str, int] | None = None, **overrides: Any) -> View:
    """Return a View with a hundred ephemeral ports and with descriptor limits."""
    rows = make_rows(socks)
    sysctls = KNOBS if knobs is None else knobs
    sample = make_sample(
        rows, sysctls=sysctls, descriptor_limits={77: 1024, 78: 64}, reserved_ports=((32_867, 32_867),)
    )
    facts = {"step": 2, "sample": sample, **overrides}
    return make_view(*socks, **facts)


@shared
def ending(**overrides: Any) -> View:
    """Return a View with a row in every table."""
    socks = [
        sock("LISTEN", "0.0.0.0:80", process="nginx", pid=1234, send_queue=511),
        *calls(range(32_768, 32_818)), *waits(range(32_818, 32_850)),
        *calls(range(32_768, 32_778), DATABASE, process=HOSTILE, pid=13), *waits([32_801], DATABASE, left_s=59.5),
        *calls([32_768], API, "10.0.0.2"), *calls([32_770], "[2001:db8::7]:80", "[2001:db8::1]"),
        *served(120), *served(9, 8080),
        *left_open(20), *left_open(3, unread=1), *left_open(9, HOSTILE, 78, unread=500, age_s=12),
        *(sock("CLOSE_WAIT", "10.0.0.1:80", f"198.51.100.9:{at}") for at in range(3)),
        *(sock("FIN_WAIT_2", "10.0.0.1:9000", f"198.51.100.8:{at}", process="proxy", pid=90, age_s=400.0)
          for at in range(4)),
        *(sock("FIN_WAIT_2", "10.0.0.1:80", f"198.51.100.7:{at}") for at in range(6)),
        sock("LAST_ACK", "10.0.0.1:80", "198.51.100.6:1"), sock("FIN_WAIT_1", "10.0.0.1:80", "198.51.100.6:2"),
        sock("CLOSING", "10.0.0.1:80", "198.51.100.6:3"),
    ]  # fmt: skip
    numbered = [replace(one, cookie=at) for at, one in enumerate(socks, 1)]
    owner = next(one.owner for one in numbered if one.process == "nginx")
    assert owner is not None
    facts: dict[str, Any] = {
        "orphans": Gauge(9, 65_536),
        "stalls": Stalls(
            Unanswered((UnansweredConnects(Endpoint("192.0.2.9", 25), 7, 3),), 1, 1, 7),
            ZeroWindows((ZeroWindowPeer(Endpoint("198.51.100.5"), 2, 44.0, 262_144),), 1),
            (UnreadProgram(Program(owner.processes[:1]), 5, 1_300_000),),
            SilentPeers((SilentPeer(Endpoint("192.0.2.99"), 9, 71.0, 88_000),), 1, 9),
        ),
    }  # fmt: skip
    view = view_with(*numbered, **{**facts, **overrides})
    waiting = replace(view.teardown.time_wait, entered_per_s=68.0, left_per_s=51.4)
    close_wait = (replace(view.teardown.close_wait[0], growing=True), *view.teardown.close_wait[1:])
    destinations = view.ephemeral_ports.destinations if view.ephemeral_ports else ()
    trend = (replace(destinations[0], runs_out_in_s=182.0), *destinations[1:]) if destinations else ()
    return replace(
        view,
        teardown=replace(view.teardown, time_wait=waiting, close_wait=close_wait),
        ephemeral_ports=replace(view.ephemeral_ports, destinations=trend) if view.ephemeral_ports else None,
    )


async def shown(app: TcpwatchApp, pilot: Pilot[None], view: View) -> str:
    """Return the screen with this View."""
    app.show(view)
    await pilot.press("5")
    return shot(app)


async def test_snapshot() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, ending())
        async for width, height in at_sizes(pilot, (SMALL, LARGE)):
            check_snapshot(f"teardown_{width}x{height}", page_shot(app))


def lines_of(app: TcpwatchApp) -> list[str]:
    return ["".join(piece for piece, _ in line) for line in app.screen.focused.lines]  # type: ignore[union-attr]


def line_with(app: TcpwatchApp, words: str) -> str:
    return next(line for line in lines_of(app) if words in line)


# What is drawn ----------------------------------------------------------------------------------


async def test_no_line_is_wider_than_the_screen() -> None:
    app, widths = make_app(), (50, 60, 71, 72, 79, 80, 100, 119, 120, 140, 160, 200, 300)
    async with driven(app, LARGE) as pilot:
        await shown(app, pilot, ending())
        for key in ("n", "n"):
            await pilot.press(key)
            async for width in at_widths(pilot, widths, 60):
                assert all(cell_len(line) <= width for line in lines_of(app))


async def test_the_smallest_screens_break_nothing() -> None:
    app = make_app()
    async with driven(app, (1, 1)) as pilot:
        async for size in at_sizes(pilot, ((1, 1), (5, 3), (20, 5), (30, 12), (49, 60), (130, 4))):
            await shown(app, pilot, ending())
            await pilot.press("j", "right", "G", "g", "left")
            app.show(make_view())
            await pilot.pause()
            assert app.is_running, size


async def test_it_fills_the_screen_and_nothing_moves() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        async for size in at_sizes(pilot, (SMALL, LARGE, (100, 35), (120, 24), (80, 50))):
            titles = []
            for view in (make_view(), ending(), view_with(*calls(range(32_768, 32_866), API)), make_view(step=2)):
                await shown(app, pilot, view)
                assert len(lines_of(app)) == size[1] - 3, size
                titles.append([y for y, line in enumerate(lines_of(app)) if line.startswith(" ── ")])
            assert all(one == titles[0] for one in titles), size


async def test_an_empty_host() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        screen = await shown(app, pilot, make_view())
        assert "ip_local_port_range is unknown." in screen
        assert "None: every process closes what its peers have closed." in screen
        assert "None: peers answer and accept data." in screen
        assert "entered –/s · left –/s" in screen
        assert cursor(app) == "has", "the rows of closing sockets are shown with zeros"
        await pilot.press("j", "k", "right", "G", "enter")
        assert rows_shown(app) == 0


async def test_values_that_psutil_lacks_are_unknown_and_not_0() -> None:
    socks = [*calls([32_768]), *waits([32_769]), *left_open(3), *(sock("FIN_WAIT_2", "10.0.0.1:80", "10.0.0.2:9"),)]
    numbered = [replace(one, cookie=at) for at, one in enumerate(socks, 1)]
    rows = make_rows(numbered)
    sample = make_sample(rows, sysctls=KNOBS, source=SourceInfo("psutil", "user"))
    app = make_app()
    async with driven(app, SMALL) as pilot:
        screen = await shown(app, pilot, make_view(*numbered, sample=sample, orphans=Gauge(None, None)))
        assert "ends in  unknown with this source" in screen
        assert "Unknown with this source." in screen
        assert line_with(app, "leaky[77]").split()[1:4] == ["–", "–", "–"]
        assert line_with(app, "no process").split() == ["no", "process", *"–––––"]
        assert line_with(app, API).split()[-2:] == ["–", "–"]
        assert "not accepted" not in screen


async def test_an_exhausted_destination() -> None:
    app = make_app()
    view = view_with(*calls(range(32_768, 32_837)), *waits(range(32_837, 32_867)), knobs={**KNOBS, "tcp_tw_reuse": 0})
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, view)
        (row,) = (line for line in lines_of(app) if line.startswith(f" ▸ {API}"))
        assert row.split()[2:] == ["████", "100", "%", "0", "30", "0", "0.5", "s", "now"]
        assert "99 of 99 ports, most by app[12]" in lines_of(app)[-1]


async def test_a_port_whose_timer_has_expired() -> None:
    app = make_app()
    view = view_with(
        *waits(range(32_768, 32_770), left_s=4.0), sock("TIME_WAIT", "10.0.0.1:32770", API, role="client"),
        knobs={**KNOBS, "tcp_tw_reuse": 0},
    )  # fmt: skip
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, view)
        assert line_with(app, f"▸ {API}").split()[-2:] == ["due", "–"]


async def test_programs_that_bind_before_connect() -> None:
    every = [sock for at in range(60) for sock in calls([32_769 + at], f"192.0.2.{at}:80")]
    view = view_with(
        *(replace(one, cookie=at) for at, one in enumerate(every, 1)),
        knobs={**KNOBS, "ip_local_port_range_high": 60_999},
    )
    assert view.ephemeral_ports is not None
    view = replace(view, ephemeral_ports=replace(view.ephemeral_ports, other_parity_share=0.9))
    for size, words in ((SMALL, "△ bind() before connect()"), (LARGE, "△ programs bind() before connect(): each port")):
        app = make_app()
        async with driven(app, size) as pilot:
            assert words in await shown(app, pilot, view)


async def test_connections_closed_without_time_wait() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        view = ending(time_wait=Gauge(162, 160), rates={"TCPTimeWaitOverflow": 12.0})
        assert "162/160 ▲ 12/s without TIME_WAIT" in await shown(app, pilot, view)


async def test_when_time_waits_end() -> None:
    every = [one for left_s in (0.5, 0.6, 9.5, 59.9) for one in waits([32_768 + int(10 * left_s)], left_s=left_s)]
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, view_with(*(replace(one, cookie=at) for at, one in enumerate(every, 1))))
        bars = line_with(app, "ends in").removeprefix("   ends in ")
        assert (bars[0], bars[9], bars[59], bars[60:]) == ("█", "▄", "▄", " 2/s")
        assert lines_of(app)[4].index("60 s") == len("   ends in ") + 60


async def test_sockets_of_unknown_owners() -> None:
    hidden = [
        sock("CLOSE_WAIT", "10.0.0.1:80", f"10.0.0.2:{at}", inode=7, owner_code=UNKNOWN_PERMISSION) for at in range(4)
    ]
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, view_with(*(replace(s, cookie=at) for at, s in enumerate([*hidden, *left_open(2)], 1))))
        await pilot.press("j")
        assert line_with(app, "▸").split()[1:6] == ["4", "of", "unknown", "owner", "–"]
        assert "4 of unknown owner: not all processes can be read (root can)" in lines_of(app)[-1]
        await pilot.press("enter")
        assert filter_of(app) == "state:close-wait -inode:0 -pid:77"
        assert rows_shown(app) == 4


async def test_the_processes_of_a_program_are_one_row_and_those_not_looked_up_are_not_called_unknown() -> None:
    workers = [replace(one, pid=100 + at) for at, one in enumerate(left_open(30, "worker"))]
    sought = sock("CLOSE_WAIT", "10.0.0.1:80", "10.0.0.2:9", inode=7, owner_code=UNKNOWN_NOT_LOOKED)
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, view_with(*(replace(s, cookie=at) for at, s in enumerate([*workers, sought], 1))))
        assert line_with(app, "worker").split()[:6] == ["▸", "worker", "(30", "processes)", "30", "0"]
        assert "1 not looked up yet" in line_with(app, "not looked")
        await pilot.press("enter")
        assert rows_shown(app) == 30


async def test_exact_numbers() -> None:
    app = make_app()
    view = ending(time_wait=Gauge(1_234_567, 2_000_000))
    async with driven(app, SMALL) as pilot:
        assert "1.23 M/2.00 M" in await shown(app, pilot, view)
        await pilot.press("n")
        assert "1,234,567/2,00" in shot(app)


async def test_a_hostile_name_is_shown_unchanged() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, ending())
        await pilot.press("right", "j")
        assert "[@click=ap…t]x[/][78]" in line_with(app, "▸")
        assert f"{HOSTILE}[78]" in lines_of(app)[-1]


async def test_the_help_lists_keys_and_terms() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        await shown(app, pilot, ending())
        await pilot.press("question_mark")
        screen = shot(app)
        for words in ("next table", "── Teardown", "server side"):
            assert words in screen
        assert all(word in "".join(lines_of(app)) for word, _ in GLOSSARY)


async def test_a_redraw_takes_few_milliseconds() -> None:
    app = make_app()
    many = [s for at in range(60) for s in calls(range(32_768, 32_778), f"192.0.2.{at}:80")]
    views = [view_with(*(replace(s, cookie=at) for at, s in enumerate(many[by:], 1))) for by in (0, 5)]
    async with driven(app, LARGE) as pilot:
        await shown(app, pilot, views[0])
        start = time.thread_time()
        for at in range(50):
            app.screen.page.show(views[at % 2])  # type: ignore[attr-defined]
        assert (time.thread_time() - start) / 50 < 0.02


# The cursor -------------------------------------------------------------------------------------


def cursor(app: TcpwatchApp) -> str:
    return line_with(app, "▸").partition("▸")[2].lstrip("↑↓ ").split()[0]


def filter_of(app: TcpwatchApp) -> str:
    return app.screen.query_one(ConnectionsPage).filter.text


def rows_shown(app: TcpwatchApp) -> int:
    return app.screen.query_one(ConnectionsPage).table.arrangement.shown  # type: ignore[union-attr]


TO_API = "raddr:192.0.2.1 rport:443 laddr:10.0.0.1"


ROWS = (
        (SMALL, "", TO_API, 82),
        (SMALL, "j", "raddr:10.0.0.7 rport:5432 laddr:10.0.0.1", 11),
        (SMALL, "j j", "raddr:192.0.2.1 rport:443 laddr:10.0.0.2", 1),
        (SMALL, "j j j", "raddr:2001:db8::7 rport:80 laddr:2001:db8::1", 1),
        (SMALL, "right", "state:close-wait pid:77", 23),
        (SMALL, "right j", "state:close-wait pid:78", 9),
        (SMALL, "right down down", "state:close-wait inode:0", 3),
        (SMALL, "right right", "state:time-wait lport:80", 120),
        (SMALL, "right right j k j", "state:time-wait lport:8080", 9),
        (SMALL, "right right right", "state:fin-wait-2 pid:90", 4),
        (SMALL, "left", "state:fin-wait-1,fin-wait-2,last-ack,closing -inode:0", 4),
        (SMALL, "G", "state:fin-wait-1,fin-wait-2,last-ack,closing inode:0", 9),
        (SMALL, "G g", TO_API, 82),
        (SMALL, "pagedown", "state:close-wait pid:78", 9),
        (LARGE, "", f"state:time-wait {TO_API}", 32),
        (LARGE, "right", "state:time-wait lport:80", 120),
        (LARGE, "right right", TO_API, 82),
        (LARGE, "left", "raddr:192.0.2.99", 0),
        (LARGE, "left j", "state:syn-sent raddr:192.0.2.9 rport:25", 0),
        (LARGE, "left j j", "raddr:198.51.100.5", 2),
        (LARGE, "G", "pid:1234", 1),
)  # fmt: skip
"""Size, keys from the first row, the filter that Enter sets then, and the number of sockets it shows."""


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "160x50"])
async def test_enter_shows_the_sockets_of_the_row(size: tuple[int, int]) -> None:
    app = make_app()
    async with driven(app, size) as pilot:
        for keys, filter_text, count in (case[1:] for case in ROWS if case[0] == size):
            await shown(app, pilot, ending())
            await pilot.press(*keys.split(), "enter")
            assert filter_of(app) == filter_text, keys
            assert rows_shown(app) == count, keys
            await pilot.press("5", "g")


async def test_the_cursor_stays_on_its_destination_while_ranks_change() -> None:
    def view(first: int, second: int) -> View:
        socks = [*calls(range(32_768, 32_768 + first)), *calls(range(32_768, 32_768 + second), DATABASE)]
        return view_with(*(replace(one, cookie=at) for at, one in enumerate(socks, 1)))

    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, view(5, 3))
        assert cursor(app) == API
        await shown(app, pilot, view(3, 5))
        assert cursor(app) == DATABASE, "until it is moved, the cursor is on the first row"
        await pilot.press("j")
        assert cursor(app) == API
        await shown(app, pilot, view(5, 3))
        assert cursor(app) == API
        await shown(app, pilot, view(0, 3))
        assert cursor(app) == DATABASE
        await shown(app, pilot, view(0, 0))
        assert cursor(app) == "has", "without destinations it is on the first row of another table"


async def test_a_long_table_scrolls_with_the_cursor() -> None:
    socks = [s for at in range(9) for s in calls(range(32_768, 32_790 - at), f"192.0.2.{at}:443")]
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, view_with(*(replace(one, cookie=at) for at, one in enumerate(socks, 1))))
        assert [line[2] for line in lines_of(app)[7:11]] == [" ", " ", " ", "↓"]
        await pilot.press(*"jjjjj")
        assert cursor(app) == "192.0.2.5:443"
        assert [line.split()[0].lstrip("↑↓▸") for line in lines_of(app)[7:10]] == [
            f"192.0.2.{at}:443" for at in (2, 3, 4)
        ]
        assert [line[1:3] for line in lines_of(app)[7:11]] == [" ↑", "  ", "  ", "▸↓"]
        await pilot.press(*"jjj")
        assert lines_of(app)[10][1:3] == "▸ "
        await pilot.press("g")
        assert lines_of(app)[7][1:3] == "▸ "


CLICKED = {
    "leaky[77]": "state:close-wait pid:77",
    "proxy[90]": "state:fin-wait-2 pid:90",
    ":8080": "state:time-wait lport:8080",
}
"""What is clicked twice, and the filter it sets."""


async def test_a_click_moves_the_cursor_and_a_second_one_opens() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        async for size in at_sizes(pilot, (SMALL, LARGE, (60, 60))):
            for words, filter_text in CLICKED.items():
                screen = await shown(app, pilot, ending())
                y, line = next((y, line) for y, line in enumerate(screen.splitlines()) if words in line)
                for _ in range(2):
                    assert app.screen.page.id == "teardown", (size, words)  # type: ignore[attr-defined]
                    await pilot.click(offset=(line.index(words), y))
                assert filter_of(app) == filter_text, (size, words)


async def test_a_click_elsewhere_does_nothing() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, ending())
        for y in (2, 4, 7, 13, 22):
            await pilot.click(offset=(30, y))
        assert cursor(app) == API


def test_the_title_says_how_many_stalled_rows_are_not_listed() -> None:
    view = ending()
    stalls = replace(view.stalls, silent=replace(view.stalls.silent, all_peers=26))
    assert [stalled_table(it).title for it in (view, replace(view, stalls=stalls))] == [
        "Stalled sending", "Stalled sending (25 more)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("free", "is_exact", "width", "text"),
    [(28_182, True, 6, "28,182"), (28_182, False, 7, "≤28,182"), (28_182, False, 6, "≤28182"), (99, False, 6, "≤99")],
)
def test_ports_that_are_left_are_never_rounded(free: int, is_exact: bool, width: int, text: str) -> None:
    row = SimpleNamespace(free=free, exact=is_exact)
    assert ports._left(row, False, width) == text  # type: ignore[arg-type]
