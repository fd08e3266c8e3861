"""The Half-open screen: its lines at both sizes, one listener at a time, and the cursor on the sources."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from textual.pilot import Pilot

from tcpwatch.app import TcpwatchApp
from tcpwatch.kernel.netlink import uapi
from tcpwatch.model.listeners.half_open import HalfOpenSummary
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.listeners.queue_detail import QueueDetail, QueueMembers
from tcpwatch.model.rules.half_open.verdict import half_open_verdict
from tcpwatch.model.states import State
from tcpwatch.model.trends import SYN_ARRIVALS, Trend
from tcpwatch.model.view import View
from tcpwatch.sample import SourceInfo
from tcpwatch.screens.connections.page import ConnectionsPage
from tcpwatch.screens.half_open.blocks import verdict_lines
from tcpwatch.widgets.charts.area import area
from tcpwatch.widgets.palette import Palette, palette
from tests.model.rules.half_open.test_verdict import SCENES as VERDICTS
from tests.support.busy import HOSTILE
from tests.support.driving import at_sizes, at_widths, driven
from tests.support.shots import LARGE, SMALL, check_snapshot, make_app, page_shot, shot
from tests.support.views import NOW, Sock, make_rows, make_sample, make_view, shared, sock, view_of

RATES = {
    "SyncookiesSent": 740.0, "SyncookiesRecv": 3.0, "SyncookiesFailed": 0.0, "TCPReqQFullDoCookies": 740.0,
    "TCPReqQFullDrop": 0.0, "ListenOverflows": 0.0,
}  # fmt: skip


def rising(rates: dict[str, float]) -> dict[str, Trend]:
    return {name: tuple(max(0.0, at - 60) * rate / 60 for at in range(120)) for name, rate in rates.items()}


@shared
def flooded(**overrides: Any) -> View:
    """Return a View: nginx is flooded, sshd has three half-open connections, the third listener none."""
    repeats = [0 if at % 9 == 0 else 1 + at % 5 for at in range(257)]
    socks = [
        sock("LISTEN", "0.0.0.0:443", process="nginx", pid=1234, send_queue=256),
        sock("LISTEN", "0.0.0.0:22", process="sshd", pid=700, send_queue=128),
        sock("LISTEN", "127.0.0.1:5432", process=HOSTILE, pid=802, send_queue=244),
        *(
            sock("SYN_RCVD", "10.0.0.1:443", f"198.19.{at % 3}.{at % 250}:{1024 + at}", retransmits=times, timer="on",
                 timer_s=2.0**times / 2, age_s=2.0**times, begin_seen=at % 2 == 0)
            for at, times in enumerate(repeats)
        ),
        *(sock("SYN_RCVD", "10.0.0.1:22", f"192.0.2.{at}:{1024 + at}", age_s=0.2) for at in range(1, 4)),
    ]  # fmt: skip
    facts: dict[str, Any] = {
        "step": 2, "rates": RATES, "syn_arrivals_per_s": 1000.0, "rate_trend": rising({**RATES, SYN_ARRIVALS: 1000.0}),
    }  # fmt: skip
    return make_view(*socks, **{**facts, **overrides})


def calls(addresses: Sequence[str], **facts: Any) -> list[Sock]:
    """Return half-open connections to port 80 from these addresses."""
    return [
        sock("SYN_RCVD", "[2001:db8::80]:80" if "[" in address else "10.0.0.1:80", f"{address}:{1024 + at}", **facts)
        for at, address in enumerate(addresses)
    ]


async def shown(app: TcpwatchApp, pilot: Pilot[None], view: View) -> str:
    """Return the screen with this View."""
    app.show(view)
    await pilot.press("4")
    return shot(app)


def lines_of(app: TcpwatchApp) -> list[str]:
    return ["".join(piece for piece, _ in line) for line in app.screen.focused.lines]  # type: ignore[union-attr]


# What is drawn ----------------------------------------------------------------------------------


async def test_snapshot() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, flooded())
        async for width, height in at_sizes(pilot, (SMALL, LARGE)):
            check_snapshot(f"half_open_{width}x{height}", page_shot(app))
            await pilot.press("L")
            check_snapshot(f"half_open_one_{width}x{height}", page_shot(app))
            await pilot.press("l")


async def test_snapshot_of_both_families() -> None:
    four = [f"192.0.{at % 3}.{at}" for at in range(20)]
    six = [f"[2001:db8:{at % 2:x}:{at % 5:x}:ffff:ffff:ffff:{at % 9:x}]" for at in range(30)]
    view = make_view(sock("LISTEN", "[::]:80", send_queue=400), *calls(four), *calls(six))
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, view)
        async for width, height in at_sizes(pilot, (SMALL, LARGE)):
            check_snapshot(f"half_open_v6_{width}x{height}", page_shot(app))


async def test_no_line_is_wider_than_the_screen() -> None:
    app, widths = make_app(), (50, 60, 71, 72, 80, 100, 119, 120, 140, 160, 200, 300)
    async with driven(app, LARGE) as pilot:
        await shown(app, pilot, flooded())
        for keys in ((), ("l",), ("n",)):
            await pilot.press(*keys)
            async for width in at_widths(pilot, widths, 60):
                assert all(cell_len(line) <= width for line in lines_of(app))


async def test_the_smallest_screens_break_nothing() -> None:
    app = make_app()
    async with driven(app, (1, 1)) as pilot:
        async for size in at_sizes(pilot, ((1, 1), (5, 3), (20, 5), (49, 60))):
            await shown(app, pilot, flooded())
            await pilot.press("j", "right", "l", "n", "escape")
            assert app.is_running, size


async def test_everything_fits_80x24() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, flooded())
        assert len(lines_of(app)) == 21
        assert not app.screen.focused.show_vertical_scrollbar  # type: ignore[union-attr]


async def test_lines_keep_their_places_with_other_figures() -> None:
    quiet = make_view(sock("LISTEN", "0.0.0.0:80", send_queue=9))
    few = make_view(sock("LISTEN", "0.0.0.0:80", send_queue=9), *calls(["192.0.2.1"]))
    app = make_app()
    async with driven(app, SMALL) as pilot:
        async for width in at_widths(pilot, (80, 120, 160), 24):
            places = []
            for view in (quiet, few, flooded(), make_view()):
                await shown(app, pilot, view)
                titles = ("── Age", "── SYN+ACK", "── Addresses")
                places.append([next(y for y, line in enumerate(lines_of(app)) if title in line) for title in titles])
            assert places == [places[0]] * 4, width


@pytest.fixture(scope="module")
def colours() -> Palette:
    return palette(make_app())


@pytest.mark.parametrize("name", VERDICTS)
@pytest.mark.parametrize("width", [72, 80, 120, 160])
def test_every_verdict_has_the_same_height(name: str, width: int, colours: Palette) -> None:
    view = VERDICTS[name].host.view()
    view = replace(view, syn_arrivals_per_s=123_456.0, rates={rate: 1000 * value for rate, value in view.rates.items()})
    heights = {len(verdict_lines(half_open_verdict(view, key), True, width, colours)) for key in keys_of(view)}
    assert len(heights) == 1
    assert heights == {2 * -(-146 // (width - 4))}


def keys_of(view: View) -> list[ListenerKey | None]:
    return [None, *(listener.key for listener in view.listeners)]


async def test_no_half_open_connections() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        screen = await shown(app, pilot, make_view())
        assert "· quiet: no half-open connections" in screen
        assert "No listener." in screen


async def test_before_the_first_view() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await pilot.press("4", "j", "l", "enter", "1", "4")
        assert "no data yet" in shot(app)


async def test_values_that_psutil_lacks_are_dashes() -> None:
    rows = make_rows([sock("LISTEN", "0.0.0.0:70"), sock("LISTEN", "0.0.0.0:80"), *calls(["192.0.2.1"], age_s=12.0)])
    sample = make_sample(rows, source=SourceInfo("psutil", "user"))
    app = make_app()
    async with driven(app, SMALL) as pilot:
        screen = await shown(app, pilot, view_of(rows, make_rows([]), sample=sample))
        assert "· unknown: 1 half-open connection" in screen
        assert "SYN queue *:80                  1/–" in screen
        assert "unknown" in next(line for line in screen.splitlines() if "SYN+ACK retransmits" in line)
        never = next(line for line in screen.splitlines() if "never" in line)
        assert never.split()[-2:] == ["never", "–"]


async def test_estimated_ages_have_a_sign() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        both = [
            *calls(["192.0.2.1"], begin_seen=True, age_s=2.0),
            *calls(["192.0.2.2"], begin_seen=False, retransmits=2),
        ]
        assert "oldest ~7 s · ~1 estimated" in await shown(app, pilot, make_view(*both))
        screen = await shown(app, pilot, make_view(both[1]))
        assert next(line for line in screen.splitlines() if "7–15 s" in line).split()[3] == "~1"
        assert "~" not in await shown(app, pilot, make_view(both[0]))


async def test_a_hostile_name_is_shown_unchanged() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        socks = [sock("LISTEN", "0.0.0.0:80", process=HOSTILE, pid=1, send_queue=9), *calls(["192.0.2.1"])]
        await shown(app, pilot, make_view(*socks))
        await pilot.press("l")
        assert HOSTILE in shot(app)


async def test_exact_numbers() -> None:
    app = make_app()
    view = flooded()
    many = replace(view.half_open, count=1_234_567, ages=(1_234_567, 0, 0, 0, 0, 0, 0))
    async with driven(app, SMALL) as pilot:
        assert "1.23 M half-open" in await shown(app, pilot, replace(view, half_open=many))
        await pilot.press("n")
        assert "All listeners: 1,234,567 half-open" in shot(app)
        assert "1,234,567 " in next(line for line in shot(app).splitlines() if "0–1 s" in line)


# A million --------------------------------------------------------------------------------------


def million() -> View:
    """A million half-open connections of one listener, from a /12."""
    size = 1_000_000
    table = np.zeros(size + 1, uapi.SOCKET)
    table["idiag_cookie"] = np.arange(1, size + 2)
    table["idiag_state"], table["idiag_family"], table["idiag_sport"] = State.SYN_RCVD, uapi.AF_INET, 80
    table["idiag_dst"][:, :4] = (np.arange(size + 1) + 0x0A000000).astype(">u4").view(np.uint8).reshape(-1, 4)
    table["idiag_state"][0], table["idiag_wqueue"][0] = State.LISTEN, 4096
    empty = make_rows([])
    rows = replace(
        empty, table=table, cookie=table["idiag_cookie"].copy(), state=table["idiag_state"].copy(),
        first_seen=np.full(size + 1, NOW), since=np.full(size + 1, NOW), begin_seen=np.ones(size + 1, np.bool_),
        role=np.zeros(size + 1, np.uint8), closer=np.zeros(size + 1, np.uint8), mark=np.zeros(size + 1, np.uint8),
        owner=np.full(size + 1, -1, np.int32),
    )  # fmt: skip
    return view_of(rows, empty)


async def test_a_million_half_open_connections_are_drawn_at_once() -> None:
    app, view = make_app(), million()
    async with driven(app, LARGE) as pilot:
        await shown(app, pilot, make_view())
        start = time.thread_time()
        app.show(view)
        assert time.thread_time() - start < 0.1
        await pilot.pause()
        assert "1.00 M half-open" in shot(app)
        assert "10.1.0.0/16" in shot(app)


async def test_a_redraw_takes_few_milliseconds() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        views = [flooded(), flooded(syn_arrivals_per_s=900.0)]
        await shown(app, pilot, views[0])
        start = time.thread_time()
        for at in range(50):
            app.screen.page.show(views[at % 2])  # type: ignore[attr-defined]
        assert (time.thread_time() - start) / 50 < 0.02


# Listener by listener ---------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The ports of the queues that the app was asked to watch."""
    ports: list[int | None] = []
    monkeypatch.setattr(TcpwatchApp, "watch_queue", lambda self, key: ports.append(key.port if key else None))
    return ports


