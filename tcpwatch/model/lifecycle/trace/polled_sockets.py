"""PolledSockets: the sockets of a poll that may be those of trace events with certain ports."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.opaque_rows import take_rows
from tcpwatch.model.sockets.join import Join
from tcpwatch.model.sockets.throughput import Throughput
from tcpwatch.model.states import SMALL_SOCKET_STATES, State
from tcpwatch.sample import Sample

_HALF_OPEN = np.uint8(State.SYN_RCVD)
_HAS_PEER = np.ones(256, np.bool_)
_HAS_PEER[[State.LISTEN, State.CLOSED]] = False


class PolledSockets(NamedTuple):
    """Aligned columns, one row per socket."""

    table: NDArray[np.void]
    """uapi.SOCKET"""
    cookie: NDArray[np.uint64]
    is_full: NDArray[np.bool_]
    """Whether it exists and is a full socket: not in TIME_WAIT, nor an orphan in FIN_WAIT_2."""
    may_retransmit: NDArray[np.bool_]
    """False if its tcp_info shows that it has never retransmitted a segment."""


def sockets_with_ports(
    joined: Join, sample: Sample, local: NDArray[np.uint16], remote: NDArray[np.uint16], old: bool
) -> PolledSockets:
    """Return the sockets whose local port is in `local` and whose remote port is in `remote`.

    They are those that appeared, changed or closed since the previous sample, without listeners and half-open
    connections; if `old`, those that did not change as well.
    """
    is_local, is_remote = np.zeros(1 << 16, np.bool_), np.zeros(1 << 16, np.bool_)
    is_local[local], is_remote[remote] = True, True
    if old:
        at = np.flatnonzero(is_local[sample.local_port])
    else:
        at = np.concatenate((joined.new, joined.changed))
        at = at[is_local[sample.local_port[at]]]
    state = sample.state[at]
    at = at[_HAS_PEER[state] & ((state != _HALF_OPEN) | (sample.inode[at] != 0))]
    at = at[is_remote[sample.table["idiag_dport"][at]]]
    closed = joined.closed
    ended = np.flatnonzero(is_local[closed.table["idiag_sport"]] & is_remote[closed.table["idiag_dport"]])
    small = np.isin(sample.state[at], SMALL_SOCKET_STATES) & (sample.inode[at] == 0)
    never = np.zeros(len(at) + len(ended), np.bool_)
    never[: len(at)] = Throughput(sample.tcp_info_table).retransmits(sample.cookie[at]) == 0
    return PolledSockets(
        np.concatenate((take_rows(sample.table, at), take_rows(np.ascontiguousarray(closed.table), ended))),
        np.concatenate((sample.cookie[at], closed.cookie[ended])),
        np.append(~small, np.zeros(len(ended), np.bool_)),
        ~never,
    )
