"""roles_by_bytes: which end opened a connection, as its byte counters show it.

The end that opened a connection has its SYN acknowledged as a byte of the stream: tcpi_bytes_acked is one more than the
data that the peer has acknowledged. At the other end the acknowledgement of the SYN+ACK sets snd_una without counting
it (tcp_ack and tcp_rcv_state_process in net/ipv4/tcp_input.c; tried on Linux 6.18). An acknowledged FIN counts as one
byte too. tcpi_bytes_sent counts data only.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.kernel.netlink.tcp_info import has_field
from tcpwatch.model.states import Role, State
from tcpwatch.sample import Sample, TcpInfoTable

_FINS = np.full(256, -1, np.int64)
_FINS[[State.ESTABLISHED, State.CLOSE_WAIT]] = 0
_FINS[[State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSING, State.LAST_ACK]] = 1
"""State → FINs of ours that are sent, in flight or acknowledged, once all data is sent; -1 without tcp_info."""


def has_proof(sample: Sample, row: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which of these rows are full sockets whose byte counters show the role."""
    state = sample.state[row]
    is_small = (state == State.FIN_WAIT_2) & (sample.inode[row] == 0)
    proof: NDArray[np.bool_] = (_FINS[state] >= 0) & ~is_small
    return proof


def roles_by_bytes(sample: Sample, row: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Return the states.Role of these rows; UNKNOWN without tcp_info of the row in the sample.

    The kernel reads the send queue a moment before tcp_info: a connection that sends at this very moment may remain
    UNKNOWN.
    """
    role = np.zeros(len(row), np.uint8)
    infos = sample.tcp_info_table
    if infos is not None and has_field("tcpi_bytes_retrans", infos.info_bytes):
        _add_roles(role, sample, row, infos)
    if sample.watched_tcp_info:
        for at in np.flatnonzero((role == Role.UNKNOWN) & has_proof(sample, row)).tolist():
            role[at] = _role_of(sample.watched_tcp_info.get(int(sample.cookie[row[at]]), {}))
    return role


def _add_roles(role: NDArray[np.uint8], sample: Sample, row: NDArray[np.intp], infos: TcpInfoTable) -> None:
    wanted = np.flatnonzero(has_proof(sample, row))
    place = find_sorted(infos.cookie, sample.cookie[row[wanted]])
    wanted, place = wanted[place != NOT_FOUND], place[place != NOT_FOUND]
    info, state = infos.table[place], sample.state[row[wanted]]
    queued = sample.table["idiag_wqueue"][row[wanted]].astype(np.int64)
    unsent = info["tcpi_notsent_bytes"]
    in_flight = queued - unsent  # with our FIN, which is sent last
    fins = np.where(unsent == 0, _FINS[state], 0)
    sent = (info["tcpi_bytes_sent"] - info["tcpi_bytes_retrans"]).astype(np.int64)
    syns = info["tcpi_bytes_acked"].astype(np.int64) + in_flight - sent - fins
    role[wanted[syns == 1]] = Role.CLIENT
    role[wanted[syns == 0]] = Role.SERVER


def _role_of(info: Mapping[str, int]) -> Role:
    """Return the role that complete tcp_info shows while nothing is in flight."""
    if "bytes_retrans" not in info or info["unacked"] or info["notsent_bytes"]:
        return Role.UNKNOWN
    fins = int(_FINS[info["state"]])
    syns = info["bytes_acked"] - info["bytes_sent"] + info["bytes_retrans"] - fins
    return {0: Role.SERVER, 1: Role.CLIENT}.get(syns, Role.UNKNOWN) if fins >= 0 else Role.UNKNOWN