def title(app: TcpwatchApp) -> str:
    return lines_of(app)[0]


async def test_stepping_through_the_listeners(asked: list[int | None]) -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        await shown(app, pilot, flooded())
        titles = [title(app)]
        for key in ("l", "l", "l", "L", "escape"):
            await pilot.press(key)
            titles.append(title(app))
        every, ssh, https = "All listeners: 260 half-open", "*:22  sshd[700]: 3 half-open", "*:443  nginx[1234]: 257 "
        for line, words in zip(titles, (every, ssh, https, every, https, every), strict=True):
            assert words in line
        assert "1 of 2" in titles[1]
        assert asked == [22, 443, None, 443, None]


async def test_esc_shows_all_listeners_then_the_previous_tab() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, flooded())
        await pilot.press("l", "escape")
        assert app.screen.page.id == "half_open"  # type: ignore[attr-defined]
        await pilot.press("escape")
        assert app.screen.page.id == "overview"  # type: ignore[attr-defined]


def focused(view: View, port: int, half_open: HalfOpenSummary) -> View:
    key = next(listener.key for listener in view.listeners if listener.local_port == port)
    nobody = QueueMembers(view.rows, np.empty(0), np.empty(0, np.bool_), 0)
    return replace(view, queue_detail=QueueDetail(key, nobody, nobody, half_open))


