"""Waiting: the connections that sit in accept queues, since when; and how many were accepted meanwhile.

A connection of a listener that is established, or closed by its client already (CLOSE_WAIT), and has no inode has not
been given to the application by accept() yet (tried on Linux 6.18).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.model.listeners.listener_keys import NO_LISTENER
from tcpwatch.model.poll import Poll
from tcpwatch.model.sockets.since import Since
from tcpwatch.model.states import State


@dataclass(frozen=True, slots=True, eq=False)
class WaitingConnections:
    """Aligned columns, one entry a waiting connection, in the order of the sample's rows."""

    row: NDArray[np.intp]
    cookie: NDArray[np.uint64]
    key: NDArray[np.int32]
    """Index in Listening.keys: members of a SO_REUSEPORT group share it, and the kernel does not tell whose it is."""
    since: NDArray[np.float64]
    """Unix seconds of the first sample that had it waiting, or earlier where its tcp_info tells so."""
    arrival_seen: NDArray[np.bool_]
    """It came after our first sample, so that `since` is its beginning, to one interval."""
    client_closed: NDArray[np.bool_]
    """The client has closed already."""

    def oldest_by_key(self, keys: int) -> NDArray[np.float64]:
        """For each key the time since when the oldest has waited; infinity where nothing waits."""
        found = np.full(keys, np.inf)
        np.minimum.at(found, self.key, self.since)
        return found


def no_waiting_connections() -> WaitingConnections:
    """Of a source that does not tell."""
    none = np.empty(0, np.intp)
    flags = none.astype(np.bool_)
    return WaitingConnections(
        none, none.astype(np.uint64), none.astype(np.int32), none.astype(np.float64), flags, flags
    )


AGE_FIELDS = ("last_data_sent", "last_data_recv", "last_ack_recv")
"""Fields of tcp_info that are no older than the connection.

The kernel lets `last_data_sent` begin with the connection (tcp_create_openreq_child), and a connection that was not
accepted has sent nothing: it is the connection's age.
"""


def waiting_connections(poll: Poll, waiting_since: Since) -> WaitingConnections:
    """Return the connections that wait to be accepted; `waiting_since` remembers those of the previous poll."""
    sample = poll.sample
    open_or_closed = (sample.state == State.ESTABLISHED) | (sample.state == State.CLOSE_WAIT)
    row = np.flatnonzero(open_or_closed & (sample.inode == 0))
    key = poll.join.listener_keys.lookup(sample, row)
    row, key = row[key != NO_LISTENER], key[key != NO_LISTENER]
    since = waiting_since.step(sample, row)
    client_closed = sample.state[row] == State.CLOSE_WAIT
    return WaitingConnections(row, sample.cookie[row], key, since, waiting_since.begin_seen, client_closed)


def accepted_by_key(poll: Poll, before: WaitingConnections, now: WaitingConnections) -> NDArray[np.intp]:
    """How many connections accept() gave away since the sample before, for each key, as far as the samples tell.

    Connections that came and went between the two are not among them: it is the least that happened.
    """
    sample, joined = poll.sample, poll.join
    at = find_sorted(sample.cookie, before.cookie)
    at = at[at != NOT_FOUND]
    fresh = joined.changed[joined.old_state == State.SYN_RCVD]
    row = np.concatenate((at, fresh, joined.new))
    row = row[_ACCEPTED[sample.state[row]]]
    still = np.zeros(len(sample.cookie), np.bool_)
    still[now.row] = True
    row = row[~still[row]]
    key = poll.join.listener_keys.lookup(sample, row)
    return np.bincount(key[key != NO_LISTENER], minlength=len(joined.listener_keys.keys))


_ACCEPTED = np.ones(256, np.bool_)
_ACCEPTED[[State.LISTEN, State.SYN_SENT, State.SYN_RCVD, State.CLOSED]] = False
"""States in which a connection of a listener, if it does not wait, has been accepted."""
