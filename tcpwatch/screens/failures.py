"""An unexpected exception in a page or a screen ends that page or screen, and not the app."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from textual._context import active_message_pump
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.message import Message
from textual.message_pump import MessagePump
from textual.screen import Screen
from textual.worker import WorkerFailed
from typing_extensions import override

from tcpwatch.screens.shared.page import Page
from tcpwatch.units.printable import printable
from tcpwatch.widgets.footer_line import FooterLine
from tcpwatch.widgets.lines import Line
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.reader import Reader
from tcpwatch.widgets.sections import wrapped

_FRAMES = 6
"""Calls of a traceback that are shown: those before them are Textual's."""
MOST = 20
"""The failure after this many ends the app: something fails again and again."""


def error_line(error: BaseException) -> str:
    """Return the type and the text of an exception as one printable line."""
    return printable(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__, 300)


class FailedPage(Page):
    """Takes the place of a page that failed."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    @override
    def compose(self) -> ComposeResult:
        yield _Failure(self._error, "Other tabs still work. Select this tab again to retry.")

    @override
    def show(self, view: object) -> None:
        """Stay as it is."""


class FailedScreen(Screen[None], inherit_bindings=False):
    """Takes the place of a screen that failed."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "back")]

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    @override
    def compose(self) -> ComposeResult:
        yield _Failure(self._error, "Esc goes back.")
        yield FooterLine()


class _Failure(Reader):
    """What failed, and the traceback to report."""

    def __init__(self, error: Exception, advice: str) -> None:
        super().__init__()
        self._head = f"Internal error: {error_line(error)}. {advice}"
        self._trace = "".join(traceback.format_exception(error, limit=-_FRAMES)).splitlines()

    @override
    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        head = [((f"  {line}", colours.alarm),) for line in wrapped(self._head, width - 2)]
        trace = [((f"  {printable(line)}", colours.dim),) for line in self._trace]
        return [*head, (), (("  Please report this with the following lines:", colours.plain),), (), *trace]


def failed_part(error: BaseException) -> Page | Screen[Any] | None:
    """Return the page or the screen in whose code an exception was raised."""
    for node in _nodes(error):
        part = next((at for at in node.ancestors_with_self if isinstance(at, (Page, Screen))), None)
        if part is not None:
            return part
    return None


def _nodes(error: BaseException) -> Iterator[DOMNode]:
    """Yield widgets and screens whose methods were running, the innermost first, and the receiver of the message."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    running = [frame.f_locals.get("self") for frame in reversed(frames)]
    for node in (*running, active_message_pump.get(None)):
        if isinstance(node, DOMNode):
            yield node


class Surviving(MessagePump):
    """A message loop that goes on after an exception: code of a page runs in it, such as that of a watcher."""

    @override
    async def _dispatch_message(self, message: Message) -> None:
        try:
            await super()._dispatch_message(message)
        except Exception as error:
            self.app._handle_exception(error)


class ContainingApp(Surviving, App[None]):
    """Replaces a page or a screen that fails."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: Exception | None = None
        """The unexpected exception that ended the app."""
        self.failures: list[Exception] = []
        """Those that ended a page, a screen or a poll."""
        self._replaced: list[object] = []

    @property
    def contains_failures(self) -> bool:
        """Whether a failure is contained; else it fails the test that drives the app."""
        return not self.is_headless

    def record(self, error: Exception) -> None:
        """Record an exception that the caller contains, or raise it."""
        if not self.contains_failures:
            raise error
        self.failures.append(error)

    def replace_page(self, page: Page, error: Exception) -> None:
        """Show FailedPage in the place of a page."""
        raise NotImplementedError

    def end_with(self, error: Exception) -> None:
        """End the app because of an exception outside of pages."""
        raise NotImplementedError

    @override
    def _handle_exception(self, error: Exception) -> None:
        """Contain an exception; Textual calls this with each that no handler caught."""
        if not self.contains_failures:
            super()._handle_exception(error)
            return
        if isinstance(error, WorkerFailed) and isinstance(error.error, Exception):
            error = error.error
        part = failed_part(error)
        if part in self._replaced:
            return  # another message of a page that is about to go
        self.record(error)
        if len(self.failures) > MOST or isinstance(part, (FailedPage, FailedScreen)):
            self.end_with(error)
        elif isinstance(part, Page):
            self._replaced.append(part)
            self.replace_page(part, error)
        elif part in self.screen_stack[1:]:
            self._replaced.append(part)
            self.call_later(self._show_failure, part, error)
        else:
            self.end_with(error)

    async def _show_failure(self, screen: Screen[Any], error: Exception) -> None:
        while screen in self.screen_stack:
            self.pop_screen()
        await self.push_screen(FailedScreen(error))