async def test_queue_detail_is_requested_until_it_comes(asked: list[int | None]) -> None:
    view = flooded()
    half_open = make_view(*calls(["192.0.2.1", "192.0.2.2"], age_s=0.5)).half_open
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, view)
        await pilot.press("l")
        assert "0–1 s" in shot(app)
        assert next(line for line in lines_of(app) if "0–1 s" in line).split()[2] == "–"
        app.show(focused(view, 443, half_open))
        app.show(focused(view, 22, half_open))
        await pilot.pause()
        assert asked == [22, 22]
        assert "192.0.2.2" in shot(app)


async def test_queue_detail_is_requested_only_while_the_page_is_shown(asked: list[int | None]) -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, flooded())
        await pilot.press("1")
        assert asked == []
        await pilot.press("4", "l", "1")
        assert asked == [22, None]
        await pilot.press("4")
        assert asked == [22, None, 22]
        assert "*:22  sshd[700]" in shot(app)


async def test_a_listener_that_closes_while_it_is_shown(asked: list[int | None]) -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, flooded())
        await pilot.press("l")
        screen = await shown(app, pilot, make_view(sock("LISTEN", "0.0.0.0:80", send_queue=9)))
        assert "*:22  sshd[700]: – half-open" in screen
        assert "listener closed: no listener" in screen
        assert asked == [22]  # not requested again: the listener is closed
        await pilot.press("l")
        assert "All listeners" in shot(app)


