"""Run an app in a test, press its keys, and wait until it has done and drawn all that follows.

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
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.app import App
from textual.events import Key
from textual.keys import _character_to_key, key_to_character
from textual.pilot import Pilot

DEADLINE_S = 30
"""A condition that does not hold by then fails the test."""

_RETRY_S = 0.005


class DrivenPilot(Pilot[Any]):
    """A pilot whose `press`, `click`, `pause` and so on return as soon as the app has nothing left to do."""

    async def press(self, *keys: str) -> None:
        """Press one key after the other, each when all that the one before causes is done and drawn."""
        for key in keys:
            name = _character_to_key(key) if len(key) == 1 and not key.isalnum() else key
            self.app.post_message(Key(name, key if len(key) == 1 else key_to_character(key)))
            await self.pause()

    async def resize_terminal(self, width: int, height: int) -> None:
        """Change the size of the screen, and wait until it is drawn."""
        await super().resize_terminal(width, height)
        await until(self, lambda: self.app._resize_timer is None)  # Textual collects changes of the size for 8 ms

    async def pause(self, delay: float | None = None) -> None:
        """Wait until all messages are handled and the screen is drawn."""
        assert delay is None, "wait for a condition, not for a time"
        async with asyncio.timeout(DEADLINE_S):
            await _settled()
            while self._draw():
                await _settled()

    def _draw(self) -> bool:
        """Draw now what Textual would draw with its next tick; return whether that causes further work."""
        if self.app._exit or self.app._exception is not None:
            return False
        self.app.screen._on_timer_update()
        return _work_is_left()


async def _settled() -> None:
    """Wait until every other task waits for a timer, a file or a thread."""
    await asyncio.sleep(0)
    while _work_is_left():
        await asyncio.sleep(0)


def _work_is_left() -> bool:
    return bool(asyncio.get_running_loop()._ready)  # type: ignore[attr-defined]


@asynccontextmanager
async def driven(app: App[Any], size: tuple[int, int]) -> AsyncIterator[DrivenPilot]:
    """Run the app on a screen of this size, and yield a pilot when it is drawn."""
    async with app.run_test(size=size):
        pilot = DrivenPilot(app)
        await pilot.pause()
        yield pilot


async def until(pilot: Pilot[Any], holds: Callable[[], bool]) -> None:
    """Wait until this holds and is drawn; fail the test if that takes too long."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                await asyncio.sleep(_RETRY_S)
                await pilot.pause()
            await pilot.pause()
    except TimeoutError:
        pytest.fail(f"does not hold after {DEADLINE_S} s: {holds.__qualname__}")
