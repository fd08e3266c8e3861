"""Standard output as the headless front ends use it: large pieces, one clear failure, colour where it is wanted."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import TextIO


class OutputError(Exception):
    """Standard output cannot be written; the text is one line."""


class OutputClosed(Exception):
    """Who read our output has enough of it (`| head`): no failure, but an end."""


class Output:
    """Standard output: text out, bytes written."""

    def __init__(self, stream: TextIO | None = None, environ: Mapping[str, str] | None = None) -> None:
        """`stream` is sys.stdout unless told. Raises OutputError where there is none (`>&-`)."""
        stream = sys.stdout if stream is None else stream
        if stream is None:
            raise OutputError("there is no standard output to write to")
        self._stream = stream
        self.terminal = stream.isatty()
        self.colour = wants_colour(self.terminal, os.environ if environ is None else environ)

    @property
    def width(self) -> int | None:
        """Cells of a line of the terminal; None, which is no limit, where it is no terminal."""
        return shutil.get_terminal_size().columns if self.terminal else None

    def write_data(self, pieces: Iterable[str]) -> None:
        """JSON and CSV: UTF-8, whatever the locale. Raises OutputError, OutputClosed."""
        self._write(pieces, "utf-8")

    def write_text(self, pieces: Iterable[str]) -> None:
        """Text for people, in the locale's encoding. Raises OutputError, OutputClosed."""
        self._write(pieces, self._stream.encoding or "utf-8")

    def _write(self, pieces: Iterable[str], encoding: str) -> None:
        for piece in pieces:
            data = piece.encode(encoding, "backslashreplace")
            try:
                self._stream.buffer.write(data)
            except OSError as error:
                raise _failure(error) from error
        try:
            self._stream.flush()  # here, where a failure is ours, and not at the interpreter's end
        except OSError as error:
            raise _failure(error) from error


def _failure(error: OSError) -> OutputError | OutputClosed:
    if error.errno == errno.EPIPE:
        return OutputClosed()
    return OutputError(f"cannot write to standard output: {error.strerror or error}")


def print_error(line: str) -> None:
    """One line on stderr."""
    try:
        print(f"tcpwatch: {line}", file=sys.stderr if sys.stderr is not None else io.StringIO(), flush=True)
    except OSError:  # nowhere is left to say it; the exit code still does
        abandon(sys.stderr)


def abandon(stream: TextIO | None) -> None:
    """Let what is still buffered for this standard stream go nowhere.

    Python flushes it once more when it ends: that would fail again, with a message of its own and exit code 120.
    """
    if stream is None:
        return
    try:
        fd = stream.fileno()
    except io.UnsupportedOperation:  # a test's stand-in: nothing is flushed to anywhere
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, fd)
    os.close(nowhere)


def wants_colour(terminal: bool, environ: Mapping[str, str]) -> bool:
    """NO_COLOR wins over FORCE_COLOR (as in Python's own tools), which wins over what the stream is."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return environ["FORCE_COLOR"] != "0"
    return terminal and environ.get("TERM", "") not in ("", "dumb")