async def test_two_families_with_the_same_port_are_distinguished() -> None:
    socks = [
        sock("LISTEN", "0.0.0.0:80", send_queue=9), sock("LISTEN", "[::]:80", send_queue=9, v6only=True),
        *calls(["192.0.2.1", "[2001:db8::1]"]),
    ]  # fmt: skip
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, make_view(*socks))
        titles = []
        for _ in range(2):
            await pilot.press("l")
            titles.append(title(app))
        assert [title.split()[1] for title in titles] == ["[::]:80:", "*:80:"]


async def test_the_help_lists_the_keys() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        await shown(app, pilot, flooded())
        await pilot.press("question_mark")
        assert "next listener" in shot(app)
        assert "previous listener" in shot(app)


# The cursor on the sources ----------------------------------------------------------------------


def cursor(app: TcpwatchApp) -> str:
    line = next(line for line in lines_of(app) if "▸" in line)
    return line.partition("▸")[2].split()[0]


def filter_of(app: TcpwatchApp) -> str:
    return app.screen.query_one(ConnectionsPage).filter.text


CURSOR = (
        ("", "192.0.2.1"), ("j", "192.0.2.2"), ("down down", "192.0.2.3"), ("j k", "192.0.2.1"), ("k", "192.0.2.1"),
        ("right", "198.19.0.0/24"), ("right down", "198.19.1.0/24"), ("right left", "192.0.2.1"), ("left", "192.0.2.1"),
        ("G", "192.0.0.0/16"), ("G right", "192.0.0.0/16"), ("G g", "192.0.2.1"), ("pagedown", "198.19.1.0/24"),
        ("right j j", "198.19.0.0/16"),
)  # fmt: skip
"""Keys, and where the cursor is then."""


