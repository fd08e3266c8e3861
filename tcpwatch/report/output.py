"""Standard output of the headless front ends: blocks of text, errors, and whether to use colour."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import TextIO


class OutputError(Exception):
    """Raised when standard output cannot be written; the text is one line."""


class OutputClosed(Exception):
    """Raised when the reader has closed the pipe (`| head`); not an error."""


class Output:
    """Encoded standard output."""

    def __init__(self, stream: TextIO | None = None, environ: Mapping[str, str] | None = None) -> None:
        """`stream` defaults to sys.stdout. Raises OutputError if there is none (`>&-`)."""
        stream = sys.stdout if stream is None else stream
        if stream is None:
            raise OutputError("there is no standard output to write to")
        self._stream = stream
        self.terminal = stream.isatty()
        self.colour = wants_colour(self.terminal, os.environ if environ is None else environ)

    @property
    def width(self) -> int | None:
        """Return the width of the terminal in cells; None if it is not a terminal."""
        return shutil.get_terminal_size().columns if self.terminal else None

    def write_data(self, pieces: Iterable[str]) -> None:
        """Write JSON or CSV, always in UTF-8. Raises OutputError, OutputClosed."""
        self._write(pieces, "utf-8")

    def write_text(self, pieces: Iterable[str]) -> None:
        """Write text in the locale's encoding. Raises OutputError, OutputClosed."""
        self._write(pieces, self._stream.encoding or "utf-8")

    def _write(self, pieces: Iterable[str], encoding: str) -> None:
        for piece in pieces:
            data = piece.encode(encoding, "backslashreplace")
            try:
                self._stream.buffer.write(data)
            except OSError as error:
                raise _failure(error) from error
        try:
            self._stream.flush()  # here and not at exit, so that errors are reported
        except OSError as error:
            raise _failure(error) from error


def _failure(error: OSError) -> OutputError | OutputClosed:
    if error.errno == errno.EPIPE:
        return OutputClosed()
    return OutputError(f"cannot write to standard output: {error.strerror or error}")


def print_error(line: str) -> None:
    """Print one line on stderr."""
    try:
        print(f"tcpwatch: {line}", file=sys.stderr if sys.stderr is not None else io.StringIO(), flush=True)
    except OSError:  # the exit code still reports the failure
        abandon(sys.stderr)


def abandon(stream: TextIO | None) -> None:
    """Discard what is buffered for this standard stream.

    Otherwise Python flushes it at exit, fails again, prints a message of its own and exits with 120.
    """
    if stream is None:
        return
    try:
        fd = stream.fileno()
    except io.UnsupportedOperation:  # a fake stream in a test
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, fd)
    os.close(null)


def wants_colour(terminal: bool, environ: Mapping[str, str]) -> bool:
    """Return whether to use colour: NO_COLOR overrides FORCE_COLOR (as in Python), which overrides the stream."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return environ["FORCE_COLOR"] != "0"
    return terminal and environ.get("TERM", "") not in ("", "dumb")
