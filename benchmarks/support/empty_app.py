"""A Textual app that does nothing: no Textual program can start faster."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.widgets import Static
from typing_extensions import override


class EmptyApp(App[None]):
    """Shows one word."""

    @override
    def compose(self) -> ComposeResult:
        yield Static("ready")


if __name__ == "__main__":
    EmptyApp().run()
