"""Signals that end the program: the first one begins an orderly end, which no later one interrupts.

Python calls signal handlers in the main thread. There the exception of a second signal would interrupt the code that
restores the terminal or removes the trace instance.
"""

from __future__ import annotations

import atexit
import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
LIMIT_S = 2.0
"""An orderly end that takes longer is cut short."""

_received: int | None = None
_ask: Callable[[int], object] | None = None
_held = 0


def install(*anyway: int) -> None:
    """Handle the signals from now on, and `anyway` those that are ignored: by nohup, or in a shell's background."""
    for number in NUMBERS:
        if number in anyway or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handle)


def ask(end: Callable[[int], object]) -> None:
    """Call `end` with the number of the first signal, now if it has arrived, instead of ending the program at once."""
    global _ask
    _ask = end
    if _received is not None:
        end(_received)


@contextmanager
def held() -> Iterator[None]:
    """Let a signal end the program after this block and not within it. For what must not be left half done."""
    global _held
    _held += 1
    try:
        yield
    finally:
        _held -= 1
        if _received is not None and not _held:
            _end(_received)


@contextmanager
def limited(seconds: float, error: Exception) -> Iterator[None]:
    """Raise `error` if this block takes longer (math.inf: never), in the main thread."""

    def end(*_: object) -> None:
        raise error

    if seconds < math.inf and _received is None:
        signal.signal(signal.SIGALRM, end)
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        if _received is None:  # otherwise the end of the program has its own limit
            signal.setitimer(signal.ITIMER_REAL, 0)


def _handle(number: int, _: object) -> None:
    global _received
    if _received is not None:
        return
    _received = number
    signal.signal(signal.SIGALRM, _cut_short)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    if _ask is not None:
        _ask(number)
    elif not _held:
        _end(number)


def _end(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _cut_short(*_: object) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    atexit._run_exitfuncs()  # remove what would stay in the kernel
    os._exit(128 + (_received or 0))
