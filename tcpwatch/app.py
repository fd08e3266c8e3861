"""The terminal UI: one View at a time, drawn by the page on screen."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import var
from textual.screen import Screen
from textual.theme import BUILTIN_THEMES

from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.view import View
from tcpwatch.poller import Outcome, Poller, StepCrashed, Steppable, StepUnavailable
from tcpwatch.screens.main import TABS, MainScreen
from tcpwatch.screens.shared.page import FlowSelected
from tcpwatch.units.printable import printable

if TYPE_CHECKING:
    from textual.timer import Timer

    from tcpwatch.config.settings import Settings

INTERVALS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
FAILED = 2
_KEY_NAMES = {"enter": "Enter", "escape": "Esc", "plus": "+", "minus": "-", "question_mark": "?", "slash": "/"}


class ViewReady(Message):
    """A step was taken."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view


class StepFailed(Message):
    """A step could not be taken."""

    def __init__(self, outcome: StepUnavailable | StepCrashed) -> None:
        super().__init__()
        self.outcome = outcome


class TcpwatchApp(App[None]):
    """Shows Views. Without a monitor nothing is polled: Views come by `show` or `ViewReady`."""

    TITLE = "tcpwatch"
    CSS_PATH = "app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c,ctrl+q", "quit", "quit", show=False),
        Binding("question_mark", "help", "help"),
        Binding("space", "pause", "pause"),
        Binding("n", "toggle_exact", "numbers"),
        Binding("plus,equals_sign", "interval(1)", "poll less often", show=False),
        Binding("minus", "interval(-1)", "poll more often", show=False),
    ]

    view: var[View | None] = var(None, init=False, always_update=True)
    """What is on the screen; a new object each time, so that identity tells them apart."""
    paused: var[bool] = var(False, init=False)
    exact: var[bool] = var(False, init=False)
    """Numbers as they are, instead of names and rounded ones."""
    interval_s: var[float] = var(1.0, init=False)
    poll_error: var[str] = var("", init=False)
    """Why the last step could not be taken; empty when it could."""

    def __init__(
        self,
        monitor: Steppable | None = None,
        poller: Poller | None = None,
        *,
        theme: str | None = None,
        exact: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`poller` steps `monitor`; it may have begun. `clock` is the one that samples have in `monotonic`."""
        super().__init__()
        self.monitor = monitor
        self.failure: Exception | None = None
        """The bug that ended the app."""
        self._poller = poller
        self._clock = clock
        self._latest: View | None = None
        self._timer: Timer | None = None
        self._timer_s = 0.0
        self._stands = False
        self.set_reactive(TcpwatchApp.exact, exact)
        if monitor is not None:
            self.set_reactive(TcpwatchApp.interval_s, monitor.interval_s)
        self.theme = theme or _fitting_theme()

    def get_default_screen(self) -> Screen[None]:
        """As Textual asks."""
        return MainScreen()

    def on_mount(self) -> None:
        """Begin to ask for steps."""
        if not self.is_headless:  # asked to end, it leaves the terminal, and the kernel, as it found them
            for number in (signal.SIGTERM, signal.SIGHUP):
                ended = partial(self.exit, return_code=128 + number)
                asyncio.get_running_loop().add_signal_handler(number, ended)
        if self._poller is not None:
            self._poller.attach(self._deliver)
            self._ask_every(self.interval_s)

    def on_ready(self) -> None:
        """The first screen stands."""
        self._stands = True
        if not self.is_headless:
            # What stands now stays: else each full collection walks over all of Textual, 45 ms in which no key counts.
            gc.collect()
            gc.freeze()
        self._leave_after_failure()

    def _leave_after_failure(self) -> None:
        """End after a bug; not before the first screen stands, which would be in the middle of its making."""
        if self._stands and self.failure is not None:
            self.exit(return_code=FAILED)

    # Views

    def _deliver(self, outcome: Outcome) -> None:
        """Called in the poll thread."""
        self.post_message(ViewReady(outcome) if isinstance(outcome, View) else StepFailed(outcome))

    def on_view_ready(self, message: ViewReady) -> None:
        """A View came from the poll thread, or from a test."""
        self.show(message.view)

    def show(self, view: View) -> None:
        """Draw this View, or keep it for the end of the pause."""
        self._latest = view
        self.poll_error = ""
        self._ask_every(max(self.interval_s, view.pace.interval_s if view.pace.slowed else 0))
        if not self.paused:
            self.view = view

    def on_step_failed(self, message: StepFailed) -> None:
        """What cannot be read now is said in the header and tried again; a bug ends the app."""
        outcome = message.outcome
        if isinstance(outcome, StepUnavailable):
            self.poll_error = outcome.reason
        else:
            self.failure = outcome.error
            self._leave_after_failure()

    @property
    def age_s(self) -> float:
        """Age of what is on the screen."""
        return max(0.0, self._clock() - self.view.sample.monotonic) if self.view is not None else 0.0

    def _ask_every(self, seconds: float) -> None:
        if self._poller is None or seconds == self._timer_s:
            return
        if self._timer is not None:
            self._timer.stop()
        self._timer_s = seconds
        self._timer = self.set_interval(seconds, self._tick)

    def _tick(self) -> None:
        """Ask for the next step; or go, where the terminal has gone without a SIGHUP for us."""
        if not self.is_headless and sys.__stdin__ is not None and not os.isatty(sys.__stdin__.fileno()):
            self.exit()
        elif self._poller is not None:
            self._poller.ask()

    # What a person does

    def action_pause(self) -> None:
        """Keep what is on the screen; polling goes on, so that the history has no gap."""
        self.paused = not self.paused
        if not self.paused and self._latest is not None and self._latest is not self.view:
            self.view = self._latest

    def action_toggle_exact(self) -> None:
        """Names and rounded numbers, or everything as exact numbers."""
        self.exact = not self.exact

    def action_interval(self, by: int) -> None:
        """The next longer or shorter interval."""
        if by > 0:
            longer = [s for s in INTERVALS_S if s > self.interval_s]
            self.change_interval(longer[0] if longer else self.interval_s)
        else:
            shorter = [s for s in INTERVALS_S if s < self.interval_s]
            self.change_interval(shorter[-1] if shorter else self.interval_s)

    def change_interval(self, interval_s: float) -> None:
        """Poll every `interval_s`, as far as the budget allows."""
        self.interval_s = interval_s
        if self.monitor is not None:
            self.monitor.interval_s = interval_s
        self._ask_every(interval_s)

    def watch_queue(self, key: ListenerKey | None) -> None:
        """Ask for what is inside the queues of this address and port from now on, and for the first of it at once."""
        if self.monitor is not None:
            self.monitor.watched_queue = key
        if self._poller is not None and key is not None:
            self._poller.ask()

    def watch_flows(self, cookies: frozenset[int]) -> None:
        """Ask for the detail of these flows from now on, and for the first one at once."""
        if self.monitor is not None:
            self.monitor.watched = cookies
        if self._poller is not None and cookies:
            self._poller.ask()

    def action_help(self) -> None:
        """Explain the screen that is on top; again: close the help."""
        from tcpwatch.screens.help.page import HelpScreen

        if isinstance(self.screen, HelpScreen):
            self.screen.dismiss()
        else:
            self.push_screen(HelpScreen.of(self.screen))

    def on_flow_selected(self, message: FlowSelected) -> None:
        """Open a flow."""
        from tcpwatch.screens.flow.page import FlowScreen

        self.push_screen(FlowScreen(message.cookie))

    # Textual's hooks

    def get_key_display(self, binding: Binding) -> str:
        """As keyboards spell the keys."""
        return _KEY_NAMES.get(binding.key) or super().get_key_display(binding).replace("^", "ctrl+")

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """What ctrl+p offers."""
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


def _fitting_theme() -> str:
    """The theme for this terminal, as far as it tells: COLORFGBG ends with its background's number."""
    background = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    if os.environ.get("TERM") in ("linux", "vt100", "vt220"):
        return "ansi-dark"
    return "textual-light" if background in ("7", "15") else "textual-dark"


def run(settings: Settings) -> int:
    """Monitor until somebody quits; returns the exit code, and has said why where it is not 0.

    Raises SourceError where nothing can be read, SettingsError for a theme that there is not.
    """
    from tcpwatch.config.settings import SettingsError
    from tcpwatch.monitor import Monitor
    from tcpwatch.sources.live import open_source

    if settings.theme is not None and settings.theme not in BUILTIN_THEMES:
        themes = ", ".join(sorted(BUILTIN_THEMES))
        raise SettingsError(f"no theme is called {settings.theme!r}; there are {themes}")
    source = open_source(settings.source, watch_queues=True, ask_infos=True, events=True, trace=settings.trace)
    monitor = Monitor(source, settings.interval_s, settings.budget, settings.thresholds, settings.memory_mib)
    poller = Poller(monitor)
    poller.start()
    try:
        return _run(TcpwatchApp(monitor, poller, theme=settings.theme, exact=settings.exact))
    finally:
        poller.stop()


def _run(app: TcpwatchApp) -> int:
    # A parent may have left SIGHUP ignored; then a closed terminal would leave this process behind.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    app.run()
    if app.failure is not None:
        _tell(app.failure)
    return app.return_code or 0


def _tell(bug: Exception) -> None:
    """One line about a bug of ours, or all about it where TCPWATCH_DEBUG is set."""
    if os.environ.get("TCPWATCH_DEBUG"):
        traceback.print_exception(bug)
    what = printable(f"{type(bug).__name__}: {bug}")
    print(f"tcpwatch: ended by a bug of its own: {what} (TCPWATCH_DEBUG=1 tells more)", file=sys.stderr)
