"""Connections that wait in accept queues, since when, and how many the applications accepted.

A connection of a listener in ESTABLISHED, or in CLOSE_WAIT if its client has already closed, has no inode until the
application calls accept() (tried on Linux 6.18).
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
    """Aligned columns with one entry per waiting connection, in the order of the sample's rows."""

    row: NDArray[np.intp]
    cookie: NDArray[np.uint64]
    key: NDArray[np.int32]
    """Index in ListenerKeys.keys. Members of a SO_REUSEPORT group share it: the kernel does not report the member."""
    since: NDArray[np.float64]
    """Unix seconds of the first sample with the waiting connection, or earlier if tcp_info shows this."""
    arrival_seen: NDArray[np.bool_]
    """Whether it arrived after the first sample, so that `since` is exact to one interval."""
    client_closed: NDArray[np.bool_]
    """Whether the client has closed."""

    def oldest_by_key(self, keys: int) -> NDArray[np.float64]:
        """Return the `since` of the oldest connection of each key; infinity if none waits."""
        oldest = np.full(keys, np.inf)
        np.minimum.at(oldest, self.key, self.since)
        return oldest


AGE_FIELDS = ("last_data_sent", "last_data_recv", "last_ack_recv")
"""Fields of tcp_info that are no older than the connection.

The kernel lets `last_data_sent` begin with the connection (tcp_create_openreq_child), and a connection that was not
accepted has sent nothing: it is the connection's age.
"""


def waiting_connections(poll: Poll, waiting_since: Since) -> WaitingConnections:
    """Return the connections that wait to be accepted, none where the source does not report queues.

    `waiting_since` remembers those of the previous poll.
    """
    sample = poll.sample
    open_or_closed = (sample.state == State.ESTABLISHED) | (sample.state == State.CLOSE_WAIT)
    row = np.flatnonzero(open_or_closed & (sample.inode == 0) & sample.capabilities.queues)
    key = poll.join.listener_keys.lookup(sample, row)
    row, key = row[key != NO_LISTENER], key[key != NO_LISTENER]
    since = waiting_since.step(sample, row)
    client_closed = sample.state[row] == State.CLOSE_WAIT
    return WaitingConnections(row, sample.cookie[row], key, since, waiting_since.begin_seen, client_closed)


def accepted_by_key(poll: Poll, before: WaitingConnections, now: WaitingConnections) -> NDArray[np.intp]:
    """Return how many connections of each key were accepted since the previous sample.

    This is a minimum: connections that opened and closed between the two samples are missing.
    """
    sample, join = poll.sample, poll.join
    waited = find_sorted(sample.cookie, before.cookie)
    waited = waited[waited != NOT_FOUND]
    established = join.changed[join.old_state == State.SYN_RCVD]
    row = np.concatenate((waited, established, join.new))
    row = row[_ACCEPTED[sample.state[row]]]
    waiting = np.zeros(len(sample.cookie), np.bool_)
    waiting[now.row] = True
    row = row[~waiting[row]]
    key = join.listener_keys.lookup(sample, row)
    return np.bincount(key[key != NO_LISTENER], minlength=len(join.listener_keys.keys))


_ACCEPTED = np.ones(256, np.bool_)
_ACCEPTED[[State.LISTEN, State.SYN_SENT, State.SYN_RCVD, State.CLOSED]] = False
"""Whether a listener's connection in this state has been accepted, unless it is waiting."""
