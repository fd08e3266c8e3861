"""The poll thread: the UI asks for a step, a thread of its own takes it, so that a slow kernel holds no key press up.

Requests collapse in an Event: a thread that is late does not fall further behind, and a UI that is stalled asks for
nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.view import View
from tcpwatch.sources.base import SourceError


class Steppable(Protocol):
    """What is polled: `tcpwatch.monitor.Monitor`, or a replay."""

    interval_s: float
    """Seconds between steps that a person asked for; may be set at any time."""
    watched: frozenset[int]
    """Cookies of the flows whose detail is wanted; may be set at any time."""
    watched_queue: ListenerKey | None
    """The listening address and port whose queues are to be looked into; may be set at any time."""

    def step(self) -> View:
        """Poll once. Raises SourceError or OSError where that cannot be done now."""

    def close(self) -> None:
        """Give back what is held."""


@dataclass(frozen=True, slots=True)
class StepUnavailable:
    """A step that could not be taken, and may be possible the next time."""

    reason: str


@dataclass(frozen=True, slots=True)
class StepCrashed:
    """A step that met a bug of ours: the thread has ended."""

    error: Exception


Outcome = View | StepUnavailable | StepCrashed
Deliver = Callable[[Outcome], object]


class Poller:
    """Steps a monitor whenever it is asked; `deliver` is called in the thread."""

    def __init__(self, monitor: Steppable) -> None:
        self._monitor = monitor
        self._asked = threading.Event()
        self._stopping = False
        self._lock = threading.Lock()
        self._deliver: Deliver | None = None
        self._early: Outcome | None = None
        # A daemon: whoever quits does not wait for a step that takes long.
        self._thread = threading.Thread(target=self._run, name="tcpwatch-poll", daemon=True)

    def start(self) -> None:
        """Start the thread and take the first step at once; nobody needs to be attached yet."""
        self._asked.set()
        self._thread.start()

    def attach(self, deliver: Deliver) -> None:
        """Say who gets the outcomes; the last one that nobody got is delivered now."""
        with self._lock:
            self._deliver, early, self._early = deliver, self._early, None
        if early is not None:
            deliver(early)

    def ask(self) -> None:
        """Ask for a step; asking again before it begins changes nothing."""
        self._asked.set()

    def stop(self, patience_s: float = 0.2) -> bool:
        """End the thread and close the monitor; False where a step is still running, which dies with the process."""
        self._stopping = True
        self._asked.set()
        if self._thread.ident is not None:
            self._thread.join(patience_s)
        if self._thread.is_alive():
            return False
        self._monitor.close()
        return True

    def _run(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._stopping:
                return
            outcome = self._step()
            self._hand_over(outcome)
            if isinstance(outcome, StepCrashed):
                return

    def _step(self) -> Outcome:
        try:
            return self._monitor.step()
        except (SourceError, OSError) as error:
            return StepUnavailable(_in_words(error))
        except Exception as error:
            return StepCrashed(error)

    def _hand_over(self, outcome: Outcome) -> None:
        with self._lock:
            deliver = self._deliver
            if deliver is None:
                self._early = outcome
        if deliver is not None and not self._stopping:
            deliver(outcome)


def _in_words(error: Exception) -> str:
    """One line about a failure that is not ours."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
