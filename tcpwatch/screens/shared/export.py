"""Exports the rows of a table to a file, in a background thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path


def export_name(now: float, what: str = "connections") -> str:
    """Return the file name for an export at this Unix time, in local time."""
    return time.strftime(f"tcpwatch-{what}-%Y%m%d-%H%M%S.csv", time.localtime(now))


def write_text(path: Path, blocks: Iterable[str]) -> None:
    """Write these blocks of text. Raises OSError, and then leaves no incomplete file."""
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("x", encoding="utf-8", newline="") as file:
        try:
            file.writelines(blocks)
            file.flush()
            unfinished.rename(path)
        except OSError:
            unfinished.unlink()
            raise


def start_export(path: Path, blocks: Iterable[str], done: Callable[[OSError | None], object]) -> None:
    """Write the file in a thread, which then calls `done` with the error or None."""

    def run() -> None:
        try:
            write_text(path, blocks)
        except OSError as error:
            done(error)
        else:
            done(None)

    threading.Thread(target=run, name="export", daemon=True).start()
