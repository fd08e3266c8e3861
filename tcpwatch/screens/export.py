"""Writes what a table shows into a CSV file, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from tcpwatch.model.arrange import Arrangement
from tcpwatch.model.csv_text import csv_blocks


def export_name(now: float) -> str:
    """File name for an export at this moment (Unix seconds), in local time."""
    return time.strftime("tcpwatch-connections-%Y%m%d-%H%M%S.csv", time.localtime(now))


def write_csv(path: Path, shown: Arrangement, unknown: Collection[str]) -> None:
    """Write the live rows that are shown, in their order. Raises OSError, and then leaves no half a file."""
    order = shown.order[shown.order < len(shown.rows)]
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("x", encoding="utf-8", newline="") as file:
        try:
            file.writelines(csv_blocks(shown.rows, order, unknown))
            file.flush()
            unfinished.rename(path)
        except OSError:
            unfinished.unlink()
            raise


def start_export(
    path: Path, shown: Arrangement, unknown: Collection[str], done: Callable[[OSError | None], object]
) -> None:
    """Do it in the background; `done` is called there, with what went wrong."""

    def run() -> None:
        try:
            write_csv(path, shown, unknown)
        except OSError as error:
            done(error)
        else:
            done(None)

    threading.Thread(target=run, name="export", daemon=True).start()
