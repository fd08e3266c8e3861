"""PollChanges: what two samples show of the connections that appeared, changed or vanished between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.lifecycle.transitions import Origin, transition_rows
from tcpwatch.model.sockets.join import Join
from tcpwatch.model.states import TIME_WAIT_S, State
from tcpwatch.sample import Sample

TIMER_S = 0.25
"""By how much the timer of a TIME_WAIT may make its begin look later than it was. Up to 0.19 s were measured in a
virtual machine, where the clock of the timers (jiffies) runs late (Linux 6.18)."""
_EARLY_S = 0.02
"""By how much it may make it look earlier: HZ is at least 100, and the remaining time is rounded."""
HALF_OPEN_KEPT = 1_000
"""How many vanished half-open connections are kept per step: those of a flood would displace all others."""


@dataclass(frozen=True, eq=False)
class PollChanges:
    """The previous and the present poll of one step."""

    join: Join
    previous_join: Join
    sample: Sample
    previous: Sample

    @property
    def elapsed_s(self) -> float:
        """Between the two samples."""
        return self.sample.monotonic - self.previous.monotonic

    def was_half_open(self, at: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return which of these previous rows were request sockets: in SYN_RCVD, without an inode."""
        half_open: NDArray[np.bool_] = (self.previous.state[at] == State.SYN_RCVD) & (self.previous.inode[at] == 0)
        return half_open

    @cached_property
    def new(self) -> NDArray[np.intp]:
        """Indices of rows that appeared, without request sockets."""
        new, sample = self.join.new, self.sample
        request = (sample.state[new] == State.SYN_RCVD) & (sample.inode[new] == 0)
        full: NDArray[np.intp] = new[~request]
        return full

    def transitions(self, rows: NDArray[np.intp], old: NDArray[np.uint8] | int) -> NDArray[np.void]:
        """Return TRANSITIONs to the present states of these rows; the timer of a TIME_WAIT shows when it began."""
        sample = self.sample
        state = sample.state[rows]
        time, slack = np.full(len(rows), sample.time), np.full(len(rows), self.elapsed_s, np.float32)
        waits = np.flatnonzero(state == State.TIME_WAIT)
        left_s = sample.table["idiag_expires"][rows[waits]] / 1000.0
        begun = sample.time - (TIME_WAIT_S - left_s) + _EARLY_S
        time[waits] = np.clip(begun, sample.time - self.elapsed_s, sample.time)
        if sample.begin_monotonic_s:
            slack[waits] = min(self.elapsed_s, TIMER_S) + sample.monotonic - sample.begin_monotonic_s
        return transition_rows(time, sample.cookie[rows], old, state, Origin.POLL, slack)

    @cached_property
    def vanished(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Indices of previous rows that vanished: the first HALF_OPEN_KEPT request sockets, and all others."""
        # A CLOSED socket is still bound, but not a connection any more.
        closed = self.join.changed_previous[self.sample.state[self.join.changed] == State.CLOSED]
        vanished = np.concatenate((self.join.ended_previous, closed))
        half_open = self.was_half_open(vanished)
        return vanished[half_open][:HALF_OPEN_KEPT], vanished[~half_open]
