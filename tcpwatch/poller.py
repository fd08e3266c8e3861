"""Poller: takes the steps of a monitor in a thread, so that a slow kernel does not block the UI.

Requests collapse in an Event: a slow thread does not fall further behind, and a stalled UI requests nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.view import View
from tcpwatch.sources.base import SourceError, reason_of


class Steppable(Protocol):
    """A `tcpwatch.monitor.Monitor`, or a replay; see there for its attributes."""

    interval_s: float
    watched: frozenset[int]
    watched_queue: ListenerKey | None

    def step(self) -> View:
        """Poll once. Raises SourceError or OSError where no sample can be had now."""

    def close(self) -> None:
        """Release all resources."""


@dataclass(frozen=True, slots=True)
class StepUnavailable:
    """A step that failed, and may succeed the next time."""

    reason: str


@dataclass(frozen=True, slots=True)
class StepCrashed:
    """A step that raised an unexpected exception; the next one begins without a history."""

    error: Exception


Outcome = View | StepUnavailable | StepCrashed
Deliver = Callable[[Outcome], object]


class Poller:
    """Takes a step whenever one is requested; `deliver` is called in the thread."""

    def __init__(self, monitor: Steppable) -> None:
        self._monitor = monitor
        self._requested = threading.Event()
        self._stopping = False
        self._lock = threading.Lock()
        self._deliver: Deliver | None = None
        self._early: Outcome | None = None
        # A daemon, so that the program ends without waiting for a slow step.
        self._thread = threading.Thread(target=self._run, name="tcpwatch-poll", daemon=True)

    def start(self) -> None:
        """Start the thread and take the first step at once, also before `attach`."""
        self._requested.set()
        self._thread.start()

    def attach(self, deliver: Deliver) -> None:
        """Set the receiver of the outcomes; the last one before this call is delivered now."""
        with self._lock:
            self._deliver, early, self._early = deliver, self._early, None
        if early is not None:
            deliver(early)

    def ask(self) -> None:
        """Request a step; a second request before it begins changes nothing."""
        self._requested.set()

    def stop(self, patience_s: float = 0.2) -> bool:
        """End the thread and close the monitor; return False where a step still runs, which ends with the process."""
        self._stopping = True
        self._requested.set()
        if self._thread.ident is not None:
            self._thread.join(patience_s)
        if self._thread.is_alive():
            return False
        self._monitor.close()
        return True

    def _run(self) -> None:
        while True:
            self._requested.wait()
            self._requested.clear()
            if self._stopping:
                return
            self._hand_over(self._step())

    def _step(self) -> Outcome:
        try:
            return self._monitor.step()
        except (SourceError, OSError) as error:
            return StepUnavailable(reason_of(error))
        except Exception as error:
            return StepCrashed(error)

    def _hand_over(self, outcome: Outcome) -> None:
        with self._lock:
            deliver = self._deliver
            if deliver is None:
                self._early = outcome
        if deliver is not None and not self._stopping:
            deliver(outcome)
