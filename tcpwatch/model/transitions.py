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


class What(enum.IntEnum):
    """What happened; fits a uint8 column."""

    STATE = 1
    RETRANSMITTED = 2
    RESET_SENT = 3
    RESET_RECEIVED = 4
    DROPPED = 5


TRANSITION = np.dtype(
    [
        ("time", "=f8"),
        ("cookie", "=u8"),
        ("slack", "=f4"),
        ("reason", "=u2"),
        ("what", "u1"),
        ("old", "u1"),
        ("new", "u1"),
        ("origin", "u1"),
    ]
)
"""time: Unix seconds at which it was known; slack: so much earlier it may have been (the time between two polls; 0
where it is exact); reason: the kernel's number for a reset or a drop, 0 where not told; old, new: states, 0 for none
(new: the table has it no more); CLOSED (7) where a full socket ended, which may go on as a small one.
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
    what: What = What.STATE
    reason: int = 0
    """Of a reset or a drop, as the kernel numbers it; 0 where not told."""


def made(
    time: NDArray[np.float64] | float,
    cookie: NDArray[np.uint64],
    old: NDArray[np.uint8] | int,
    new: NDArray[np.uint8] | int,
    origin: Origin,
    slack: NDArray[np.float32] | float = 0.0,
    what: NDArray[np.uint8] | int = What.STATE,
    reason: NDArray[np.uint16] | int = 0,
) -> NDArray[np.void]:
    """Rows of TRANSITION, one for each cookie."""
    rows = np.empty(len(cookie), TRANSITION)
    values = {"time": time, "cookie": cookie, "old": old, "new": new, "origin": origin, "slack": slack}
    for name, value in {**values, "what": what, "reason": reason}.items():
        rows[name] = value
    return rows


def of_flows(chunks: Sequence[NDArray[np.void]], cookies: Collection[int]) -> dict[int, tuple[Transition, ...]]:
    """What is still known of each of these flows, in the order of time; empty where nothing is.

    10 ms for a million rows, however many flows are asked for.
    """
    wanted = np.fromiter(cookies, np.uint64, len(cookies))
    low = np.zeros(1 << 16, np.bool_)
    low[wanted.astype(np.uint16)] = True
    found: dict[int, list[Transition]] = {int(cookie): [] for cookie in cookies}
    near = [np.flatnonzero(low[chunk["cookie"].astype(np.uint16)]) for chunk in chunks]
    rows = np.concatenate([chunk[at] for chunk, at in zip(chunks, near, strict=True)] or [np.empty(0, TRANSITION)])
    for row in rows[np.isin(rows["cookie"], wanted)]:
        found[int(row["cookie"])].append(_transition(row))
    return {cookie: tuple(sorted(each, key=lambda one: one.time)) for cookie, each in found.items()}


def between(chunks: Sequence[NDArray[np.void]], begin: float, end: float) -> NDArray[np.void]:
    """TRANSITION rows with begin <= time < end (Unix seconds), in the order of time."""
    parts = [chunk[(chunk["time"] >= begin) & (chunk["time"] < end)] for chunk in chunks]
    rows = np.concatenate(parts) if parts else np.empty(0, TRANSITION)
    return rows[np.argsort(rows["time"], kind="stable")]


def _transition(row: np.void) -> Transition:
    old, new = int(row["old"]), int(row["new"])
    return Transition(
        float(row["time"]),
        State(old) if old else None,
        State(new) if new else None,
        Origin(int(row["origin"])),
        float(row["slack"]),
        What(int(row["what"])),
        int(row["reason"]),
    )
