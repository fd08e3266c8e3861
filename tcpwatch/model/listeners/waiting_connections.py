"""Connections that wait in accept queues, since when, and how many the applications accepted.

A connection of a listener in ESTABLISHED, or in CLOSE_WAIT if its client has already closed, has no inode until the
application calls accept(). With TCP Fast Open (RFC 7413) it waits already in SYN_RCVD, as a full socket, and may be
accepted there. One that is reset while it waits keeps its place in the queue, but the kernel no longer lists it (all
tried on Linux 6.18).
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
    without_listener: int = 0
    """Connections without an inode whose listener is not known."""

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


def waiting_connections(poll: Poll, waiting_since: Since, fast_open: NDArray[np.intp]) -> WaitingConnections:
    """Return the connections that wait to be accepted, none where the source does not report queues.

    `waiting_since` remembers those of the previous poll; `fast_open` is that of HalfOpenSockets.
    """
    sample = poll.sample
    states = (State.ESTABLISHED, State.CLOSE_WAIT) if sample.capabilities.queues else ()
    row = sample.rows_in(*states, has_inode=False)
    if len(fast_open):
        row = np.union1d(row, fast_open)
    key = poll.join.listener_keys.lookup(sample, row)
    found = len(row)
    row, key = row[key != NO_LISTENER], key[key != NO_LISTENER]
    since = waiting_since.step(sample, row)
    client_closed = sample.state[row] == State.CLOSE_WAIT
    return WaitingConnections(
        row, sample.cookie[row], key, since, waiting_since.begin_seen, client_closed, found - len(row)
    )


def accepted_by_key(poll: Poll, before: WaitingConnections, now: WaitingConnections) -> NDArray[np.intp]:
    """Return how many connections of each key are known to have been accepted since the previous sample.

    This is a minimum: connections that opened and closed between the two samples are missing.
    """
    sample, join = poll.sample, poll.join
    fresh = np.concatenate((_established(poll), join.new))
    if not len(fresh) and not len(before.cookie):
        return np.zeros(len(join.listener_keys.keys), np.intp)
    accepted = np.zeros(len(sample.cookie), np.bool_)
    accepted[fresh[_ACCEPTED[sample.state[fresh]]]] = True
    waited = find_sorted(sample.cookie, before.cookie)
    waited = waited[waited != NOT_FOUND]
    accepted[waited[_ACCEPTED[sample.state[waited]] | (sample.state[waited] == State.SYN_RCVD)]] = True
    accepted[now.row] = False
    key = join.listener_keys.lookup(sample, np.flatnonzero(accepted))
    count: NDArray[np.intp] = np.bincount(key[key != NO_LISTENER], minlength=len(join.listener_keys.keys))
    count += _freed_by_key(poll, before)
    return count


_ACCEPTED = np.ones(256, np.bool_)
_ACCEPTED[[State.LISTEN, State.SYN_SENT, State.SYN_RCVD, State.CLOSED]] = False
"""Whether a listener's connection in this state has been accepted, unless it is waiting."""


def _established(poll: Poll) -> NDArray[np.intp]:
    """Return the rows that were in SYN_RCVD in the previous sample, without those that had an inode.

    Those had been accepted before (TCP Fast Open), or are connect() calls in a simultaneous open.
    """
    join, was_half_open = poll.join, poll.join.old_state == State.SYN_RCVD
    if poll.previous is None or not was_half_open.any():
        return join.changed[:0]
    owned = poll.previous.inode[join.changed_previous[was_half_open]] != 0
    row: NDArray[np.intp] = join.changed[was_half_open][~owned]
    return row


def _freed_by_key(poll: Poll, before: WaitingConnections) -> NDArray[np.intp]:
    """Return how many connections of each key waited in the previous sample and have been freed since.

    The kernel frees a waiting connection only after accept(), even if it is reset, or when its listener closes.
    """
    sample, keys = poll.sample, poll.join.listener_keys
    none = np.zeros(len(keys.keys), np.intp)
    if sample.destroyed is None or poll.previous is None or poll.previous_join is None or not len(before.cookie):
        return none
    ended = find_sorted(sample.cookie, before.cookie) == NOT_FOUND
    freed = before.key[ended][np.isin(before.cookie[ended], sample.destroyed.table["idiag_cookie"])]
    if not len(freed):
        return none
    keys_before = poll.previous_join.listener_keys
    closed = ~np.isin(poll.previous.cookie[keys_before.row], sample.cookie[keys.row])
    places = {key: at for at, key in enumerate(keys.keys)}
    place = np.array([places.get(key, NO_LISTENER) for key in keys_before.keys])
    place[keys_before.key[closed]] = NO_LISTENER
    now = place[freed]
    count: NDArray[np.intp] = np.bincount(now[now != NO_LISTENER], minlength=len(keys.keys))
    return count
