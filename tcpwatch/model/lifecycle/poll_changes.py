"""Polled: two samples, and what polls alone tell of the flows between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.lifecycle.transitions import Origin, transition_rows
from tcpwatch.model.sockets.join import Join
from tcpwatch.model.states import State
from tcpwatch.sample import Sample

TIME_WAIT_S = 60.0
"""TCP_TIMEWAIT_LEN of include/net/tcp.h."""
TIMER_S = 0.25
"""So much later than it was the beginning of a TIME_WAIT may look, by its timer: measured up to 0.19 s in a virtual
machine, where the clock that timers go by (jiffies) runs late (Linux 6.18)."""
_EARLY_S = 0.02
"""And so much earlier: HZ is 100 at least, and what is left is rounded."""
HALF_OPEN_TOLD = 1_000
"""Half-open connections that vanish in one step and are told of: a flood's would push all others out."""


@dataclass(frozen=True, eq=False)
class PollChanges:
    """One step, as the polls before and after it have it."""

    join: Join
    previous_join: Join
    sample: Sample
    previous: Sample

    @property
    def elapsed_s(self) -> float:
        """Between the two samples."""
        return self.sample.monotonic - self.previous.monotonic

    def was_half_open(self, was: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which of these rows of `before` were request sockets: in SYN_RCVD, and nobody's."""
        half_open: NDArray[np.bool_] = (self.previous.state[was] == State.SYN_RCVD) & (self.previous.inode[was] == 0)
        return half_open

    @cached_property
    def new(self) -> NDArray[np.intp]:
        """Rows that were not there before, without request sockets."""
        new, sample = self.join.new, self.sample
        request = (sample.state[new] == State.SYN_RCVD) & (sample.inode[new] == 0)
        full: NDArray[np.intp] = new[~request]
        return full

    def transitions(self, rows: NDArray[np.intp], old: NDArray[np.uint8] | int) -> NDArray[np.void]:
        """TRANSITIONs into their present states; TIME_WAIT's timer says when that began, nearly."""
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
        """Rows of `before` that are there no more: the first HALF_OPEN_TOLD request sockets, and all others."""
        closed = self.join.changed_previous[
            self.sample.state[self.join.changed] == State.CLOSED
        ]  # bound still, and no flow
        gone = np.concatenate((self.join.ended_previous, closed))
        half_open = self.was_half_open(gone)
        return gone[half_open][:HALF_OPEN_TOLD], gone[~half_open]
