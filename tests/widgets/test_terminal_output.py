"""TerminalOutput with a pipe in the place of the terminal."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

import tcpwatch
from tcpwatch.widgets.terminal_output import TerminalOutput, encode


@pytest.fixture
def pipe() -> Iterator[tuple[int, TerminalOutput]]:
    reader, writer = os.pipe()
    yield reader, TerminalOutput(writer, "utf-8", {})
    os.close(reader)  # ends a write that still blocks
    os.close(writer)


def read(reader: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(reader, size - len(data))
    return data


def test_a_terminal_that_is_not_read_blocks_nobody(pipe: tuple[int, TerminalOutput]) -> None:
    reader, output = pipe
    frame = "x" * 1_000_000
    assert output.write(frame) == len(frame)
    assert not output.finish(0.01)
    idle = threading.Event()
    assert not output.call_when_idle(idle.set)
    assert read(reader, len(frame)) == frame.encode()
    assert output.finish(20) and idle.wait(20)
    assert output.call_when_idle(idle.clear) and idle.is_set(), "called once, and not if nothing waits"


def test_what_was_not_taken_is_dropped(pipe: tuple[int, TerminalOutput]) -> None:
    reader, output = pipe
    output.write("x" * 1_000_000)
    output.drop()
    output.write("end")
    data = b""
    while not data.endswith(b"end"):
        data += os.read(reader, 65_536)
    assert len(data) < 200_000
    assert data.rstrip(b"x")[-4:] == b"\x18end", "an escape sequence that was cut off is cancelled"
    assert output.finish(20)
    output.drop()
    output.write("again")
    assert read(reader, 5) == b"again", "nothing was cut off"


def test_a_closed_terminal_is_no_failure() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    output = TerminalOutput(writer, "utf-8", {})
    output.write("lost")
    assert output.finish(20)
    os.close(writer)


def test_every_character_of_a_screen_has_a_cell_of_ascii() -> None:
    texts = [path.read_text() for path in Path(tcpwatch.__file__).parent.rglob("*.py")]
    drawn = {char for text in texts for char in text if not char.isascii() and cell_len(char) == 1} - set("±")
    assert drawn >= set("│█▌→≥×")
    for char in sorted(drawn):
        assert encode(char, "ascii") not in (b"?", b""), char
        assert len(encode(char, "iso8859-1")) == 1, char
        shown = encode(char, "utf-8", console=True).decode()
        assert cell_len(shown) == 1 and shown.encode("cp437"), (char, shown)


def test_texts_keep_their_width() -> None:
    assert encode("é ≥ 3/s │ 已", "iso8859-1") == b"\xe9 > 3/s | ??"
    assert encode("é ≥ 3/s │ 已", "utf-8") == "é ≥ 3/s │ 已".encode()
    assert encode("▁▄█ ▍▌ → ≥", "utf-8", console=True).decode() == "_▄█ ▌▌ > ≥"
