"""A program in a pseudo-terminal: a thread records its output with the times; the screen is emulated afterwards.

The emulator is slow, so it never runs while something is timed: each chunk of output has its time of arrival.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pyte

from benchmarks.support.sockets import PROJECT

_CHUNK = 64 * 1024
_UNKNOWN_TO_PYTE = re.compile(r"\x1b\[[<=>][0-9;]*[A-Za-z]")
"""The keyboard protocol of kitty and the like, which pyte would print."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of one read, and time.perf_counter() right after it."""

    time_s: float
    data: bytes


class Terminal:
    """Starts the program; leaving the `with` block closes the terminal and ends whatever is left."""

    def __init__(self, command: Sequence[str], columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        self.chunks: list[Chunk] = []
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
        environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
        environment |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        self._closing = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.started_s = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            cwd=PROJECT,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            # The terminal becomes the controlling one, so that closing it is a hang-up.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        self.hang_up()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def press(self, key: bytes) -> float:
        """Type a key; return time.perf_counter() of that moment."""
        now = time.perf_counter()
        os.write(self._master, key)
        return now

    def hang_up(self) -> None:
        """Close the terminal, as closing its window does."""
        master, self._master = self._master, -1
        if master >= 0:
            self._closing = True
            self._reader.join()
            os.close(master)

    def _read(self) -> None:
        master = self._master
        while not self._closing:
            if not select.select([master], [], [], 0.05)[0]:
                continue
            try:
                data = os.read(master, _CHUNK)
            except OSError:  # EIO: the program has closed its end
                time.sleep(0.05)
                continue
            self.chunks.append(Chunk(time.perf_counter(), data))


class Replay:
    """Shows on an emulated screen what a terminal got, chunk by chunk."""

    def __init__(self, terminal: Terminal) -> None:
        self._chunks = terminal.chunks
        self._next = 0
        self._screen = pyte.Screen(terminal.columns, terminal.lines)
        self._stream = pyte.Stream(self._screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def frames(self, until_s: float = float("inf")) -> Iterator[float]:
        """Feed new chunks that arrived before `until_s`; yield the time of each after feeding it."""
        while self._next < len(self._chunks) and self._chunks[self._next].time_s < until_s:
            chunk = self._chunks[self._next]
            self._next += 1
            self._stream.feed(_UNKNOWN_TO_PYTE.sub("", self._decoder.decode(chunk.data)))
            yield chunk.time_s

    def feed(self, until_s: float = float("inf")) -> None:
        """Feed new chunks that arrived before `until_s`."""
        for _ in self.frames(until_s):
            pass

    def text(self) -> list[str]:
        """Return the lines of the screen."""
        return list(self._screen.display)

    def first(self, seen: Callable[[list[str]], bool]) -> float | None:
        """Return the time when `seen` first held for the screen; None if it never did."""
        return next((moment for moment in self.frames() if seen(self.text())), None)


def wait_for(terminal: Terminal, seen: Callable[[list[str]], bool], deadline_s: float) -> Replay:
    """Wait until `seen` holds for the screen; TimeoutError with the screen if it does not in time."""
    replay, end = Replay(terminal), time.monotonic() + deadline_s
    while time.monotonic() < end:
        replay.feed()
        if seen(replay.text()):
            return replay
        time.sleep(0.02)
    raise TimeoutError("the expected screen did not appear:\n" + "\n".join(replay.text()))
