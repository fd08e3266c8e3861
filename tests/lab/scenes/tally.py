"""Results of the callers of a scene: the kernel has no counter for a connect() that found no free port."""

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
    """Counts in shared memory: one of each result for each caller, by the caller's number in the scene."""

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
    """Make new counts, or open those of a file descriptor."""
    size = _FORM.size * len(MET) * _PARTS
    if fd is None:
        fd = os.memfd_create("tally")
        os.ftruncate(fd, size)
    try:
        with mmap.mmap(fd, size) as memory:
            yield Tally(fd, memory)
    finally:
        os.close(fd)
