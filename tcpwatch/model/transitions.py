"""Transitions: the bounded, append-only ring of changes of state; the story of each flow is read from it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.states import State


class Origin(enum.IntEnum):
    """How a change of state is known; fits a uint8 column."""

    POLL = 1


@dataclass(frozen=True, slots=True)
class Transition:
    """One change: `old` is None where the flow was seen for the first time, `new` None where it had gone."""

    time: float
    """Unix seconds of the first sample after the change."""
    old: State | None
    new: State | None
    origin: Origin


_ROW = np.dtype([("time", "f8"), ("cookie", "u8"), ("old", "u1"), ("new", "u1"), ("origin", "u1")])


class Transitions:
    """The last `capacity` changes; 19 bytes each."""

    def __init__(self, capacity: int = 1 << 18) -> None:
        self._ring = np.zeros(capacity, _ROW)
        self._written = 0

    def __len__(self) -> int:
        return min(self._written, len(self._ring))

    def add(
        self,
        time: float,
        cookie: NDArray[np.uint64],
        old: NDArray[np.uint8],
        new: NDArray[np.uint8],
        origin: Origin,
    ) -> None:
        """Append changes of equal length; state 0 stands for none. Of more than fit, the last ones stay."""
        size = len(self._ring)
        kept = slice(max(0, len(cookie) - size), None)
        places = (self._written + np.arange(len(cookie))[kept]) % size
        for name, values in (("cookie", cookie), ("old", old), ("new", new)):
            self._ring[name][places] = values[kept]
        self._ring["time"][places] = time
        self._ring["origin"][places] = origin
        self._written += len(cookie)

    def of(self, cookie: int) -> tuple[Transition, ...]:
        """What is still known of one flow, oldest first."""
        found = np.flatnonzero(self._ring["cookie"][: len(self)] == np.uint64(cookie))
        oldest_first = sorted(found.tolist(), key=lambda at: (at - self._written) % len(self._ring))
        return tuple(_transition(self._ring[at]) for at in oldest_first)


def _transition(row: np.void) -> Transition:
    old, new = int(row["old"]), int(row["new"])
    return Transition(
        float(row["time"]),
        State(old) if old else None,
        State(new) if new else None,
        Origin(int(row["origin"])),
    )
