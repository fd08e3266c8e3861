"""The app in a test, on one of its tabs: what is shown there, and the keys."""

from __future__ import annotations

from typing import Generic, TypeVar

from tcpwatch.app import TcpwatchApp
from tcpwatch.model.view import View
from tcpwatch.screens.main import MainScreen
from tcpwatch.screens.shared.page import Page
from tests.support.driving import DrivenPilot
from tests.support.shots import shot

P = TypeVar("P", bound=Page)


class ShownTab(Generic[P]):
    """The app on a tab with this page. A subclass says which, and what else can be read there."""

    page_type: type[P]

    def __init__(self, app: TcpwatchApp, pilot: DrivenPilot) -> None:
        self.app, self.pilot = app, pilot

    async def show(self, view: View) -> None:
        """Show this View, and wait until it is drawn."""
        self.app.show(view)
        await self.pilot.pause()

    async def press(self, *keys: str) -> None:
        """Press one key after the other."""
        await self.pilot.press(*keys)

    @property
    def page(self) -> P:
        """The page, which has to be on top."""
        screen = self.app.screen
        assert isinstance(screen, MainScreen)
        assert isinstance(screen.page, self.page_type)
        return screen.page

    def lines(self) -> list[str]:
        """The lines on the screen."""
        return shot(self.app).splitlines()
