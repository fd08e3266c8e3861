"""NameCache: names of users (getpwuid(3)) and of interfaces (if_indextoname(3)), for whole columns of numbers."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from time import monotonic
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tcpwatch.blocking import Unanswered
from tcpwatch.kernel.user_names import user_name
from tcpwatch.units.printable import printable

_LOOKUPS_S = 0.2
"""Longest time for new names in one call; the others follow in the next ones."""


class NameCache:
    """Names of users and interfaces, each looked up once. What it has returned never changes."""

    def __init__(self) -> None:
        self._users: Mapping[int, str] = {}
        self._interfaces: Mapping[int, str] = {}

    def users(self, uids: NDArray[np.uint32]) -> Mapping[int, str]:
        """Return uid → name for the uids of a column; a uid is absent without a name, or while it is not known."""
        self._users = _named(uids, self._users, _user_name)
        return self._users

    def interfaces(self, indices: NDArray[np.uint32]) -> Mapping[int, str]:
        """Return interface index → name for the indices of a column; 0 and removed interfaces are absent."""
        self._interfaces = _named(indices, self._interfaces, _interface_name)
        return self._interfaces


def _named(
    numbers: NDArray[np.uint32], known: Mapping[int, str], look_up: Callable[[int], str | None]
) -> Mapping[int, str]:
    """Return the known names if nothing is new, otherwise a copy with the new ones."""
    new: dict[int, str] = {}
    deadline = monotonic() + _LOOKUPS_S
    for number in _distinct(numbers):
        if number in known:
            continue
        if name := look_up(number):
            new[number] = name
        if monotonic() > deadline:
            break
    return MappingProxyType({**known, **new}) if new else known


def _distinct(numbers: NDArray[np.uint32]) -> list[int]:
    """Return the distinct values; counting costs a tenth of sorting, and these numbers are mostly small."""
    numbers = np.ascontiguousarray(numbers)
    if len(numbers) and int(numbers.max()) < 1 << 17:
        return [int(number) for number in np.flatnonzero(np.bincount(numbers))]
    return [int(number) for number in np.unique(numbers)]


def _user_name(uid: int) -> str | None:
    try:
        return user_name(uid)
    except Unanswered:
        return None


def _interface_name(index: int) -> str | None:
    try:
        return printable(socket.if_indextoname(index)) if index else None
    except OSError:
        return None  # removed in the meantime
