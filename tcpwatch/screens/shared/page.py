"""What the app and its pages say to each other."""

from __future__ import annotations

from textual.message import Message
from textual.widget import Widget

from tcpwatch.model.view import View

NO_DATA = "no data yet"


class Page(Widget):
    """One tab's content. The app hands it each new View while it is on screen, and the last one when it comes there."""

    DEFAULT_CSS = "Page { height: 1fr; }"

    def show(self, view: View) -> None:
        """Draw this View; called in the UI's loop, must be quick."""
        raise NotImplementedError

    def show_exact(self, exact: bool) -> None:
        """`n`: names and rounded numbers, or everything as exact numbers."""


class FlowSelected(Message):
    """A person opened a flow."""

    def __init__(self, cookie: int) -> None:
        super().__init__()
        self.cookie = cookie


class SocketsRequested(Message):
    """A person asked for the sockets that pass a filter: the app goes to Connections with that filter set."""

    def __init__(self, filter_text: str) -> None:
        super().__init__()
        self.filter_text = filter_text
