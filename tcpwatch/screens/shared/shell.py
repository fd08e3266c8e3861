"""The part of the app that screens and widgets use; they must not import the app."""

from __future__ import annotations

from typing import Protocol, cast

from textual.dom import DOMNode

from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.view import View


class AppState(Protocol):
    """Attributes of the app. All but `age_s` are reactive."""

    view: View | None
    """The View on the screen."""
    paused: bool
    exact: bool
    """Show exact numbers, instead of names and rounded numbers."""
    interval_s: float
    """The chosen interval."""
    poll_error: str
    """Why the last step failed; empty if it did not."""

    @property
    def age_s(self) -> float:
        """Age of the View on the screen, in seconds."""

    def watch_queue(self, key: ListenerKey | None) -> None:
        """Read the members of this listener's queues from now on; None to stop."""

    def watch_flows(self, cookies: frozenset[int]) -> None:
        """Read the detail of these flows from now on."""


def app_state(node: DOMNode) -> AppState:
    """Return the app of this widget or screen."""
    return cast(AppState, node.app)