async def test_keys_move_the_cursor() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, flooded())
        for keys, prefix in CURSOR:
            await pilot.press(*keys.split())
            assert cursor(app) == prefix, keys
            await pilot.press("left", "g")


ROWS = (
        ("enter", "state:syn-rcvd raddr:192.0.2.1"),
        ("right enter", "state:syn-rcvd raddr:198.19.0.0/24"),
        ("G enter", "state:syn-rcvd raddr:192.0.0.0/16"),
        ("L enter", "state:syn-rcvd raddr:198.19.0.0 lport:443"),
        ("L right enter", "state:syn-rcvd raddr:198.19.0.0/24 lport:443"),
)  # fmt: skip
"""Keys, and the filter they set."""


async def test_enter_shows_the_sockets_of_the_source() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        for keys, filter_text in ROWS:
            await shown(app, pilot, flooded())
            await pilot.press(*keys.split())
            assert filter_of(app) == filter_text, keys
            assert app.screen.query_one(ConnectionsPage).table.arrangement.shown > 0, keys  # type: ignore[union-attr]
            await pilot.press("4", "left", "g", *["l"] * keys.count("L"))


async def test_enter_without_a_source() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, make_view())
        await pilot.press("j", "right", "enter")
        assert filter_of(app) == "state:syn-rcvd"


async def test_enter_on_an_ipv6_network_of_one_listener() -> None:
    view = make_view(sock("LISTEN", "[2001:db8::80]:80", send_queue=4), *calls(["[2001:db8:0:7::1]"] * 5))
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, view)
        await pilot.press("l", "right", "enter")
        assert filter_of(app) == "state:syn-rcvd raddr:2001:db8:0:7::/64 lport:80 laddr:2001:db8::80"
        assert app.screen.query_one(ConnectionsPage).table.arrangement.shown == 5  # type: ignore[union-attr]


async def test_the_cursor_stays_on_its_source_while_ranks_change() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, make_view(*calls(["192.0.2.1", "192.0.2.1", "192.0.2.2"])))
        await pilot.press("j")
        assert cursor(app) == "192.0.2.2"
        await shown(app, pilot, make_view(*calls(["192.0.2.1", "192.0.2.2", "192.0.2.2"])))
        assert cursor(app) == "192.0.2.2"
        await shown(app, pilot, make_view(*calls(["192.0.2.1"])))
        assert cursor(app) == "192.0.2.1"
        await shown(app, pilot, make_view())
        assert "▸" not in shot(app)


async def test_a_click_moves_the_cursor_and_a_second_one_opens() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        async for size in at_sizes(pilot, (SMALL, LARGE, (60, 60))):
            screen = await shown(app, pilot, flooded())
            y, line = next((y, line) for y, line in enumerate(screen.splitlines()) if "198.19.1.0/24" in line)
            place = (line.index("198.19.1.0/24"), y)
            await pilot.click(offset=place)
            assert cursor(app) == "198.19.1.0/24", size
            await pilot.click(offset=place)
            assert filter_of(app) == "state:syn-rcvd raddr:198.19.1.0/24", size
            await pilot.press("4", "left", "g")


async def test_the_spread_of_the_sources_in_words() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        for addresses, words in (
            (["192.0.2.1"] * 9, "1 source (11 %)"),
            ([f"192.0.2.{at}" for at in range(3)], "source spread: narrow"),
            ([f"192.0.2.{at}" for at in range(9)], "source spread: medium"),
            ([f"192.0.2.{at}" for at in range(32)], "source spread: wide"),
        ):
            assert words in await shown(app, pilot, make_view(*calls(addresses))), words


async def test_a_click_elsewhere_does_nothing() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await shown(app, pilot, flooded())
        for y in (2, 4, 12, 18):
            await pilot.click(offset=(30, y))
        assert cursor(app) == "192.0.2.1"


# Charts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ([], ["    ", "    "]),
        ([0.0, 5.0, 10.0, 20.0], ["   █", " ▄██"]),
        ([0.001, 20.0, 20.0, 20.0], [" ███", "▁███"]),
        ([float("nan"), 0.0, 0.0, 10.0], ["    ", "   █"]),
    ],
)
def test_area(values: list[float], lines: list[str]) -> None:
    assert area(values, 4, 4, 2, 20.0) == lines
