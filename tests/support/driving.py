"""Run an app in a test, press its keys, and wait until it has done and drawn all that follows.

    async with driven(app, SMALL) as pilot:
        await pilot.press("j", "enter")
        app.show(view)
        await pilot.pause()
        await until(pilot, lambda: app.view is view)  # for results of threads and timers

Textual's own pilot waits until the process uses no processor time: 40 ms or more for each key, and up to two seconds
while a thread is busy. This one waits for a condition: no widget has a message left to handle.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual._context import message_hook as message_hook_of_context
from textual.app import App
from textual.events import Key
from textual.keys import _character_to_key, key_to_character
from textual.message import Message
from textual.message_pump import MessagePump
from textual.pilot import Pilot

DEADLINE_S = 30
"""A condition that does not hold by then fails the test."""

_RETRY_S = 0.005


class DrivenPilot(Pilot[Any]):
    """A pilot whose `press`, `click`, `pause` and so on wait for messages instead of for idle processors."""

    def __init__(self, app: App[Any]) -> None:
        super().__init__(app)
        self.handled = Counter[type[Message]]()
        """How many messages of each type have reached a widget."""

    def heard(self, message: Message) -> None:
        """Count a message that a widget is about to handle."""
        if isinstance(message, _Mark):
            message.reach()
        else:
            self.handled[type(message)] += 1

    async def press(self, *keys: str) -> None:
        """Press one key after the other, each when the one before is handled and the screen is drawn."""
        for key in keys:
            name = _character_to_key(key) if len(key) == 1 and not key.isalnum() else key
            self.app.post_message(Key(name, key if len(key) == 1 else key_to_character(key)))
            await self.pause()

    async def resize_terminal(self, width: int, height: int) -> None:
        """Change the size of the screen, and wait until it is drawn."""
        await super().resize_terminal(width, height)
        await until(self, lambda: self.app._resize_timer is None)  # Textual collects changes of the size for 8 ms

    async def pause(self, delay: float | None = None) -> None:
        """Wait until no widget has a message left and the screen is drawn."""
        assert delay is None, "wait for a condition, not for a time"
        drawn = -1
        async with asyncio.timeout(DEADLINE_S):
            while drawn != self.handled.total() and not self._ended():
                await self._quiet()
                drawn = self.handled.total()
                if not self._ended():
                    self.app.screen._on_timer_update()
                    await self._reach_all()

    async def _quiet(self) -> None:
        """Wait until no widget has a message left."""
        before = -1
        while before != self.handled.total() and not self._ended():
            before = self.handled.total()
            await self._reach_all()
            await self.app.animator.wait_until_complete()

    def _ended(self) -> bool:
        """Return whether the app is closing, so that messages may stay where they are."""
        return self.app._exit or self.app._exception is not None

    async def _reach_all(self) -> None:
        """Wait until the app and each widget have handled the messages that they have now."""
        await asyncio.sleep(0)  # for messages that a thread has sent
        reached = asyncio.Event()
        waiting: set[MessagePump] = set()

        def reach(pump: MessagePump) -> None:
            waiting.discard(pump)
            if not waiting:
                reached.set()

        pumps: list[MessagePump] = [self.app]
        for screen in self.app.screen_stack:
            pumps += screen.walk_children(with_self=True)
        waiting.update(pump for pump in pumps if pump.post_message(_Mark(pump, reach)))
        ends = [asyncio.ensure_future(it) for it in (reached.wait(), self.app._exception_event.wait())]
        assert self.app._task is not None
        await asyncio.wait([*ends, self.app._task], return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()


class _Mark(Message, bubble=False):
    """Sent to a widget to learn when it has handled everything before."""

    def __init__(self, pump: MessagePump, reach: Callable[[MessagePump], None]) -> None:
        super().__init__()
        self._pump, self._reach = pump, reach

    def reach(self) -> None:
        self._reach(self._pump)


@asynccontextmanager
async def driven(app: App[Any], size: tuple[int, int]) -> AsyncIterator[DrivenPilot]:
    """Run the app on a screen of this size, and yield a pilot when it is drawn."""
    pilot = DrivenPilot(app)
    hook = message_hook_of_context.set(pilot.heard)  # for widgets that the test itself mounts
    try:
        async with app.run_test(size=size, message_hook=pilot.heard):
            await pilot.pause()
            yield pilot
    finally:
        message_hook_of_context.reset(hook)


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
