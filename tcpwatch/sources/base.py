"""Where samples come from: what a source is, and what every source of this host reads in the same way."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Protocol

from tcpwatch.kernel.proc import counters
from tcpwatch.sample import Sample, SourceInfo


class SourceError(Exception):
    """No sample can be had; the text is one line that says why and what to do."""


class Source(Protocol):
    """Delivers samples. Not thread-safe: one thread calls it."""

    info: SourceInfo

    def sample(self, watched: Iterable[int] = ()) -> Sample:
        """The facts of this moment; tcp_info for the watched cookies. Raises SourceError."""

    def close(self) -> None:
        """Give back what is held."""


def privilege() -> Literal["root", "user"]:
    """Whether every process may be looked into."""
    return "root" if os.geteuid() == 0 else "user"


def try_read_counters(proc_net: Path = Path("/proc/net")) -> tuple[dict[str, int], tuple[str, ...]]:
    """The kernel's counters, and in words why there are none."""
    try:
        return counters.read(proc_net), ()
    except OSError as error:
        return {}, (f"no counters ({error.filename}: {error.strerror})",)
