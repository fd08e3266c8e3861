"""The descriptors of one process: /proc/PID/fd, where a socket is a link `socket:[inode]` (proc(5)).

Files registered with an io_uring need no descriptor: /proc/PID/fdinfo of the ring lists them, since Linux 6.14 by path.

Reading a link takes about 4 µs and listing a name less than 1 µs (Linux 6.18). Therefore a known table is listed again
and only its doubtful part is read, in slices, between which the caller may stop.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from itertools import islice
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.group_by import run_starts
from tcpwatch.arrays.lookup import is_in_sorted
from tcpwatch.kernel.release import is_since

Inodes = NDArray[np.uint32]

SLICE = 1000
"""Names listed, or links read, at a time: 1 to 5 ms."""
_REGISTERED, _EMPTY = re.compile(rb"^ *\d+: socket:\[(\d+)\]$", re.MULTILINE), b"UserFiles:\t0\n"
"""Lines of the part UserFiles (io_uring/fdinfo.c)."""
READS_RINGS = is_since((6, 14))
"""Older kernels print d_iname there, without inodes: a user could name a file like the socket of another one."""
_NOTHING: Inodes = np.empty(0, np.uint32)
_RING_SHARE = 0.01
"""Largest share of time in which the lists of rings are read: the kernel locks the ring meanwhile."""
_ROUNDS = 8
"""A thorough scan also reads one in this many of the links that are probably unchanged, in turn."""


class Descriptors:
    """One descriptor table as far as it was read.

    `inodes` (0: no socket, or not read yet) are aligned with the descriptor numbers `fds` (ascending); `registered` are
    those of the sockets registered with an io_uring. `changes` counts how often either changed.
    """

    __slots__ = (
        "_offset", "_path", "_rings", "_rings_due", "_round", "_used", "changes", "fds", "inodes", "registered",
    )  # fmt: skip

    def __init__(self, path: str) -> None:
        """`path` is /proc/PID/fd or /proc/PID/task/TID/fd."""
        self._path = path
        self._round = self._offset = 0
        self._rings: dict[int, Inodes] = {}
        self._rings_due = 0.0
        self.registered: Inodes = np.empty(0, np.uint32)
        self._used: NDArray[np.bool_] = np.empty(0, np.bool_)
        self.changes = 0
        self.fds: NDArray[np.int32] = np.empty(0, np.int32)
        self.inodes: Inodes = np.empty(0, np.uint32)

    def clear(self) -> None:
        """Remove all descriptors."""
        self._keep(np.empty(0, np.int32))
        self._rings, self.registered = {}, self.registered[:0]

    def scan(self, in_sample: Inodes, thorough: bool) -> Generator[Inodes]:
        """List the table and read its doubtful part; yields the inodes found in each slice.

        `in_sample` are the inodes of the sockets in the sample, ascending. `thorough` also reads an eighth of the
        rest, so that no wrong inode survives eight such scans. Raises FileNotFoundError or ProcessLookupError for a
        process that has ended, and PermissionError. The caller may stop at any yield; what was read is kept.
        """
        directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            unseen = self._keep((yield from _listed(directory)))
            doubtful = self._doubtful(unseen, in_sample, thorough)
            for start in range(0, len(doubtful), SLICE):
                part = doubtful[start : start + SLICE]
                inodes, rings = _read(directory, self.fds[part].tolist())
                self._rings.update({ring: self._rings.get(ring, _NOTHING) for ring in rings})
                self._learn(part, inodes)
                yield inodes
        finally:
            os.close(directory)

    def scan_registered(self) -> Generator[Inodes]:
        """Read which sockets are registered with the rings that `scan` found; yields the inodes of each ring.

        It does nothing if it was called a moment ago and took long.
        """
        begin = perf_counter()
        if not self._rings or begin < self._rings_due:
            return
        for ring in sorted(self._rings):
            try:
                with open(f"{self._path}info/{ring}", "rb") as file:
                    text = file.read()
            except OSError:  # the ring was closed, or the process has ended
                del self._rings[ring]
                continue
            found = _REGISTERED.findall(text)
            if found or _EMPTY in text:  # neither if the ring was in use: then the kernel lists nothing
                self._rings[ring] = np.array(list(map(_inode, found)), np.uint32)
            yield self._rings[ring]
        registered = np.concatenate([np.empty(0, np.uint32), *self._rings.values()])
        if not np.array_equal(registered, self.registered):
            self.changes += 1
            self.registered = registered
        end = perf_counter()
        self._rings_due = end + (end - begin) / _RING_SHARE

    def _keep(self, listed: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Replace the numbers by `listed`, keeping the inodes of known ones; return which are new."""
        known, still_open = is_in_sorted(self.fds, listed), is_in_sorted(listed, self.fds)
        if self.inodes[~still_open].any():
            self.changes += 1
        inodes, used = np.zeros(len(listed), np.uint32), np.zeros(len(listed), np.bool_)
        inodes[known], used[known] = self.inodes[still_open], self._used[still_open]
        self.fds, self.inodes, self._used = listed, inodes, used
        return ~known

    def _doubtful(self, unseen: NDArray[np.bool_], in_sample: Inodes, thorough: bool) -> NDArray[np.intp]:
        """Return the indices of the descriptors to read, most doubtful first.

        1. New numbers.
        2. Numbers whose socket was in an earlier sample and is not in this one: they were probably closed and used
           again, as Linux assigns the lowest free number.
        3. Other numbers that are not in the sample (files, sockets of other kinds or network namespaces): one slice per
           scan, in turn, as there may be very many.
        4. In a thorough scan, an eighth of the others.
        """
        in_use = is_in_sorted(in_sample, self.inodes)
        self._used |= in_use
        others = np.flatnonzero(~(unseen | self._used))
        if len(others) > SLICE:
            others = np.roll(others, -self._offset)[:SLICE]
            self._offset += SLICE
        parts = [np.flatnonzero(unseen), np.flatnonzero(self._used & ~in_use), others]
        if thorough:
            parts.append(np.flatnonzero(in_use & (self.fds % _ROUNDS == self._round)))
            self._round = (self._round + 1) % _ROUNDS
        return np.concatenate(parts)

    def _learn(self, part: NDArray[np.intp], inodes: Inodes) -> None:
        self._used[part] = False  # set again if the inode is in the next sample
        if not np.array_equal(self.inodes[part], inodes):
            self.changes += 1
            self.inodes[part] = inodes


