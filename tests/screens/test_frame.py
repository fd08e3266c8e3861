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

Place = tuple[str, Callable[[], View], Sequence[str]]

TAB_PLACES: tuple[Place, ...] = tuple((tab.title, busy_view, str(at + 1)) for at, tab in enumerate(TABS))
OTHER_PLACES: tuple[Place, ...] = (
    ("Overview with findings", sick_view, "1"),
    ("Findings", sick_view, ("1", "g", "w")),
    ("Groups", busy_view, ("2", "a")),
    ("Listeners with a group", waiting_view, "3"),
    ("Inside a listener", lambda: looked_into(waiting_view(), 443), ("3", "j", "enter")),
    ("Timelines with flows", living, "6"),
    ("Flow", busy_view, ("2", "G", "enter")),
    ("Help", busy_view, ("1", "question_mark")),
)


async def test_frame_snapshot() -> None:
    texts = []
    for size in (SMALL, LARGE):
        for name, view, keys in (*TAB_PLACES, *OTHER_PLACES):
            app = make_app()
            async with driven(app, size) as pilot:
                app.show(view())
                await pilot.press(*keys)
                texts.append(f"{name}, {size[0]}x{size[1]}\n{frame_shot(app)}")
    check_snapshot("frame", "\n".join(texts))
