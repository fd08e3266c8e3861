"""The base class of pages, and the messages between pages and the app."""

from __future__ import annotations

from collections.abc import Sequence

from textual.message import Message
from textual.widget import Widget

from tcpwatch.model.view import View
from tcpwatch.widgets.sections import Section

NO_DATA = "no data yet"


class Page(Widget):
    """The content of a tab. While it is on screen it gets each new View, and when it appears the last one."""

    DEFAULT_CSS = "Page { height: 1fr; }"

    def show(self, view: View) -> None:
        """Draw this View; called in the UI's loop, so it must be fast."""
        raise NotImplementedError

    def show_exact(self, exact: bool) -> None:
        """Draw exact numbers, or names and rounded numbers."""

    def help_sections(self) -> Sequence[Section]:
        """Return what the help says about this page."""
        return ()


class FlowSelected(Message):
    """A flow was opened."""

    def __init__(self, cookie: int) -> None:
        super().__init__()
        self.cookie = cookie


class SocketsRequested(Message):
    """A request to show the sockets that match a filter, on the Connections page."""

    def __init__(self, filter_text: str) -> None:
        super().__init__()
        self.filter_text = filter_text