def unique_sorted(values: Inodes) -> Inodes:
    """Return the distinct values, ascending (np.unique hashes first, which is four times slower here)."""
    ascending: Inodes = np.sort(values)
    return ascending[run_starts(ascending)]


def _listed(directory: int) -> Generator[Inodes, None, NDArray[np.int32]]:
    """Return the descriptor numbers, ascending; yields an empty array after each full slice."""
    numbers: list[int] = []
    with os.scandir(directory) as entries:
        while part := [entry.name for entry in islice(entries, SLICE)]:
            numbers += [int(name) for name in part if name.isdecimal() and len(name) < 10]
            if len(part) == SLICE:
                yield np.empty(0, np.uint32)
    return np.sort(np.array(numbers, np.int32))


def _inode(digits: str | bytes) -> int:
    """Return the number, or 0 if these are not the digits of one of 32 bits."""
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= 10
    return number if is_number and (number := int(digits)) < 1 << 32 else 0


def _read(directory: int, fds: list[int]) -> tuple[Inodes, list[int]]:
    """Return the socket inode of each descriptor, and the descriptors of rings.

    The inode is 0 if it is not a socket or was closed in the meantime.
    """
    inodes, rings = np.zeros(len(fds), np.uint32), []
    for position, fd in enumerate(fds):
        try:
            target = os.readlink(str(fd), dir_fd=directory)
        except FileNotFoundError:
            continue  # closed since it was listed
        if target.startswith("socket:["):
            inodes[position] = _inode(target[8:-1])
        elif target == "anon_inode:[io_uring]" and READS_RINGS:
            rings.append(fd)
    return inodes, rings
