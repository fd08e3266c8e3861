"""Standard output: errors, encodings, colour."""

from __future__ import annotations

import errno
import io
import os
import threading
from contextlib import closing

import pytest

from tcpwatch.report.output import Output, OutputClosed, OutputError, abandon, wants_colour, whole


class Broken(io.RawIOBase):
    """A file that fails after so many bytes."""

    def __init__(self, error: int, room: int = 0) -> None:
        self.room, self.error, self.taken = room, error, b""

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # the stub's Buffer
        taken = bytes(data)[: self.room - len(self.taken)]
        if not taken:
            raise OSError(self.error, "no more")
        self.taken += taken
        return len(taken)


def stream(raw: io.RawIOBase, encoding: str = "utf-8") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding)


def settled(broken: io.TextIOWrapper) -> None:
    """Discard the buffer, which the destructor would write again."""
    broken.buffer.raw.room = 1 << 30  # type: ignore[attr-defined]
    broken.close()


@pytest.mark.parametrize("piece", ["short", "x" * 100_000])
def test_failures(piece: str) -> None:
    full = stream(Broken(errno.ENOSPC, 3))
    with pytest.raises(OutputError, match="cannot write to standard output: no more"):
        Output(full, {}).write_data([piece])
    settled(full)
    closed = stream(Broken(errno.EPIPE, 3))
    with pytest.raises(OutputClosed):
        Output(closed, {}).write_text([piece])
    settled(closed)


def test_a_closed_pipe_stops_the_producer() -> None:
    closed, made = stream(Broken(errno.EPIPE)), []

    def pieces() -> object:
        for number in range(10):
            made.append(number)
            yield "x" * 100_000

    with pytest.raises(OutputClosed):
        Output(closed, {}).write_data(pieces())  # type: ignore[arg-type]
    assert made == [0]
    settled(closed)


def test_a_full_non_blocking_pipe_takes_everything() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.write(writer, filling := b"-" * 1_000_000)  # as much as it takes
    taken: list[bytes] = []

    def read() -> None:
        while piece := os.read(reader, 1000):
            taken.append(piece)

    pieces = [f"{number:09}\n" * 1000 for number in range(30)]
    thread = threading.Timer(0.05, read)
    thread.start()
    with open(writer, "w") as file:
        Output(whole(file), {}).write_data(pieces)
    thread.join(30)
    os.close(reader)
    assert b"".join(taken).lstrip(filling[:1]) == "".join(pieces).encode()


def test_the_reader_of_a_full_pipe_goes_away() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with open(writer, "w") as file:
        end = whole(file)
        threading.Timer(0.05, os.close, [reader]).start()
        with pytest.raises(OutputClosed):
            Output(end, {}).write_data(["x" * 1_000_000])


def test_a_late_error_of_the_file_system() -> None:
    """close() reports it, as NFS does; here the descriptor has been closed."""
    reader, writer = os.pipe()
    with closing(open(writer, "w", closefd=False)) as file:
        end = whole(file)
    os.close(reader)
    os.close(writer)
    with pytest.raises(OutputError, match="cannot write to standard output: Bad file descriptor"):
        Output(end, {}).write_data([])


def test_encodings() -> None:
    raw = io.BytesIO()
    latin = io.TextIOWrapper(raw, encoding="latin-1")
    output = Output(latin, {})
    output.write_data(["é…"])
    output.write_text(["é…"])
    assert raw.getvalue() == "é…".encode() + b"\xe9\\u2026"
    assert output.width is None and not output.terminal and not output.colour


def test_no_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(OutputError, match="there is no standard output"):
        Output()
    abandon(None)


@pytest.mark.parametrize(
    ("terminal", "environ", "colour"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "dumb"}, False),
        (True, {}, False),
        (False, {"TERM": "xterm"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": ""}, True),
        (False, {"FORCE_COLOR": "1"}, True),
        (True, {"TERM": "xterm", "FORCE_COLOR": "0"}, False),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colour(terminal: bool, environ: dict[str, str], colour: bool) -> None:
    assert wants_colour(terminal, environ) is colour
