"""TerminalOutput: text for a terminal that may be slow, stopped, or without the characters of a screen."""

from __future__ import annotations

import codecs
import os
import termios
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from rich.cells import cell_len

_CHUNK = 1024
"""Bytes of one write(2): what can no longer be dropped when the program ends."""
_CANCEL = b"\x18"
"""Ends an escape sequence that was cut off (CAN of ECMA-48)."""

_ASCII = {
    "_": "▁▂", "-": "▃▄─━┄┈╍╺╸–—", "=": "▅▆", "#": "▇█▉▊▋▌", " ": "▍▎▏", "|": "│┊‖", "+": "┌┐└┘├┤┬┴┼╭╮╰╯", "<": "←≤",
    ">": "→▸≥", "^": "↑▲△", "v": "↓▼", "*": "●", "o": "○", ".": "…·", "x": "×", "u": "µ", "7": "⁷",
}  # fmt: skip
"""Cell → the characters that it stands for where a charset lacks them."""
_CONSOLE = {
    "_": "▁▂▃", "▄": "▅", "█": "▆▇▉▊▋", "▌": "▍▎", "-": "━┄┈╍╺╸–—", " ": "▏", "|": "┊‖", "+": "╭╮╰╯", "<": "←",
    ">": "→▸", "^": "↑▲△", "v": "↓▼", "*": "●", "o": "○", ".": "…", "x": "×", "7": "⁷",
}  # fmt: skip
"""The same for a Linux console, whose fonts have the characters of code page 437."""


def _table(cells: Mapping[str, str]) -> dict[int, str]:
    return {ord(char): cell for cell, chars in cells.items() for char in chars}


_TO_ASCII, _TO_CONSOLE = _table(_ASCII), _table(_CONSOLE)


class TerminalOutput:
    """A text file whose write() never blocks: a thread writes to the terminal."""

    def __init__(self, fd: int, encoding: str, environ: Mapping[str, str]) -> None:
        """Write to this descriptor; characters that the charset, or a Linux console's font, lacks are replaced."""
        self._fd = fd
        self._encoding = encoding
        self._console = environ.get("TERM") == "linux"
        self._waiting = bytearray()
        self._writing = False
        self._on_idle: Callable[[], object] | None = None
        self._changed = threading.Condition()
        # A daemon: a terminal that nobody reads does not keep the program from ending.
        threading.Thread(target=self._run, name="tcpwatch-terminal", daemon=True).start()

    def write(self, text: str) -> int:
        """Take the text; it follows what was taken before."""
        data = encode(text, self._encoding, self._console)
        with self._changed:
            self._waiting += data
            self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread writes at once."""

    def fileno(self) -> int:
        """Return the descriptor of the terminal."""
        return self._fd

    def isatty(self) -> bool:
        """Return True."""
        return True

    def call_when_idle(self, call: Callable[[], object]) -> bool:
        """Return True if the terminal has taken everything; else let the thread call `call`, once, when it has."""
        with self._changed:
            if self._waiting or self._writing:
                self._on_idle = call
                return False
            return True

    def drop(self) -> None:
        """Discard what the terminal has not taken, also in the kernel's buffer."""
        with self._changed:
            if self._waiting or self._writing:
                self._waiting[:] = _CANCEL
                with suppress(termios.error):
                    termios.tcflush(self._fd, termios.TCOFLUSH)

    def finish(self, patience_s: float) -> bool:
        """Wait until the terminal has taken everything, at most so long; return whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._waiting or self._writing), patience_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                chunk = bytes(self._waiting[:_CHUNK])
                del self._waiting[:_CHUNK]
                self._writing = True
            with suppress(OSError):  # the terminal was closed; the app notices
                _write_all(self._fd, chunk)
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                call = None
                if not self._waiting:
                    call, self._on_idle = self._on_idle, None
            if call is not None:
                call()


def encode(text: str, encoding: str, console: bool = False) -> bytes:
    """Return the bytes of a text; characters that the charset, or a Linux console's font, lacks become others."""
    return (text.translate(_TO_CONSOLE) if console else text).encode(encoding, _REPLACE)


def _replace(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    part = error.object[error.start : error.end].translate(_TO_ASCII)
    return "".join(char if char.isascii() else "?" * cell_len(char) for char in part), error.end


_REPLACE = "tcpwatch.terminal"
codecs.register_error(_REPLACE, _replace)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
