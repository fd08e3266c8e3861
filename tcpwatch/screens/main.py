"""The main screen: header, tabs, the page of the active tab, footer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import ContentSwitcher, Input

from tcpwatch.model.view import View
from tcpwatch.screens.overview.page import OverviewPage
from tcpwatch.screens.shared.header_line import HeaderLine
from tcpwatch.screens.shared.page import Page, SocketsRequested
from tcpwatch.screens.shared.shell import app_state
from tcpwatch.widgets.footer_line import FooterLine
from tcpwatch.widgets.tab_line import TabLine


@dataclass(frozen=True, slots=True)
class Tab:
    """One tab; its page is imported and made when somebody goes there first."""

    id: str
    title: str
    make: Callable[[], Page]


def _connections() -> Page:
    from tcpwatch.screens.connections.page import ConnectionsPage

    return ConnectionsPage()


def _listeners() -> Page:
    from tcpwatch.screens.listeners.page import ListenersPage

    return ListenersPage()


def _half_open() -> Page:
    from tcpwatch.screens.half_open.page import HalfOpenPage

    return HalfOpenPage()


def _teardown() -> Page:
    from tcpwatch.screens.teardown.page import TeardownPage

    return TeardownPage()


def _timelines() -> Page:
    from tcpwatch.screens.timelines.page import TimelinesPage

    return TimelinesPage()


TABS = (
    Tab("overview", "Overview", OverviewPage),
    Tab("connections", "Connections", _connections),
    Tab("listeners", "Listeners", _listeners),
    Tab("half_open", "Half-open", _half_open),
    Tab("teardown", "Teardown", _teardown),
    Tab("timelines", "Timelines", _timelines),
)


class MainScreen(Screen[None], inherit_bindings=False):
    """Shows one page at a time and hands it each View."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(at + 1), f"go({at})", tab.title, show=False) for at, tab in enumerate(TABS)),
        Binding("tab", "step(1)", "next tab", show=False),
        Binding("shift+tab", "step(-1)", "tab before", show=False),
        Binding("escape", "back", "back to the tab before", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._at = 0
        self._before: list[int] = []

    def compose(self) -> ComposeResult:
        """As Textual asks."""
        yield HeaderLine()
        yield TabLine([tab.title for tab in TABS])
        first = TABS[0].make()
        first.id = TABS[0].id
        with ContentSwitcher(initial=first.id):
            yield first
        yield FooterLine()

    def on_mount(self) -> None:
        """Follow the app."""
        self._focus_page()
        self.watch(self.app, "view", self._show)
        self.watch(self.app, "exact", self._show_names)

    @property
    def page(self) -> Page:
        """The page on screen."""
        return cast(Page, self.query_one(ContentSwitcher).visible_content)

    def _show(self, view: View | None) -> None:
        # While another screen lies on top nothing is drawn here.
        if view is not None and self.is_current:
            self.page.show(view)

    def _show_names(self, exact: bool) -> None:
        self.page.show_exact(exact)

    def on_screen_resume(self) -> None:
        """Catch up with what came while another screen was on top."""
        self._show(app_state(self).view)

    async def go_to(self, tab_id: str) -> Page:
        """Show this tab, and return its page."""
        await self.action_go([tab.id for tab in TABS].index(tab_id))
        return self.page

    async def action_go(self, at: int) -> None:
        """Show the tab at this place, counted from 0."""
        if at == self._at:
            return
        self._before = [*self._before[-9:], self._at]
        await self._switch(at)

    async def action_step(self, by: int) -> None:
        """Show the next tab, or the one before."""
        await self.action_go((self._at + by) % len(TABS))

    async def action_back(self) -> None:
        """Show the tab that was shown before."""
        if self._before:
            await self._switch(self._before.pop())

    async def _switch(self, at: int) -> None:
        tab, switcher = TABS[at], self.query_one(ContentSwitcher)
        self._at = at
        if not switcher.query_children(f"#{tab.id}"):
            page = tab.make()
            page.id = tab.id
            await switcher.add_content(page)
        switcher.current = tab.id
        self.query_one(TabLine).activate(at)
        self._show_names(app_state(self).exact)
        self._show(app_state(self).view)
        self._focus_page()

    def _focus_page(self) -> None:
        """The keys go to the page's main widget, which is the first that takes them and is no line to type in."""
        for widget in (self.page, *self.page.query("*")):
            if widget.can_focus and not isinstance(widget, Input):
                self.set_focus(widget)
                return

    async def on_tab_line_picked(self, message: TabLine.Picked) -> None:
        """A click on a tab."""
        await self.action_go(message.at)

    async def on_sockets_requested(self, message: SocketsRequested) -> None:
        """Show these sockets on the page that lists them."""
        from tcpwatch.screens.connections.page import ConnectionsPage

        page = await self.go_to("connections")
        cast(ConnectionsPage, page).set_filter(message.filter_text)
