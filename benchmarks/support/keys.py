"""The time from a key to the changed screen, while the program polls."""

from __future__ import annotations

import random
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.support.terminal import Replay, Terminal, wait_for

_DOWN, _UP, _PAGE_DOWN, _PAGE_UP = b"j", b"k", b"\x1b[6~", b"\x1b[5~"
_OVERVIEW, _CONNECTIONS = b"1", b"2"
_PAUSES_S = 0.12, 0.40
"""Shortest and longest time between two keys: they meet every phase of the poll."""
_ENDPOINT = re.compile(r"\d+\.\d+\.\d+\.\d+:\d+")
_CURSOR, _MARGIN = "▸", 4
"""The sign in the cursor's line, and the number of first cells that may contain it."""
_LEAST_ROWS = 5

Seen = tuple[bool, int, tuple[str, ...]]
"""Whether the Overview is shown; the cursor's line; the ends of the connection in that line. No poll changes these
while the connections stay."""


@dataclass(frozen=True, slots=True)
class Latencies:
    """Milliseconds from key to changed screen; `unanswered` keys changed nothing before the next one came."""

    ms: tuple[float, ...]
    unanswered: int

    @property
    def p50(self) -> float:
        """Median."""
        return statistics.median(self.ms or [float("inf")])

    @property
    def worst(self) -> float:
        """The slowest answer."""
        return max(self.ms, default=float("inf"))

    @property
    def p95(self) -> float:
        """95th percentile; keys without an answer count as the slowest."""
        slowest = [*sorted(self.ms), *[float("inf")] * self.unanswered]
        return slowest[min(len(slowest) - 1, int(0.95 * len(slowest)))]


def script(keys: int) -> Iterator[bytes]:
    """Yield keys that each change the screen: by a line, by a page, and now and then to the other tab."""
    block = [_DOWN, _DOWN, _UP, _DOWN, _PAGE_DOWN, _UP, _DOWN, _PAGE_DOWN, _DOWN, _PAGE_UP, _OVERVIEW, _CONNECTIONS]
    for number in range(keys):
        yield block[number % len(block)]


def is_overview(text: list[str]) -> bool:
    """The Overview is on the screen."""
    return any("Handshake" in line and "now" in line for line in text)


def is_table(text: list[str]) -> bool:
    """The table of connections is on the screen, with rows."""
    return sum(bool(_ENDPOINT.search(line)) for line in text) >= _LEAST_ROWS


def observe(replay: Replay) -> Seen:
    """Return what the keys change."""
    text = replay.text()
    if is_overview(text):
        return True, -1, ()
    cursor = next((number for number, line in enumerate(text) if _CURSOR in line[:_MARGIN]), -1)
    return False, cursor, tuple(_ENDPOINT.findall(text[cursor])) if cursor >= 0 else ()


def type_keys(terminal: Terminal, keys: int) -> list[float]:
    """Go to the Connections and type the script; returns when each key was typed."""
    wait_for(terminal, is_overview, 60)
    terminal.press(_CONNECTIONS)
    wait_for(terminal, is_table, 60)
    time.sleep(2)
    generator = random.Random(1)
    typed = []
    for key in script(keys):
        typed.append(terminal.press(key))
        time.sleep(generator.uniform(*_PAUSES_S))
    time.sleep(2)
    return typed


def latencies(terminal: Terminal, typed: list[float]) -> Latencies:
    """Return the time from each key to its effect, from what the terminal received."""
    replay = Replay(terminal)
    found: list[float] = []
    for at, following in zip(typed, [*typed[1:], float("inf")], strict=True):
        replay.feed(at)
        before = observe(replay)
        for moment in replay.frames(following):
            if observe(replay) != before:
                found.append(1e3 * (moment - at))
                break
    return Latencies(tuple(found), len(typed) - len(found))
