"""What callers of a scene have met with: no counter of the kernel tells of a connect() that found no port."""

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MET = ("connected", "no_port", "refused")
"""connect() done, or failed with EADDRNOTAVAIL, or in any other way."""

_FORM = struct.Struct("=Q")
_PARTS = 64


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts in memory that processes share, one of each kind for each caller, by its number in the scene."""

    fd: int
    memory: mmap.mmap

    def add(self, caller: int, met: str) -> None:
        _FORM.pack_into(self.memory, self._at(caller, met), self.count(caller, met) + 1)

    def count(self, caller: int, met: str) -> int:
        (count,) = _FORM.unpack_from(self.memory, self._at(caller, met))
        assert isinstance(count, int)
        return count

    def _at(self, caller: int, met: str) -> int:
        return _FORM.size * (caller * len(MET) + MET.index(met))


@contextmanager
def tally(fd: int | None = None) -> Iterator[Tally]:
    """A new one, or that of a file descriptor."""
    size = _FORM.size * len(MET) * _PARTS
    if fd is None:
        fd = os.memfd_create("tally")
        os.ftruncate(fd, size)
    try:
        with mmap.mmap(fd, size) as memory:
            yield Tally(fd, memory)
    finally:
        os.close(fd)
