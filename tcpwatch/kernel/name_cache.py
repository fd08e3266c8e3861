"""NameCache: names of users (getpwuid(3)) and of interfaces (if_indextoname(3)), for whole columns of numbers."""

from __future__ import annotations

import pwd
import socket
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tcpwatch.units.printable import printable


class NameCache:
    """Names of users and interfaces, each looked up once."""

    def __init__(self) -> None:
        self._users: dict[int, str] = {}
        self._interfaces: dict[int, str] = {}

    def users(self, uids: NDArray[np.uint32]) -> dict[int, str]:
        """Return uid → name for the uids of a column; a uid without a name is absent."""
        return _named(uids, self._users, _user_name)

    def interfaces(self, indices: NDArray[np.uint32]) -> dict[int, str]:
        """Return interface index → name for the indices of a column; 0 and removed interfaces are absent."""
        return _named(indices, self._interfaces, _interface_name)


def _named(numbers: NDArray[np.uint32], known: dict[int, str], look_up: Callable[[int], str | None]) -> dict[int, str]:
    for number in _distinct(numbers):
        if number not in known and (name := look_up(number)):
            known[number] = name
    return known


def _distinct(numbers: NDArray[np.uint32]) -> list[int]:
    """Return the distinct values; counting costs a tenth of sorting, and these numbers are mostly small."""
    numbers = np.ascontiguousarray(numbers)
    if len(numbers) and int(numbers.max()) < 1 << 17:
        return [int(number) for number in np.flatnonzero(np.bincount(numbers))]
    return [int(number) for number in np.unique(numbers)]


def _user_name(uid: int) -> str | None:
    try:
        return printable(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return None


def _interface_name(index: int) -> str | None:
    try:
        return printable(socket.if_indextoname(index)) if index else None
    except OSError:
        return None  # removed in the meantime
