"""Standard output of the headless front ends: whole writes, blocks of text, errors, and whether to use colour."""

from __future__ import annotations

import errno
import io
import os
import select
import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer


class OutputError(Exception):
    """Raised when standard output cannot be written; the text is one line."""


class OutputClosed(Exception):
    """Raised when the reader has closed the pipe (`| head`); not an error."""


class WholeFile(io.RawIOBase):
    """A descriptor that takes all bytes of each write, or raises OSError. It stays open when this object is closed.

    Python's own files lose the rest of a short write if they are unbuffered (PYTHONUNBUFFERED), and of any write if the
    descriptor is non-blocking and full.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self._fd)

    def writable(self) -> bool:
        """Return True: the first write says if it cannot be written."""
        return True

    def write(self, data: Buffer) -> int:
        """Write all of it, and wait for the reader if a non-blocking descriptor takes no more."""
        whole = left = memoryview(data).cast("B")
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                room = select.poll()
                room.register(self._fd, select.POLLOUT)
                room.poll()
        return len(whole)

    def flush(self) -> None:
        """Raise the errors of writes that the file system reports late (close(2)): NFS, quotas."""
        if not self.closed:
            os.close(os.dup(self._fd))


def whole(stream: TextIO | None) -> TextIO | None:
    """Return a stream for the same descriptor that writes everything at once, or raises OSError."""
    if stream is None:
        return None
    return io.TextIOWrapper(WholeFile(stream.fileno()), stream.encoding, stream.errors, write_through=True)  # type: ignore[type-var]


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
        print(f"tcpwatch: {line}\n", end="", file=sys.stderr if sys.stderr is not None else io.StringIO(), flush=True)
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
