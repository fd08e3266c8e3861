"""The terminal UI: shows one View at a time."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.command import CommandList, CommandPalette
from textual.driver import Driver
from textual.message import Message
from textual.reactive import var
from textual.screen import Screen
from textual.theme import BUILTIN_THEMES
from typing_extensions import override

from tcpwatch import signals
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.view import View
from tcpwatch.poller import Outcome, Poller, StepCrashed, Steppable, StepUnavailable
from tcpwatch.screens.failures import MOST, ContainingApp, error_line
from tcpwatch.screens.main import TABS, MainScreen
from tcpwatch.screens.shared.export import finish_exports
from tcpwatch.screens.shared.page import FlowSelected, Page

if TYPE_CHECKING:
    from rich.console import RenderableType
    from textual.timer import Timer

    from tcpwatch.config.settings import Settings

INTERVALS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
FAILED = 2
_KEY_NAMES = {"enter": "Enter", "escape": "Esc", "plus": "+", "minus": "-", "question_mark": "?", "slash": "/"}


class ViewReady(Message):
    """The monitor has a new View."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view


class StepFailed(Message):
    """The monitor could not make a View."""

    def __init__(self, outcome: StepUnavailable | StepCrashed) -> None:
        super().__init__()
        self.outcome = outcome


class TcpwatchApp(ContainingApp):
    """Shows Views. Without a monitor nothing is polled, and Views are handed to `show`."""

    TITLE = "tcpwatch"
    CSS_PATH = "app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c,ctrl+q", "quit", "quit", show=False),
        Binding("question_mark", "help", "help"),
        Binding("space", "pause", "pause"),
        Binding("n", "toggle_exact", "numbers", tooltip="toggle names/numbers"),
        Binding("ctrl+z", "suspend_process", "suspend", show=False),
        Binding("plus,equals_sign", "interval(1)", "poll less often", show=False),
        Binding("minus", "interval(-1)", "poll more often", show=False),
    ]

    # Described by AppState.
    view: var[View | None] = var(None, init=False, always_update=True)
    paused: var[bool] = var(False, init=False)
    exact: var[bool] = var(False, init=False)
    interval_s: var[float] = var(1.0, init=False)
    poll_error: var[str] = var("", init=False)

    def __init__(
        self,
        monitor: Steppable | None = None,
        poller: Poller | None = None,
        *,
        theme: str | None = None,
        exact: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`poller` calls `monitor.step()` and may be running. `clock` is the clock of `Sample.monotonic`."""
        super().__init__()
        self.monitor = monitor
        self._poller = poller
        self._clock = clock
        self._latest: View | None = None
        self._timer: Timer | None = None
        self._timer_s = 0.0
        self._is_ready = False
        self._frame_dropped = False
        self.set_reactive(TcpwatchApp.exact, exact)
        if monitor is not None:
            self.set_reactive(TcpwatchApp.interval_s, monitor.interval_s)
        self.theme = theme or _default_theme()

    @override
    def get_default_screen(self) -> Screen[None]:
        return MainScreen()

    @override
    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        """Draw a frame; drop it if the terminal has not taken the last one: the next one is the whole screen."""
        call_when_idle = getattr(self._driver, "call_when_idle", None)
        if call_when_idle is not None and not self._batch_count:
            if not call_when_idle(self._draw_dropped):
                self._frame_dropped = True
                return
            if self._frame_dropped:
                self._frame_dropped = False
                renderable = screen._compositor.render_update(full=True, screen_stack=self._background_screens)
        super()._display(screen, renderable)

    def _draw_dropped(self) -> None:
        """Draw what was dropped; called in another thread."""
        self.call_later(lambda: self._display(self.screen, "") if self._frame_dropped else None)

    def on_load(self) -> None:
        """Exit after a signal; from now on the terminal is changed."""
        if not self.is_headless:
            loop = asyncio.get_running_loop()
            signals.ask(lambda _: None if loop.is_closed() else loop.call_soon_threadsafe(self.exit))

    def on_mount(self) -> None:
        """Begin polling."""
        if self._poller is not None:
            self._poller.attach(self._deliver)
            self._ask_every(self.interval_s)

    def on_ready(self) -> None:
        """The first screen has been drawn."""
        self._is_ready = True
        if not self.is_headless:
            # Else each full garbage collection walks over all of Textual, which blocks keys for 45 ms.
            gc.collect()
            gc.freeze()
        self._leave_after_failure()

    @override
    def get_driver_class(self) -> type[Driver]:
        driver = super().get_driver_class()
        if driver.__name__ != "LinuxDriver":
            return driver  # of a test
        from tcpwatch.widgets.terminal_driver import TerminalDriver

        return TerminalDriver

    @override
    def replace_page(self, page: Page, error: Exception) -> None:
        main = self.screen_stack[0]
        if isinstance(main, MainScreen):
            self.call_later(main.replace_page, page, error)

    @override
    def end_with(self, error: Exception) -> None:
        self.failure = error
        self._leave_after_failure()

    @override
    def action_command_palette(self) -> None:
        if not isinstance(self.screen, CommandPalette):
            self.push_screen(_Palette(id="--command-palette"))

    def _leave_after_failure(self) -> None:
        """Exit after a failure, but not before the first screen is complete."""
        if self._is_ready and self.failure is not None:
            self.exit(return_code=FAILED)

    # Views

    def _deliver(self, outcome: Outcome) -> None:
        """Post the outcome to the app; called in the poll thread."""
        self.post_message(ViewReady(outcome) if isinstance(outcome, View) else StepFailed(outcome))

    def on_view_ready(self, message: ViewReady) -> None:
        """Show a View from the poll thread."""
        self.show(message.view)

    def show(self, view: View) -> None:
        """Draw this View, or keep it until the end of the pause."""
        self._latest = view
        self.poll_error = ""
        self._ask_every(max(self.interval_s, view.pace.interval_s if view.pace.slowed else 0))
        if not self.paused:
            self.view = view

    def on_step_failed(self, message: StepFailed) -> None:
        """Show why nothing can be read, and try again; exit after an unexpected exception."""
        outcome = message.outcome
        if isinstance(outcome, StepUnavailable):
            self.poll_error = outcome.reason
        elif self._latest is None or len(self.failures) >= MOST:
            self.end_with(outcome.error)
        else:
            self.failures.append(outcome.error)
            self.poll_error = f"internal error: {error_line(outcome.error)}"
            words = f"The poll failed, and the history of all connections begins anew: {self.poll_error}"
            self.notify(words, severity="error", timeout=30, markup=False)

    @property
    def age_s(self) -> float:
        """Age of the View on the screen, in seconds."""
        return max(0.0, self._clock() - self.view.sample.monotonic) if self.view is not None else 0.0

    def _ask_every(self, seconds: float) -> None:
        if self._poller is None or seconds == self._timer_s:
            return
        if self._timer is not None:
            self._timer.stop()
        self._timer_s = seconds
        self._timer = self.set_interval(seconds, self._tick)

    def _tick(self) -> None:
        """Ask for the next step; exit if the terminal was closed without a SIGHUP."""
        if not self.is_headless and sys.__stdin__ is not None and not os.isatty(sys.__stdin__.fileno()):
            self.exit()
        elif self._poller is not None:
            self._poller.ask()

    # Keys and clicks

    def action_pause(self) -> None:
        """Keep or release the View on screen; polling continues, so that the history has no gap."""
        self.paused = not self.paused
        if not self.paused and self._latest is not None and self._latest is not self.view:
            self.view = self._latest

    def action_toggle_exact(self) -> None:
        """Toggle between names and rounded numbers, and exact numbers."""
        self.exact = not self.exact

    def action_interval(self, by: int) -> None:
        """Select the next longer or shorter interval."""
        others = [s for s in INTERVALS_S if (s > self.interval_s if by > 0 else s < self.interval_s)]
        if others:
            self.change_interval(others[0 if by > 0 else -1])

    def change_interval(self, interval_s: float) -> None:
        """Poll every `interval_s` seconds, if the CPU budget allows."""
        self.interval_s = interval_s
        if self.monitor is not None:
            self.monitor.interval_s = interval_s
        self._ask_every(interval_s)

    def watch_queue(self, key: ListenerKey | None) -> None:
        """Read the members of this listener's queues from now on; None to stop."""
        if self.monitor is not None:
            self.monitor.watched_queue = key
        if self._poller is not None and key is not None:
            self._poller.ask()

    def watch_flows(self, cookies: frozenset[int]) -> None:
        """Read the detail of these flows from now on."""
        if self.monitor is not None:
            self.monitor.watched = cookies
        if self._poller is not None and cookies:
            self._poller.ask()

    def action_help(self) -> None:
        """Open or close the help for the screen on top."""
        from tcpwatch.screens.help.page import HelpScreen

        if isinstance(self.screen, HelpScreen):
            self.screen.dismiss()
        else:
            self.push_screen(HelpScreen.of(self.screen))

    def on_flow_selected(self, message: FlowSelected) -> None:
        """Open the screen of a flow."""
        from tcpwatch.screens.flow.page import FlowScreen

        self.push_screen(FlowScreen(message.cookie))

    # Textual's hooks

    def get_key_display(self, binding: Binding) -> str:
        """Return the key as printed on keyboards."""
        return _KEY_NAMES.get(binding.key) or super().get_key_display(binding).replace("^", "ctrl+")

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Yield the commands of the palette (ctrl+p)."""
        if isinstance(screen, MainScreen):
            for at, tab in enumerate(TABS):
                yield SystemCommand(f"Go to {tab.title}", f"Key {at + 1}", partial(screen.action_go, at))
        yield SystemCommand("Continue" if self.paused else "Pause", "Key space", self.action_pause)
        for seconds in INTERVALS_S:
            yield SystemCommand(f"Poll every {seconds:g} s", "Keys + and -", partial(self.change_interval, seconds))
        shown = "names and rounded numbers" if self.exact else "exact numbers"
        yield SystemCommand(f"Show {shown}", "Key n", self.action_toggle_exact)
        yield SystemCommand("Theme", "Choose the colours", self.action_change_theme)
        yield SystemCommand("Help", "Keys, columns, states and the filter of this screen", self.action_help)
        yield SystemCommand("Quit", "Key q", self.action_quit)


class _Palette(CommandPalette):
    """The command palette. Textual's fails at keys that move in its list before the list is drawn."""

    def _action_command_list(self, action: str) -> None:
        if self.query_one(CommandList).size:
            super()._action_command_list(action)


def _default_theme() -> str:
    """Return the theme that fits TERM and COLORFGBG, which ends with the number of the background."""
    background = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    if os.environ.get("TERM") in ("linux", "vt100", "vt220"):
        return "ansi-dark"
    return "textual-light" if background in ("7", "15") else "textual-dark"


def run(settings: Settings) -> int:
    """Run the app; return the exit code after printing the reason if it is not 0.

    Raises SourceError if nothing can be read, and SettingsError for an unknown theme.
    """
    from tcpwatch.config.settings import SettingsError
    from tcpwatch.monitor import Monitor
    from tcpwatch.sources.live import open_source

    if settings.theme is not None and settings.theme not in BUILTIN_THEMES:
        themes = ", ".join(sorted(BUILTIN_THEMES))
        raise SettingsError(f"no theme is called {settings.theme!r}; there are {themes}")
    signals.install(signal.SIGHUP)  # even if the parent ignores it: nothing survives its terminal
    with signals.held():
        source = open_source(
            settings.source,
            watch_queues=True,
            ask_infos=True,
            events=True,
            trace=settings.trace,
            keep_privileges=settings.keep_privileges,
        )
    monitor = Monitor(source, settings.interval_s, settings.budget, settings.thresholds, settings.memory_mib)
    poller = Poller(monitor)
    try:
        poller.start()
        return _run(TcpwatchApp(monitor, poller, theme=settings.theme, exact=settings.exact))
    finally:
        with signals.held():
            poller.stop()


def _run(app: TcpwatchApp) -> int:
    app.run()
    exports = finish_exports()
    for export in exports:
        _print_error(export.message)
    failures = [*app.failures, *filter(None, [app.failure])]
    for failure in {error_line(failure): failure for failure in failures}.values():
        _report(failure)
    return app.return_code or (FAILED if any(export.failed for export in exports) else 0)


def _report(bug: Exception) -> None:
    """Print one line about an unexpected exception, or the traceback if TCPWATCH_DEBUG is set."""
    if os.environ.get("TCPWATCH_DEBUG"):
        traceback.print_exception(bug)
    _print_error(f"internal error: {error_line(bug)} (TCPWATCH_DEBUG=1 shows the traceback)")


def _print_error(line: str) -> None:
    with suppress(OSError):  # the terminal is closed
        print(f"tcpwatch: {line}", file=sys.stderr)
