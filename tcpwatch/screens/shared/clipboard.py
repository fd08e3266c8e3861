"""The clipboard of the terminal. Nothing confirms a copy: a terminal may ignore OSC 52, as tmux does by default."""

from __future__ import annotations

from textual.widget import Widget


def to_clipboard(widget: Widget, what: str, text: str) -> None:
    """Send the text, and say so; nothing happens without text. `what` describes it: `row`."""
    if text:
        widget.app.copy_to_clipboard(text)
        widget.notify(f"{what} sent to the terminal's clipboard", markup=False)
