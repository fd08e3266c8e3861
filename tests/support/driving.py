"""Run an app in a test, press its keys, and wait until it has done all that follows.

    async with driven(app, SMALL) as pilot:
        await pilot.press("j", "enter")
        app.show(view)
        await pilot.pause()
        await until(pilot, lambda: app.view is view)  # for results of threads and timers

Textual's own pilot waits until the process uses no processor time: 40 ms or more for each key, and up to two seconds
while a thread is busy. This one waits for a condition: every task of the event loop waits for something from outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable, Iterable
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock
from weakref import WeakSet

import pytest
import textual.screen
from textual.app import App
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet
from textual.events import Key
from textual.keys import _character_to_key, key_to_character
from textual.pilot import Pilot
from textual.screen import Screen

DEADLINE_S = 30
"""A condition that does not hold by then fails the test."""

_RETRY_S = 0.005


class DrivenPilot(Pilot[Any]):
    """A pilot whose `press`, `click`, `pause` and so on return as soon as the app has nothing left to do."""

    draws = False
    """Draw after each key, for tests of what is painted; else at the end, and where a test reads the screen."""

    async def press(self, *keys: str) -> None:
        """Press one key after the other, each when all that was caused before is done."""
        await self.pause()
        for key in keys:
            name = _character_to_key(key) if len(key) == 1 and not key.isalnum() else key
            self.app.post_message(Key(name, key if len(key) == 1 else key_to_character(key)))
            await self.pause()

    async def resize_terminal(self, width: int, height: int) -> None:
        """Change the size of the screen, and wait until it is laid out."""
        await super().resize_terminal(width, height)
        self.app._check_resize()  # Textual collects changes for 8 ms, by a timer that never fires if it starts late
        await self.pause()

    async def pause(self, delay: float | None = None) -> None:
        """Wait until all messages are handled and the screen is laid out."""
        assert delay is None, "wait for a condition, not for a time"
        async with asyncio.timeout(DEADLINE_S):
            await _settled()
            while self._does_work(Screen._on_timer_update) or (self.draws and self._does_work(draw)):
                await _settled()

    def _does_work(self, update: Callable[[Screen[Any]], None]) -> bool:
        """Update the screen that is on top; return whether there is something to do now."""
        if self.app._exit or self.app._exception is not None:
            return False
        update(self.app.screen)
        return _work_is_left()

    async def finish(self) -> None:
        """Draw a screen that the test has not read, so that one which cannot be drawn fails it."""
        await self.pause()
        while self.app not in read and self._does_work(draw):
            await _settled()


read = WeakSet[App[Any]]()
"""The apps whose screen a test has read, which draws it."""


async def _settled() -> None:
    """Wait until every other task waits for a timer, a file or a thread."""
    await asyncio.sleep(0)
    while _work_is_left():
        await asyncio.sleep(0)


def _work_is_left() -> bool:
    return bool(asyncio.get_running_loop()._ready)  # type: ignore[attr-defined]


draw = Screen._compositor_refresh
_parse = Stylesheet.parse
_parse_source = Stylesheet._parse_rules
_rules_map: Callable[[Stylesheet], dict[str, list[RuleSet]]] = Stylesheet.rules_map.fget  # type: ignore[attr-defined]
_parsed: dict[Hashable, tuple[list[RuleSet], dict[str, list[RuleSet]]]] = {}
_parsed_sources: dict[Hashable, list[RuleSet]] = {}


def _draw_later(screen: Screen[Any]) -> None:
    """Leave it to the pilot to draw this screen, if it is on top."""
    if screen.is_current:
        screen._dirty_widgets.clear()  # the compositor knows their regions
    else:
        draw(screen)


def _parse_once(sheet: Stylesheet) -> None:
    """Parse the same styles once, and not for each app."""
    key = (*sheet.source.items(), *sheet._variables.items())
    if key not in _parsed:
        _parse(sheet)
        _parsed[key] = sheet._rules, _rules_map(sheet)
    (sheet._rules, sheet._rules_map), sheet._require_parse = _parsed[key], False


def _parse_source_once(sheet: Stylesheet, css: str, **source: Any) -> list[RuleSet]:
    """Parse one source of styles once, whatever the others are."""
    key = (css, *source.items(), *sheet._variables.items())
    if key not in _parsed_sources:
        _parsed_sources[key] = _parse_source(sheet, css, **source)
    return _parsed_sources[key]


def _parsed_rules_map(sheet: Stylesheet) -> dict[str, list[RuleSet]]:
    """Return the map that was made when the same styles were parsed."""
    assert sheet.rules is not None  # parses them, if they have changed
    return _rules_map(sheet)


@asynccontextmanager
async def driven(app: App[Any], size: tuple[int, int]) -> AsyncIterator[DrivenPilot]:
    """Run the app on a screen of this size, and yield a pilot when it has nothing left to do."""
    with (
        # Textual draws now and then in the middle of what a key causes; here the pilot draws, where a test needs it.
        mock.patch.object(textual.screen, "UPDATE_PERIOD", 24 * 3600),
        mock.patch.object(Screen, "_compositor_refresh", _draw_later),
        mock.patch.object(Stylesheet, "parse", _parse_once),
        mock.patch.object(Stylesheet, "_parse_rules", _parse_source_once),
        mock.patch.object(Stylesheet, "rules_map", property(_parsed_rules_map)),
        # An error in the app is raised at the end; before that Textual renders all local variables, for some seconds.
        mock.patch.object(App, "_fatal_error", App._close_messages_no_wait),
    ):
        async with app.run_test(size=size):
            pilot = DrivenPilot(app)
            await pilot.pause()
            yield pilot
            await pilot.finish()


async def at_sizes(pilot: Pilot[Any], sizes: Iterable[tuple[int, int]]) -> AsyncIterator[tuple[int, int]]:
    """Give the screen each of these sizes, and yield it when the screen is laid out."""
    for size in sizes:
        await pilot.resize_terminal(*size)
        yield size


async def at_widths(pilot: Pilot[Any], widths: Iterable[int], height: int) -> AsyncIterator[int]:
    """Give the screen each of these widths, and yield it when the screen is laid out."""
    async for width, _ in at_sizes(pilot, ((width, height) for width in widths)):
        yield width


async def until(pilot: Pilot[Any], holds: Callable[[], bool]) -> None:
    """Wait until this holds and all that follows is done; fail the test if that takes too long."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                await asyncio.sleep(_RETRY_S)
                await pilot.pause()
            await pilot.pause()
    except TimeoutError:
        pytest.fail(f"does not hold after {DEADLINE_S} s: {holds.__qualname__}")
