"""The text on the screen, and snapshots of it that a person can review.

    TCPWATCH_SNAPSHOTS=write python -m pytest tests/screens

writes them anew. A snapshot is one of a page; the frame around the pages is in one file, frame.txt.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.strip import Strip
from textual.widget import Widget

from tcpwatch.app import TcpwatchApp
from tests.support.driving import DrivenPilot, draw, read

_FOLDER = Path(__file__).parents[1] / "screens" / "snapshots"
SMALL, LARGE = (80, 24), (160, 50)


def clock() -> float:
    """0.4 s after the first sample of `tests.support.views`."""
    return 1000.4


def make_app(**given: Any) -> TcpwatchApp:
    """The app without a monitor, with a clock that stands still."""
    return TcpwatchApp(**{"theme": "textual-dark", "clock": clock, **given})


def shot(app: App[Any]) -> str:
    """The lines on the screen, without the blanks at their ends."""
    read.add(app)
    strips = app.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips) + "\n"


def page_shot(app: App[Any]) -> str:
    """Return the lines of the page: the screen without header, tabs and footer."""
    return _lines_of(app, in_frame=False)


def frame_shot(app: App[Any]) -> str:
    """Return the lines around the page: header, tabs and footer."""
    return _lines_of(app, in_frame=True)


def _lines_of(app: App[Any], *, in_frame: bool) -> str:
    frame = {y for widget in app.screen.query("HeaderLine, TabLine, FooterLine") for y in widget.region.line_range}
    return "".join(f"{line}\n" for y, line in enumerate(shot(app).splitlines()) if (y in frame) is in_frame)


def check_snapshot(name: str, text: str) -> None:
    """Compare with the snapshot of that name."""
    path = _FOLDER / f"{name}.txt"
    if os.environ.get("TCPWATCH_SNAPSHOTS") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def recorded_calls(owner: type, method: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Return a list that grows by the arguments of each call of this method."""
    calls: list[tuple[Any, ...]] = []
    original = getattr(owner, method)

    def recorded(self: object, *arguments: Any) -> Any:
        calls.append(arguments)
        return original(self, *arguments)

    monkeypatch.setattr(owner, method, recorded)
    return calls


def painted_lines(widget: Widget, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lines of this widget that are painted from now on, one after the other."""
    monkeypatch.setattr(DrivenPilot, "draws", True)
    draw(widget.screen)
    asked: list[int] = []
    render = widget.render_line

    def render_line(y: int) -> Strip:
        asked.append(y)
        return render(y)

    monkeypatch.setattr(widget, "render_line", render_line)
    return asked
