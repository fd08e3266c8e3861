"""The frame of the screens: header, tabs, footer, palette, help, and the keys of the whole app."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from textual.pilot import Pilot
from textual.theme import BUILTIN_THEMES

from tcpwatch.app import INTERVALS_S, TcpwatchApp, ViewReady, run
from tcpwatch.config.settings import Settings, SettingsError
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_PERMISSION
from tcpwatch.model.states import FACTS, Phase, State
from tcpwatch.model.view import View
from tcpwatch.sample import Completeness, SourceInfo
from tcpwatch.screens.help.page import HelpScreen
from tcpwatch.screens.main import TABS, MainScreen
from tcpwatch.screens.overview.page import OverviewPage
from tcpwatch.screens.shared.header_line import HeaderLine
from tcpwatch.screens.shared.state_marks import phase_style
from tcpwatch.widgets.footer_line import FooterLine
from tcpwatch.widgets.palette import palette
from tcpwatch.widgets.tab_line import TabLine
from tests.support.busy import busy_view
from tests.support.driving import at_widths, driven, until
from tests.support.shots import LARGE, SMALL, check_snapshot, make_app, page_shot, shot
from tests.support.views import make_view, sock


def _header(app: TcpwatchApp) -> str:
    return shot(app).splitlines()[0]


def _page(app: TcpwatchApp) -> str:
    screen = app.screen
    assert isinstance(screen, MainScreen)
    return screen.page.id or ""


def _on_top(app: TcpwatchApp) -> type:
    return type(app.screen)


def _sampled(view: View, **facts: Any) -> View:
    return replace(view, sample=replace(view.sample, **facts))


# Views


async def test_views_come_as_messages() -> None:
    app, view = make_app(), make_view()
    async with driven(app, SMALL) as pilot:
        assert "no data yet" in shot(app)
        app.post_message(ViewReady(view))
        await pilot.pause()
        assert app.view is view


async def test_a_page_that_is_not_on_screen_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    app, shown = make_app(), []
    async with driven(app, SMALL) as pilot:
        await pilot.press("2")
        monkeypatch.setattr(OverviewPage, "show", lambda self, view: shown.append(view))
        views = [make_view(step=step) for step in (1, 2, 3)]
        for view in views:
            app.show(view)
        assert shown == []
        await pilot.press("1")
        assert shown == [views[-1]]


async def test_pause_keeps_the_view_and_lets_its_age_grow() -> None:
    now = [1000.4]
    app = make_app(clock=lambda: now[0])
    async with driven(app, SMALL) as pilot:
        first, later = make_view(sock("ESTAB", "10.0.0.1:80", "10.0.0.2:9")), make_view(step=9)
        app.show(first)
        await pilot.press("space")
        now[0] += 12
        app.show(later)
        await pilot.pause()
        assert app.view is first
        app.screen.query_one(HeaderLine).redraw()
        await pilot.pause()
        assert _header(app).endswith("‖ PAUSED 12 s")
        await pilot.press("space")
        assert app.view is later
        assert "LIVE" in _header(app)


# Header


async def test_header() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(make_view())
        async for width in at_widths(pilot, (80, 160), 24):
            left = " tcpwatch  web-1 · sock_diag · root · 1 s · poll 12 ms 1.1 %"
            assert _header(app) == left + "● LIVE 0.4 s".rjust(width - 1 - len(left)), width


async def test_the_left_part_gives_way_first() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(_sampled(make_view(), completeness=Completeness(answers_lost=True)))
        async for width in at_widths(pilot, range(16, 100, 7), 24):
            header = _header(app)
            assert header.endswith("● LIVE 0.4 s")
            assert len(header) <= width
            if width >= 43:
                assert "incomplete: answers lost" in header
                assert "tcpwatch" in header or width < 50


async def test_header_says_what_is_kept_and_what_is_missing() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        for kept, words in (("CAP_SYS_PTRACE",) * 3, "root, 3 caps"), (None, "· root ·"), ((), "· root ·"):
            app.show(_sampled(make_view(), source=SourceInfo("sock_diag", "root", "", kept)))
            await pilot.pause()
            assert words in _header(app)
        socks = [sock("ESTAB", "10.0.0.1:80", f"10.0.0.2:{port}", owner_code=UNKNOWN_PERMISSION) for port in (1, 2)]
        source = SourceInfo("psutil", "user")
        missing = Completeness(interrupted=True, reasons=("no queues", "no timers"))
        app.show(_sampled(make_view(*socks), source=source, completeness=missing))
        await pilot.pause()
        for words in ("psutil · unprivileged: 2 owners hidden", "incomplete: interrupted dump, no queues, no timers"):
            assert words in _header(app)


async def test_header_says_that_other_namespaces_are_not_watched() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        for count, shown in ((None, False), (0, False), (3, True)):
            app.show(_sampled(make_view(), other_namespaces=count))
            await pilot.pause()
            assert ("3 other netns not watched" in _header(app)) == shown


async def test_header_says_which_names_are_missing() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(_sampled(make_view(), unanswered=("some command lines not read: blocked",)))
        await pilot.pause()
        assert "some command lines not read: blocked" in _header(app)


async def test_header_says_that_events_are_forged() -> None:
    nothing = np.empty(0, uapi.SOCKET), np.empty(0, uapi.TCP_INFO), np.empty(0)
    app = make_app()
    async with driven(app, LARGE) as pilot:
        for count, shown in ((0, False), (3, True)):
            app.show(_sampled(make_view(), destroyed=DestroyedSockets(*nothing, 0, forged=count)))
            await pilot.pause()
            assert ("3 forged destroy events" in _header(app)) == shown


async def test_an_ordinary_user_who_sees_all_owners() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(_sampled(make_view(), source=SourceInfo("sock_diag", "user")))
        await pilot.pause()
        assert "sock_diag · user ·" in _header(app)


# Tabs


async def test_digits_and_tab_change_the_page() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(busy_view())
        last = len(TABS) - 1
        keys = [*((str(at + 1), at) for at in range(last + 1)), ("1", 0), ("tab", 1), ("shift+tab", 0)]
        for key, at in [*keys, ("shift+tab", last), ("tab", 0), ("escape", last)]:
            await pilot.press(key)
            assert _page(app) == TABS[at].id
            assert f"[{at + 1} {TABS[at].title}]" in shot(app).splitlines()[1]


async def test_esc_goes_back_the_way_one_came_and_stops_at_the_first() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(make_view())
        await pilot.press("2", "1", "escape")
        assert _page(app) == "connections"
        await pilot.press("escape")
        assert _page(app) == "overview"
        await pilot.press("escape", "escape")
        assert _page(app) == "overview"


async def test_a_click_on_a_tab() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(make_view())
        await pilot.click(TabLine, offset=(18, 0))
        assert _page(app) == "connections"


async def test_narrow_screens_show_the_title_of_the_active_tab_and_the_numbers_of_the_others() -> None:
    app = make_app()
    async with driven(app, (40, 24)) as pilot:
        app.show(make_view())
        for at, tab in enumerate(TABS):
            await pilot.press(str(at + 1))
            assert f"[{at + 1} {tab.title}]" in shot(app).splitlines()[1]
        await pilot.click(TabLine, offset=(4, 0))
        assert _page(app) == "connections"
        assert shot(app).splitlines()[1] == " 1 [2 Connections] 3  4  5  6"


# Footer


async def test_footer_always_tells_how_to_quit_and_to_get_help() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(busy_view())
        for key in ("2", "1", "question_mark"):
            await pilot.press(key)
            async for width in at_widths(pilot, (30, 40, 60, 80, 160), 24):
                assert shot(app).splitlines()[-1].startswith(" q quit  ? help"), (key, width)


async def test_a_click_on_a_key_does_what_the_key_does() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(make_view())
        await pilot.pause()
        footer = shot(app).splitlines()[-1]
        await pilot.click(FooterLine, offset=(footer.index("pause"), 0))
        assert app.paused


# Keys of the whole app


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
async def test_quit(key: str) -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        await pilot.press(key)
        assert app._exit
    assert app.return_code == 0


async def test_intervals_have_steps_and_ends() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(make_view())
        await pilot.press(*["minus"] * 20)
        assert app.interval_s == INTERVALS_S[0]
        assert "0.1 s" in _header(app)
        seen = [app.interval_s]
        for _ in range(20):
            await pilot.press("plus")
            seen.append(app.interval_s)
        assert tuple(dict.fromkeys(seen)) == INTERVALS_S


async def test_an_interval_between_the_steps() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.change_interval(3.0)
        await pilot.press("minus")
        assert app.interval_s == 2.0
        app.change_interval(3.0)
        await pilot.press("plus")
        assert app.interval_s == 5.0


# Help


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "160x50"])
async def test_help_snapshot(size: tuple[int, int]) -> None:
    app = make_app()
    async with driven(app, size) as pilot:
        app.show(busy_view())
        await pilot.press("2", "G", "enter", "question_mark")  # on a screen without tabs, whose keys would be listed
        check_snapshot(f"help_{size[0]}x{size[1]}", page_shot(app))


async def _help_text(app: TcpwatchApp, pilot: Pilot[None]) -> str:
    await pilot.press("question_mark")
    lines = app.screen.focused.lines  # type: ignore[union-attr]
    return "\n".join("".join(text for text, _ in line) for line in lines)


async def test_help_lists_keys_columns_states_spellings_and_the_filter() -> None:
    app = make_app()
    async with driven(app, (300, 50)) as pilot:
        app.show(make_view())
        await pilot.pause()
        shown = " ".join((await _help_text(app, pilot)).split())
        for facts in FACTS.values():
            assert facts.zh in shown
            for spelling in facts.spellings:
                assert spelling in shown
        assert "1 2 3 4 5 6 tab by number" in shown
        assert "n toggle names/numbers" in shown
        for words in ("Recv-Q", "CLOSED_WAIT1 and CLOSE_WAIT2", "state:", "port:", "role:", "↓ j", "ctrl+p"):
            assert words in shown


async def test_help_closes() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        for key in ("question_mark", "escape"):
            await pilot.press("question_mark")
            assert _on_top(app) is HelpScreen, key
            await pilot.press(key)
            assert _on_top(app) is MainScreen, key


async def test_the_page_below_the_help_catches_up() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(make_view())
        await pilot.press("question_mark")
        app.show(busy_view())
        await pilot.press("escape")
        assert "820" in shot(app)


# Command palette


async def test_the_palette_offers_what_the_keys_do() -> None:
    app = make_app()
    async with driven(app, SMALL):
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert titles[: len(TABS) + 1] == [*(f"Go to {tab.title}" for tab in TABS), "Pause"]
        assert {"Poll every 0.5 s", "Show exact numbers", "Theme", "Help", "Quit"} <= set(titles)


async def test_a_command_of_the_palette_runs() -> None:
    app = make_app()
    done: dict[str, Callable[[], bool]] = {
            "connections": lambda: _page(app) == "connections", "pause": lambda: app.paused,
            "every 30 s": lambda: app.interval_s == 30, "exact numbers": lambda: app.exact}  # fmt: skip
    async with driven(app, SMALL) as pilot:
        app.show(make_view())
        for typed, is_done in done.items():
            assert not is_done(), typed
            await pilot.press("ctrl+p")
            await pilot.press(*("space" if letter == " " else letter for letter in typed))
            await until(pilot, lambda: all(worker.is_finished for worker in app.workers))  # they search
            await pilot.press("enter")
            await until(pilot, is_done)


# Colours


async def test_every_theme_draws_and_tells_the_phases_apart() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(busy_view())
        for theme in sorted(BUILTIN_THEMES):
            app.theme = theme
            await pilot.pause()
            assert "ESTABLISHED" in shot(app), theme
            colours = {phase_style(phase, palette(app)) for phase in (Phase.HANDSHAKE, Phase.OPEN, Phase.TEARDOWN)}
            assert len(colours) == 3, theme
            assert palette(app).alarm not in colours, theme


async def test_another_theme_repaints_all_lines() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(busy_view())
        await pilot.pause()
        before = app.screen.focused._strips[3]  # type: ignore[union-attr]
        app.theme = "textual-light"
        await pilot.pause()
        assert app.screen.focused._strips[3] is not before  # type: ignore[union-attr]


async def test_without_colour_the_same_text_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = []
    for no_colour in (False, True):
        if no_colour:
            monkeypatch.setenv("NO_COLOR", "1")
        app = make_app()
        async with driven(app, SMALL) as pilot:
            app.show(busy_view())
            await pilot.pause()
            assert app.no_color is no_colour
            texts.append(shot(app))
            colours = palette(app)
            assert (colours.alarm.color is None, colours.alarm.underline) == (no_colour, no_colour or None)
            assert colours.alarm.bold and not colours.alarm.dim, "never less visible than plain text"
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("environment", "theme"),
    [
        ({"COLORFGBG": "15;0"}, "textual-dark"), ({"COLORFGBG": "0;15"}, "textual-light"),
        ({"COLORFGBG": "0;default;15"}, "textual-light"), ({"TERM": "linux"}, "ansi-dark"), ({}, "textual-dark"),
    ],
)  # fmt: skip
def test_the_theme_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], theme: str) -> None:
    for name in ("COLORFGBG", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert TcpwatchApp().theme == theme


def test_a_theme_that_does_not_exist() -> None:
    with pytest.raises(SettingsError, match="no theme is called 'puce'; there are ansi-dark, "):
        run(Settings(theme="puce"))


async def test_resizing_at_any_moment() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(busy_view())
        for size in ((160, 50), (40, 10), (80, 24), (81, 23)):
            await pilot.resize_terminal(*size)
            lines = shot(app).splitlines()
            assert len(lines) == size[1]
            assert lines[0].endswith(" s")
            assert State.ESTABLISHED.name in shot(app)
