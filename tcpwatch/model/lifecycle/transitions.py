"""Transitions: the bounded, append-only store of what happened to flows; the story of each is read from it."""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.states import State


class Origin(enum.IntEnum):
    """How something is known; fits a uint8 column."""

    POLL = 1
    """Two samples differ: it happened within the time between them."""
    EVENT = 2
    """A destroy event: some milliseconds late at most."""
    TRACE = 3
    """The kernel told it with its own time, microseconds."""


class TransitionKind(enum.IntEnum):
    """What happened; fits a uint8 column."""

    STATE = 1
    RETRANSMITTED = 2
    RESET_SENT = 3
    RESET_RECEIVED = 4
    DROPPED = 5
    ERROR = 6
    """The application was told an error."""


TRANSITION = np.dtype(
    [
        ("time", "=f8"),
        ("cookie", "=u8"),
        ("slack", "=f4"),
        ("reason", "=u2"),
        ("kind", "u1"),
        ("old", "u1"),
        ("new", "u1"),
        ("origin", "u1"),
    ]
)
"""time: Unix seconds at which it was known; slack: so much earlier it may have been (the time between two polls; 0
where it is exact); reason: the kernel's number for a reset or a drop, an error's errno, 0 where not told; old, new:
states, 0 for none (new: the table has it no more); CLOSED (7) where a full socket ended, which may go on as a small
one.
"""


@dataclass(frozen=True, slots=True)
class Transition:
    """One thing that happened: `old` is None where it is not known, `new` None where the flow had gone."""

    time: float
    """Unix seconds at which it was known."""
    old: State | None
    new: State | None
    origin: Origin
    slack_s: float = 0.0
    """So much earlier it may have been."""
    kind: TransitionKind = TransitionKind.STATE
    reason: int = 0
    """Of a reset or a drop, as the kernel numbers it; of an error its errno; 0 where not told."""


def transition_rows(
    time: NDArray[np.float64] | float,
    cookie: NDArray[np.uint64],
    old: NDArray[np.uint8] | int,
    new: NDArray[np.uint8] | int,
    origin: Origin,
    slack: NDArray[np.float32] | float = 0.0,
    what: NDArray[np.uint8] | int = TransitionKind.STATE,
    reason: NDArray[np.uint16] | int = 0,
) -> NDArray[np.void]:
    """Rows of TRANSITION, one for each cookie."""
    rows = np.empty(len(cookie), TRANSITION)
    values = {"time": time, "cookie": cookie, "old": old, "new": new, "origin": origin, "slack": slack}
    for name, value in {**values, "kind": what, "reason": reason}.items():
        rows[name] = value
    return rows


_BATCH = np.uint64(12)
"""The kernel gives cookies out in batches of 4,096 for each processor (COOKIE_LOCAL_BATCH in linux/cookie.h)."""


class TransitionIndex:
    """Finds what was told of flows among many chunks, and remembers which batches of cookies are in each of them."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[NDArray[np.void], int, frozenset[int]]] = {}
        """Place in memory → the array that is there, its rows then, and the batches. Replaced as a whole: two threads
        may look at once."""

    def find(self, chunks: Sequence[NDArray[np.void]], cookies: Collection[int]) -> dict[int, tuple[Transition, ...]]:
        """What `chunks` still know of each of these flows, in the order of time; empty where that is nothing.

        Some ms for forty flows among a million rows; new chunks cost 0.2 ms each, once.
        """
        wanted = np.fromiter(cookies, np.uint64, len(cookies))
        batches = frozenset((wanted >> _BATCH).tolist())
        found: dict[int, list[Transition]] = {int(cookie): [] for cookie in cookies}
        for chunk, has in zip(chunks, self._batches(chunks), strict=True):
            if not has.isdisjoint(batches):
                for row in chunk[np.isin(chunk["cookie"], wanted)]:
                    found[int(row["cookie"])].append(_transition(row))
        return {cookie: tuple(sorted(each, key=lambda one: one.time)) for cookie, each in found.items()}

    def _batches(self, chunks: Sequence[NDArray[np.void]]) -> list[frozenset[int]]:
        before, now, told = self._known, dict[int, tuple[NDArray[np.void], int, frozenset[int]]](), []
        for chunk in chunks:
            whole = chunk if chunk.base is None else chunk.base
            old = before.get(id(whole))
            if old is None or old[0] is not whole or old[1] != len(chunk):
                old = whole, len(chunk), frozenset((chunk["cookie"] >> _BATCH).tolist())
            now[id(whole)] = old
            told.append(old[2])
        self._known = now
        return told


def _transition(row: np.void) -> Transition:
    old, new = int(row["old"]), int(row["new"])
    return Transition(
        float(row["time"]),
        State(old) if old else None,
        State(new) if new else None,
        Origin(int(row["origin"])),
        float(row["slack"]),
        TransitionKind(int(row["kind"])),
        int(row["reason"]),
    )
