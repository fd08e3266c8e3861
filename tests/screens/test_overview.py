"""Overview: what it draws, at both sizes, and its keys."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
from rich.cells import cell_len
from textual.pilot import Pilot

from tcpwatch import units
from tcpwatch.app import TcpwatchApp
from tcpwatch.model.lifecycle.trace.stats import TraceStats
from tcpwatch.model.sockets.flow_totals import Distribution, FlowTotals
from tcpwatch.model.states import State
from tcpwatch.model.view import Gauge
from tcpwatch.screens.connections.page import ConnectionsPage
from tcpwatch.screens.overview.totals import decade_sparkline
from tcpwatch.widgets.charts.bars import resample, sparkline
from tests.support.busy import HOSTILE, busy_view, sick_view
from tests.support.driving import at_sizes, at_widths, driven
from tests.support.shots import LARGE, SMALL, check_snapshot, make_app, page_shot, shot
from tests.support.totals import FLOWS, totals
from tests.support.views import make_view, sock

DROPS = {f"TCP_REASON_{at}": 9.0 - at for at in range(8)} | {"TCP_LISTEN_OVERFLOW": 38.0}
TRACE = TraceStats(on=True, retransmitted_per_s=3.2, resets_sent_per_s=5.0, drops_per_s=DROPS)


async def test_snapshot() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        async for width, height in at_sizes(pilot, (SMALL, LARGE)):
            app.show(busy_view())
            await pilot.pause()
            check_snapshot(f"overview_{width}x{height}", page_shot(app))
            app.show(busy_view(flow_totals=FLOWS, trace=TRACE))
            await pilot.pause()
            check_snapshot(f"overview_flows_{width}x{height}", page_shot(app))


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "160x50"])
async def test_snapshot_of_findings(size: tuple[int, int]) -> None:
    app = make_app()
    async with driven(app, size) as pilot:
        app.show(sick_view())
        await pilot.pause()
        check_snapshot(f"overview_findings_{size[0]}x{size[1]}", page_shot(app))
        await pilot.press("g", "w")
        check_snapshot(f"findings_{size[0]}x{size[1]}", page_shot(app))
        await pilot.press("escape")
        assert "Handshake" in shot(app)


async def test_flows_leave_before_anything_else_does() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        view = sick_view(flow_totals=FLOWS)
        for findings, shown in ((2, True), (3, False)):
            app.show(replace(view, findings=view.findings[:findings]))
            await pilot.pause()
            assert ("life p50" in shot(app)) is shown
            assert "TW full" in shot(app) and "memory pages" in shot(app)


async def test_listeners_come_before_flows() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        listeners = [sock("LISTEN", f"10.0.0.1:{port}") for port in range(1, 40)]
        app.show(make_view(*listeners, flow_totals=FLOWS))
        await pilot.pause()
        assert "── Flows by service (3) ──" in shot(app) and " more" in shot(app)
        lines = app.screen.focused.lines  # type: ignore[union-attr]
        assert len(lines) <= app.screen.focused.size.height  # type: ignore[union-attr]


async def test_no_flow_is_no_table() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.show(busy_view(flow_totals=FlowTotals(1.0, totals(p50_ms=None))))
        await pilot.pause()
        assert "── Flows by" not in shot(app)
        line = next(line for line in shot(app).splitlines() if "new flows" in line)
        assert line.split() == "new flows 0/s ended 0/s lifetime p50/90/99 – – –".split()


async def test_flows_come_before_counters_that_are_not_always_shown() -> None:
    app = make_app()
    async with driven(app, (120, 40)) as pilot:
        for flows, counters in ((FLOWS, False), (None, True)):
            app.show(busy_view(flow_totals=flows))
            await pilot.pause()
            assert ("Flows by service" in shot(app), "zero win." in shot(app)) == (not counters, counters)
            assert "127.0.0.1:5432" in shot(app), "a listener"


async def test_the_busiest_are_as_many_as_there_is_room_for() -> None:
    many = tuple(totals(f"[2001:db8:1111:2222:3333:4444:5555:{at}]:443", 40.0 - at) for at in range(1, 21))
    app = make_app()
    async with driven(app, (120, 40)) as pilot:
        app.show(busy_view(flow_totals=FlowTotals(60.0, totals(), many, many[:2])))
        await pilot.pause()
        assert "── Flows by service, top 3 ─" in shot(app) and "── Flows by process (2) ─" in shot(app)
        assert ":5555:3]:443 " in shot(app) and ":5555:4]:443 " not in shot(app)
        await pilot.resize_terminal(120, 100)
        assert "── Flows by service, top 20  opened/s" in shot(app) and ":5555:20]:443 " in shot(app)


HEADS = {
    100: "ended/s life <ms·s··h·· p50 p99 longest bytes 0B··k··M··",
    120: "opened/s ended/s life <ms·s··h·· shortest p50 p99 longest bytes 0B··k··M·· p50",
    160: "opened/s ended/s life <ms·s··h·· shortest p50 p90 p99 longest bytes 0B··k··M·· p50 p99 largest",
    300: "opened/s ended/s life <ms·s··h·· shortest p50 p90 p99 longest bytes 0B··k··M·· p50 p99 largest",
}
"""The heads of the columns at each width."""


async def test_columns_of_flows() -> None:
    app = make_app()
    async with driven(app, (100, 50)) as pilot:
        app.show(busy_view(flow_totals=FLOWS))
        async for width in at_widths(pilot, HEADS, 50):
            lines = shot(app).splitlines()
            at, head = next((at, line) for at, line in enumerate(lines) if "Flows by service" in line)
            assert head.rpartition("──")[2].lstrip("─").split() == HEADS[width].split(), width
            row = lines[at + 1]
            # What a cell means is read above it.
            assert row[head.index("<ms·s··h··") :].startswith("▂▄█▂▂▂▁▁▁▁ "), width
            assert row[head.index("0B··k··M··") :].startswith("▂▁▂▂█▄▂▂▂▂"), width


async def test_help_explains_the_histograms() -> None:
    app = make_app()
    async with driven(app, (160, 120)) as pilot:
        app.show(busy_view())
        await pilot.press("question_mark")
        for word in ("── Flows ──", "<ms·s··h··  ", "0B··k··M··  ", "▁▂▄█ "):
            assert word in shot(app)


def test_a_single_flow_is_seen_beside_many() -> None:
    assert decade_sparkline(Distribution(1_000_001, histogram=(0, 1, 0, 0, 1_000_000, 0, 0, 0, 0, 0))) == "▁▂▁▁█▁▁▁▁▁"
    assert decade_sparkline(Distribution(1, histogram=(1, 0, 0, 0, 0, 0, 0, 0, 0, 0))) == "█▁▁▁▁▁▁▁▁▁"
    assert decade_sparkline(Distribution()) == "–"


async def test_enter_on_a_finding_leads_to_its_sockets() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(sick_view())
        await pilot.press("g", "enter")
        assert await _connections_filter(app, pilot) == "state:syn-rcvd lport:8443"


async def test_a_finding_without_sockets_is_explained() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        view = sick_view()
        app.show(replace(view, findings=(replace(view.findings[0], filter=""),)))
        await pilot.press("g", "enter")
        assert "What to do" in shot(app)


async def test_the_cursor_stays_on_its_finding_and_leaves_it_when_it_has_gone() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        view = sick_view()
        app.show(view)
        await pilot.press("g", "j")
        assert "▸ ▲ critical  accept queue full" in shot(app)
        app.show(replace(view, findings=view.findings[1:]))
        await pilot.pause()
        assert "▸ ▲ critical  accept queue full" in shot(app)
        app.show(replace(view, findings=()))
        await pilot.pause()
        assert _cursor(app) == "LISTEN"


async def test_what_is_too_much_is_listed_elsewhere() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        view = sick_view()
        many = [replace(view.findings[0], rule=f"rule-{at}") for at in range(12)]
        app.show(replace(view, findings=tuple(many)))
        await pilot.pause()
        assert "and 7 more; w lists all" in shot(app)
        await pilot.press("w", "G")
        assert "rule 11" in "\n".join(text for line in app.screen.focused.lines for text, _ in line)  # type: ignore[union-attr]


async def test_no_line_is_wider_than_the_screen() -> None:
    app, widths = make_app(), (50, 63, 64, 69, 70, 76, 80, 99, 100, 109, 110, 119, 120, 167, 168, 200, 300)
    async with driven(app, LARGE) as pilot:
        app.show(sick_view(flow_totals=FLOWS))
        await pilot.pause()
        overview = app.screen.focused
        assert overview is not None
        async for width in at_widths(pilot, widths, 50):
            for line in overview.lines:  # type: ignore[attr-defined]
                assert sum(cell_len(text) for text, _ in line) <= width


async def test_the_smallest_screens_break_nothing() -> None:
    app = make_app()
    async with driven(app, (1, 1)) as pilot:
        async for size in at_sizes(pilot, ((1, 1), (3, 3), (5, 3), (20, 5), (49, 60))):
            app.show(busy_view())
            await pilot.press("j", "space", "n")
            assert app.is_running, size


async def test_everything_fits_80x24() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(busy_view())
        await pilot.pause()
        screen = shot(app)
        for state in State:
            assert state is State.CLOSED or state.name in screen
        for word in ("Handshake", "Open", "Teardown", "Limits", "513/512", "opened", "TW full", "q quit", "? help"):
            assert word in screen


async def test_a_bound_socket_adds_a_group() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.show(make_view(sock("CLOSED", "10.0.0.1:80")))
        await pilot.pause()
        assert "CLOSED" in shot(app)
        assert "No connection" in shot(app)


async def test_what_is_not_known_is_a_dash_and_not_0() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        nothing = Gauge(None, None)
        app.show(make_view(time_wait=nothing, port_usage=nothing, orphans=nothing, memory_pages=nothing))
        await pilot.pause()
        lines = shot(app).splitlines()
        assert "accept queue          –" in shot(app)
        opened = next(line for line in lines if "opened" in line)
        assert opened.split() == ["opened", "–", "accepted", "–", "resets", "–", "retransm.", "–"]


async def test_a_hostile_name_is_shown_as_it_is_spelled() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.show(busy_view())
        await pilot.pause()
        lines = shot(app).splitlines()
        y, line = next((y, line) for y, line in enumerate(lines) if HOSTILE in line)
        await pilot.click(offset=(line.index(HOSTILE) + 12, y))
        assert app.is_running
        assert app._exit is False


def _cursor(app: TcpwatchApp) -> str:
    line = next(line for line in shot(app).splitlines() if "▸" in line)
    return line.split()[1]


CURSOR = (
        ("j", "FIN_WAIT_1"), ("down", "FIN_WAIT_1"), ("k", "SYN_RCVD"), ("up", "SYN_RCVD"), ("g", "LISTEN"),
        ("home", "LISTEN"), ("G", "TIME_WAIT"), ("end", "TIME_WAIT"), ("ctrl+d", "CLOSING"), ("pagedown", "CLOSING"),
        ("ctrl+u", "LISTEN"), ("pageup", "LISTEN"), ("g k", "LISTEN"), ("G j", "TIME_WAIT"),
)  # fmt: skip
"""Keys, and the row of the cursor then, from ESTABLISHED."""


async def test_keys_move_the_cursor() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(busy_view())
        await pilot.pause()
        for keys, state in CURSOR:
            assert _cursor(app) == "ESTABLISHED"
            await pilot.press(*keys.split())
            assert _cursor(app) == state, keys
            await pilot.press("g", "j", "j", "j")


async def test_the_cursor_stays_in_sight_on_a_low_screen() -> None:
    app = make_app()
    async with driven(app, (80, 8)) as pilot:
        app.show(busy_view())
        async for size in at_sizes(pilot, ((80, 8), (80, 12))):
            for key, state in (("G", "TIME_WAIT"), ("g", "LISTEN"), ("j", "SYN_SENT")):
                await pilot.press(key)
                assert _cursor(app) == state, (size, key)


async def _connections_filter(app: TcpwatchApp, pilot: Pilot[None]) -> str:
    await pilot.pause()
    return app.screen.query_one(ConnectionsPage).filter.text


async def test_enter_asks_for_the_sockets_in_the_state() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(busy_view())
        await pilot.press("G", "enter")
        assert await _connections_filter(app, pilot) == "state:TIME_WAIT"


async def test_a_click_moves_the_cursor_and_a_second_one_opens() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(busy_view())
        await pilot.pause()
        y = next(y for y, line in enumerate(shot(app).splitlines()) if "SYN_RCVD" in line)
        await pilot.click(offset=(10, y))
        assert _cursor(app) == "SYN_RCVD"
        await pilot.click(offset=(10, y))
        assert await _connections_filter(app, pilot) == "state:SYN_RCVD"


async def test_the_cursor_leaves_a_state_that_is_not_shown_any_more() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(make_view(sock("CLOSED", "10.0.0.1:80")))
        await pilot.press("G")
        assert _cursor(app) == "CLOSED"
        app.show(make_view(step=2))
        await pilot.pause()
        assert _cursor(app) == "TIME_WAIT"


async def test_exact_numbers() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        view = busy_view()
        app.show(replace(view, counts={**view.counts, State.ESTABLISHED: 1_234_567}))
        await pilot.pause()
        assert "1,234,567" not in shot(app)
        await pilot.press("n")
        assert "1,234,567" in shot(app)


async def test_only_changed_lines_are_drawn_anew() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        view = busy_view()
        app.show(view)
        await pilot.pause()
        overview = app.screen.focused
        before = list(overview._strips)  # type: ignore[union-attr]
        app.show(replace(view, counts={**view.counts, State.SYN_SENT: 1}))
        after = overview._strips  # type: ignore[union-attr]
        assert [y for y, strip in enumerate(after) if strip is not before[y]] == [2]


async def test_a_redraw_takes_few_milliseconds() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        views = [busy_view(step=step) for step in (2, 3)]
        app.show(views[0])
        await pilot.pause()
        start = time.thread_time()
        for at in range(50):
            app.screen.page.show(views[at % 2])  # type: ignore[attr-defined]
        assert (time.thread_time() - start) / 50 < 0.02


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, "    "),
        (0, "    "),
        (1e-9, "▏   "),
        (0.25, "█   "),
        (0.5, "██  "),
        (0.53125, "██▏ "),
        (1, "████"),
        (9, "████"),
    ],
)
def test_bar(share: float | None, text: str) -> None:
    assert units.bar(share, 4) == text


def test_sparkline_shows_change_and_not_size() -> None:
    assert sparkline([12.0] * 8, 8, 4) == "▁▁▁▁"
    assert sparkline([0, 0, 0, 0, 100, 200, 300, 400], 8, 4) == "▁▁▅█"
    assert sparkline([1.0, 2.0, 1.0, 2.0], 4, 4) == "▁▃▁▃"


def test_sparkline_is_blank_where_nothing_is_known() -> None:
    assert sparkline([], 8, 4) == "    "
    assert sparkline([5.0], 8, 4) == "   ▁"
    assert sparkline([math.nan, math.nan, 5.0, 5.0], 4, 4) == "  ▁▁"


def test_a_burst_between_two_cells_is_not_lost() -> None:
    assert resample([0, 9, 0, 0], 4, 2) == [9, 0]
    assert resample([1, 2], 2, 4) == [1, 1, 2, 2]
