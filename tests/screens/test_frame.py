"""The frame around every page: header, tabs and footer, in one snapshot, so that a new tab changes no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcpwatch.model.view import View
from tcpwatch.screens.main import TABS
from tests.support.busy import busy_view, sick_view
from tests.support.driving import driven
from tests.support.lifetimes import living
from tests.support.shots import LARGE, SMALL, check_snapshot, frame_shot, make_app
from tests.support.waiting import looked_into, waiting_view

Walk = tuple[Callable[[], View], Sequence[tuple[str, Sequence[str]]]]

WALKS: tuple[Walk, ...] = (
    (
        busy_view,
        (
            *((tab.title, str(at + 1)) for at, tab in enumerate(TABS)),
            ("Groups", ("2", "a")),
            ("Flow", ("escape", "G", "enter")),
            ("Help", ("question_mark",)),
        ),
    ),
    (sick_view, (("Overview with findings", ()), ("Findings", ("g", "w")))),
    (
        lambda: looked_into(waiting_view(), 443),
        (("Listeners with a group", "3"), ("Inside a listener", ("j", "enter"))),
    ),
    (living, (("Timelines with flows", "6"),)),
)
"""Each with the keys from one place to the next."""


async def test_frame_snapshot() -> None:
    texts = []
    for size in (SMALL, LARGE):
        for view, places in WALKS:
            app = make_app()
            async with driven(app, size) as pilot:
                app.show(view())
                for name, keys in places:
                    await pilot.press(*keys)
                    texts.append(f"{name}, {size[0]}x{size[1]}\n{frame_shot(app)}")
    check_snapshot("frame", "\n".join(texts))
