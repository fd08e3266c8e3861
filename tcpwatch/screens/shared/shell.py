"""What screens and widgets may ask the app for; the app is above them and is not imported here."""

from __future__ import annotations

from typing import Protocol, cast

from textual.dom import DOMNode

from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.view import View


class AppState(Protocol):
    """The app as those below it see it. All but `age_s` can be watched."""

    view: View | None
    """What is on the screen."""
    paused: bool
    exact: bool
    """Numbers as they are, instead of names and rounded ones."""
    interval_s: float
    """What a person asked for."""
    poll_error: str
    """Why the last step could not be taken; empty when it could."""

    @property
    def age_s(self) -> float:
        """Age of what is on the screen, in seconds."""

    def watch_queue(self, key: ListenerKey | None) -> None:
        """Ask for what is inside the queues of this listening address and port from now on; None: of none."""

    def watch_flows(self, cookies: frozenset[int]) -> None:
        """Ask for the detail of these flows from now on."""


def app_state(node: DOMNode) -> AppState:
    """The app of this widget or screen."""
    return cast(AppState, node.app)
