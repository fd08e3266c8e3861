"""An unexpected exception in a screen ends that screen alone, and is visible; in other tests it fails the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from textual.command import CommandPalette
from textual.events import Key

from tcpwatch.app import FAILED, TcpwatchApp, ViewReady
from tcpwatch.screens.connections.page import ConnectionsPage
from tcpwatch.screens.failures import MOST, FailedPage, FailedScreen
from tcpwatch.screens.flow.page import FlowScreen
from tcpwatch.screens.help.page import HelpScreen
from tcpwatch.screens.main import TABS, MainScreen
from tcpwatch.screens.overview.page import OverviewPage
from tcpwatch.widgets.table.drawn_table import DrawnTable
from tests.support.busy import busy_view
from tests.support.driving import driven
from tests.support.shots import LARGE, make_app, shot


@pytest.fixture
def contained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contain failures as on a real terminal."""
    monkeypatch.setattr(TcpwatchApp, "contains_failures", True)


def bug(self: object, *_: object, **__: object) -> Any:
    raise KeyError("a bug \x1b[2J")


HEAD = "Internal error: KeyError: 'a bug \\x1b[2J'. Other tabs still work. Select this tab again to retry."


def _main(app: TcpwatchApp) -> MainScreen:
    screen = app.screen_stack[0]
    assert isinstance(screen, MainScreen)
    return screen


@pytest.mark.usefixtures("contained")
async def test_each_page_that_cannot_show_a_view_is_replaced_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.post_message(ViewReady(busy_view()))
        await pilot.pause()
        for number, tab in enumerate(TABS, 1):
            await pilot.press(str(number))
            page = _main(app).page
            with monkeypatch.context() as patch:
                patch.setattr(type(page), "show", bug)
                app.post_message(ViewReady(busy_view()))
                await pilot.pause()
                assert isinstance(_main(app).page, FailedPage), tab
                assert HEAD in shot(app)
                assert "test_failures.py" in shot(app), "the traceback"
            assert app.failures[-1].args == ("a bug \x1b[2J",)
        for number in range(1, len(TABS) + 1):  # they work when they are built anew
            await pilot.press(str(number))
            assert not isinstance(_main(app).page, FailedPage)
        app.post_message(ViewReady(busy_view()))
        await pilot.pause()
        assert len(app.failures) == len(TABS)
        assert app.failure is None


@pytest.mark.usefixtures("contained")
@pytest.mark.parametrize("method", ["draw", "action_open", "check_action", "_items"])
async def test_a_page_fails_while_it_draws_or_handles_a_key(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.post_message(ViewReady(busy_view()))
        await pilot.pause()
        page = _main(app).page
        assert isinstance(page, OverviewPage)
        with monkeypatch.context() as patch:
            patch.setattr(type(page.content), method, bug)
            app.post_message(ViewReady(busy_view()))
            await pilot.pause()
            await pilot.press("j", "enter")
            await pilot.press("home")
            assert "KeyError" in shot(app)
        await pilot.press("2", "1")
        app.post_message(ViewReady(busy_view()))
        await pilot.pause()
        assert isinstance(_main(app).page, OverviewPage)
        assert "KeyError" not in shot(app)
        assert app.failure is None


@pytest.mark.usefixtures("contained")
@pytest.mark.parametrize("method", ["render_line", "_row", "_finish", "_make_ready"])
async def test_a_table_fails_while_it_is_painted(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.post_message(ViewReady(busy_view()))
        await pilot.press("2")
        table = next(kind for kind in type(_main(app).query_one(DrawnTable)).__mro__ if method in vars(kind))
        with monkeypatch.context() as patch:
            patch.setattr(table, method, bug)
            for _ in range(3):
                app.post_message(ViewReady(busy_view()))
                await pilot.pause()
                await pilot.press("j")
                app.call_later(app.screen._compositor.render_strips)
                await pilot.pause()
            assert isinstance(_main(app).page, FailedPage)
            await pilot.press("home")
            assert "KeyError" in shot(app)
        await pilot.press("1", "2")
        assert isinstance(_main(app).page, ConnectionsPage)
        assert app.failure is None


@pytest.mark.usefixtures("contained")
@pytest.mark.parametrize("method", ["compose", "on_mount", "__init__"])
async def test_a_page_that_cannot_be_built(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.post_message(ViewReady(busy_view()))
        with monkeypatch.context() as patch:
            patch.setattr(ConnectionsPage, method, bug, raising=False)
            await pilot.press("2")
            assert "KeyError" in shot(app)
        await pilot.press("1")
        assert isinstance(_main(app).page, OverviewPage)
        await pilot.press("2")
        assert isinstance(_main(app).page, ConnectionsPage)
        assert app.failure is None


def _open_flow(app: TcpwatchApp) -> None:
    view = app.view
    assert view is not None
    app.push_screen(FlowScreen(int(view.rows.cookie[0])))


@pytest.mark.usefixtures("contained")
@pytest.mark.parametrize(
    ("push", "screen", "method"),
    [(_open_flow, FlowScreen, "_show"), (_open_flow, FlowScreen, "_title_lines"), (_open_flow, FlowScreen, "compose"),
     (TcpwatchApp.action_help, HelpScreen, "compose"), (TcpwatchApp.action_command_palette, CommandPalette, "compose")],
)  # fmt: skip
async def test_a_screen_that_fails_is_replaced(
    monkeypatch: pytest.MonkeyPatch, push: Callable[[TcpwatchApp], None], screen: type, method: str
) -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.post_message(ViewReady(busy_view()))
        await pilot.pause()
        with monkeypatch.context() as patch:
            patch.setattr(screen, method, bug)
            push(app)
            await pilot.pause()
            assert isinstance(app.screen, FailedScreen)
            assert "KeyError" in shot(app) and "Esc goes back." in shot(app)
            app.post_message(ViewReady(busy_view()))
            await pilot.press("escape")
        assert app.screen_stack == [_main(app)]
        app.post_message(ViewReady(busy_view()))
        await pilot.press("2")
        assert isinstance(_main(app).page, ConnectionsPage)
        assert app.failure is None


@pytest.mark.usefixtures("contained")
async def test_what_fails_again_and_again_ends_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()
    monkeypatch.setattr(OverviewPage, "show", bug)
    async with driven(app, LARGE) as pilot:
        for _ in range(MOST + 1):
            app.post_message(ViewReady(busy_view()))
            await pilot.pause()
            if app._exit:
                break
            await pilot.press("1")
    assert isinstance(app.failure, KeyError)
    assert app.return_code == FAILED


@pytest.mark.usefixtures("contained")
async def test_a_failure_outside_of_pages_ends_the_app_with_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        monkeypatch.setattr(MainScreen, "action_step", bug)
        await pilot.press("tab")
    assert isinstance(app.failure, KeyError)
    assert app.return_code == FAILED


async def test_a_failure_fails_a_test() -> None:
    app = make_app()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyError, match="a bug"):
        patch.setattr(OverviewPage, "show", bug)
        async with driven(app, LARGE) as pilot:
            app.show(busy_view())
            await pilot.pause()


async def test_keys_in_the_command_palette_before_its_list_is_drawn() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        for key in ("pageup", "pagedown", "home", "end", "up", "down", "ctrl+home", "ctrl+end"):
            for name in ("ctrl+p", key):  # in one piece, as from a paste
                app.post_message(Key(name, None))
            await pilot.pause()
            assert app._exception is None, key
            assert isinstance(app.screen, CommandPalette)
            while len(app.screen_stack) > 1:
                await pilot.press("escape")
