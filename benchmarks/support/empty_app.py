"""A Textual app that does nothing: what no Textual program can start faster than."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.widgets import Static


class EmptyApp(App[None]):
    """One word."""

    def compose(self) -> ComposeResult:
        """As Textual asks."""
        yield Static("ready")


if __name__ == "__main__":
    EmptyApp().run()
