"""The main screen: header, tabs, the page of the active tab, footer."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import ContentSwitcher, Input
from typing_extensions import override

from tcpwatch.model.view import View
from tcpwatch.screens.failures import ContainingApp, FailedPage, Surviving
from tcpwatch.screens.shared.header_line import HeaderLine
from tcpwatch.screens.shared.page import Page, SocketsRequested
from tcpwatch.screens.shared.shell import app_state
from tcpwatch.screens.shared.table_page import TablePage
from tcpwatch.widgets.footer_line import FooterLine
from tcpwatch.widgets.tab_line import TabLine


@dataclass(frozen=True, slots=True)
class Tab:
    """One tab. Its page is imported and built when it is first shown."""

    id: str
    """Name of the page's folder."""
    title: str
    page_class: str

    def make(self) -> Page:
        """Build the page."""
        module = import_module(f"tcpwatch.screens.{self.id}.page")
        page: Page = getattr(module, self.page_class)()
        return page


TABS = (
    Tab("overview", "Overview", "OverviewPage"),
    Tab("connections", "Connections", "ConnectionsPage"),
    Tab("listeners", "Listeners", "ListenersPage"),
    Tab("half_open", "Half-open", "HalfOpenPage"),
    Tab("teardown", "Teardown", "TeardownPage"),
    Tab("timelines", "Timelines", "TimelinesPage"),
)
"""All tabs, by their number: the one list of them."""


class MainScreen(Surviving, Screen[None], inherit_bindings=False):
    """Shows one page at a time."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"go({number - 1})", "tab by number", show=False) for number in range(1, len(TABS) + 1)),
        Binding("tab", "step(1)", "next tab", show=False),
        Binding("shift+tab", "step(-1)", "previous tab", show=False),
        Binding("escape", "back", "back to the last tab", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._at = 0
        self._before: list[int] = []
        self._pages: dict[int, Page] = {}
        """Index of a tab → its page."""
        self._built = 0

    @override
    def compose(self) -> ComposeResult:
        yield HeaderLine()
        yield TabLine([tab.title for tab in TABS])
        first = self._made(0)
        self._pages[0] = first
        with ContentSwitcher(initial=first.id):
            yield first
        yield FooterLine()

    def on_mount(self) -> None:
        """Watch the app."""
        self._focus_page()
        self.watch(self.app, "view", self._show)
        self.watch(self.app, "exact", self._show_names)

    @property
    def page(self) -> Page:
        """The page on screen."""
        return self._pages[self._at]

    def _show(self, view: View | None) -> None:
        # Nothing is drawn while another screen is on top.
        if view is not None and self.is_current:
            self.page.show(view)

    def _show_names(self, exact: bool) -> None:
        self.page.show_exact(exact)

    def on_screen_resume(self) -> None:
        """Draw the latest View, which may have come while another screen was on top."""
        self._show(app_state(self).view)

    async def go_to(self, tab_id: str) -> Page:
        """Show this tab, and return its page."""
        await self.action_go([tab.id for tab in TABS].index(tab_id))
        return self.page

    async def action_go(self, at: int) -> None:
        """Show the tab at this index; ignored where there is none."""
        if at == self._at and isinstance(self.page, FailedPage):
            await self._switch(at)
        elif at != self._at and at < len(TABS):
            self._before = [*self._before[-9:], self._at]
            await self._switch(at)

    async def action_step(self, by: int) -> None:
        """Show the next or the previous tab."""
        await self.action_go((self._at + by) % len(TABS))

    async def action_back(self) -> None:
        """Return to the tab shown last."""
        if self._before:
            await self._switch(self._before.pop())

    async def _switch(self, at: int) -> None:
        self._at = at
        page = self._pages.get(at)
        if page is None or isinstance(page, FailedPage):
            await self._show_page(at, self._made(at))
        else:
            self.query_one(ContentSwitcher).current = page.id
        self.query_one(TabLine).activate(at)
        self._show_names(app_state(self).exact)
        self._show(app_state(self).view)
        self._focus_page()

    def _made(self, at: int) -> Page:
        """Build the page of a tab. One that failed may stay in the DOM, so that ids are not used again."""
        tab, self._built = TABS[at], self._built + 1
        try:
            page = tab.make()
        except Exception as error:
            cast(ContainingApp, self.app).record(error)
            page = FailedPage(error)
        page.id = f"{tab.id}-{self._built}" if at in self._pages else tab.id
        return page

    async def _show_page(self, at: int, page: Page) -> None:
        """Show a new page of a tab, which may be on screen."""
        switcher, old = self.query_one(ContentSwitcher), self._pages.get(at)
        self._pages[at] = page
        await switcher.add_content(page)
        if at == self._at:
            switcher.current = page.id
        if old is not None and old.is_attached:
            old.remove()

    async def replace_page(self, page: Page, error: Exception) -> None:
        """Show what failed in the place of a page."""
        at = next((at for at, known in self._pages.items() if known is page), None)
        if at is None:
            return
        failed, self._built = FailedPage(error), self._built + 1
        failed.id = f"{TABS[at].id}-{self._built}"
        await self._show_page(at, failed)
        if at == self._at:
            self._focus_page()

    def _focus_page(self) -> None:
        """Give the focus to the page's first focusable widget that is not an input."""
        for widget in (self.page, *self.page.query("*")):
            if widget.can_focus and not isinstance(widget, Input):
                self.set_focus(widget)
                return

    async def on_tab_line_picked(self, message: TabLine.Picked) -> None:
        """Show the tab that was clicked."""
        await self.action_go(message.at)

    async def on_sockets_requested(self, message: SocketsRequested) -> None:
        """Show these sockets on the Connections page."""
        page = await self.go_to("connections")
        if isinstance(page, TablePage):  # else it has failed
            page.set_filter(message.filter_text)
