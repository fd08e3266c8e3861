"""Groups of sockets that share a process, a peer, ..., with totals; a million sockets in a fraction of a second."""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.address_words import address_halves, hash_addresses, ipv4_numbers
from tcpwatch.arrays.group_by import Partition, group_by, mix_bits
from tcpwatch.kernel.netlink.uapi import AF_INET
from tcpwatch.model.columns.socket_values import WHY_UNKNOWN
from tcpwatch.model.sockets.endpoint import Endpoint
from tcpwatch.model.sockets.endpoint_hashes import remote_endpoint
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import State

TOP = 1_000
"""Groups in the result: the largest ones."""


class GroupField(enum.Enum):
    """The field that the sockets of a group share; the value is its name on screen."""

    PROCESS = "process"
    PEER = "peer"
    """Remote address."""
    SERVICE = "service"
    """Remote address and port."""
    LOCAL_PORT = "local port"
    STATE = "state"
    CGROUP = "cgroup"


@dataclass(frozen=True, slots=True)
class SocketGroup:
    """One group of sockets."""

    by: GroupField
    value: Endpoint | State | int | str
    """The shared value of the field."""
    filter: str
    """Filter text that matches the group; empty if there is none."""
    sockets: int
    share: float
    """Share of all grouped sockets."""
    established: int
    recv_queue: int
    """Bytes not yet read; without listeners, whose queues count connections."""
    send_queue: int
    """Bytes not yet acknowledged; without listeners."""
    rx_per_s: float | None
    tx_per_s: float | None
    """Bytes per second of the sockets with known rates; None if there is none."""
    retransmits_per_s: float | None
    """Segments; without the SYNs and SYN+ACKs of connections in the handshake, as in the rule `retransmissions`."""

    @property
    def name(self) -> str:
        """The value as text."""
        return self.value.name if isinstance(self.value, State) else str(self.value)

    @property
    def identity(self) -> Hashable:
        """Return the identity of the group from poll to poll: the filter, as the name of a process can change."""
        return self.by, self.filter or self.name


@dataclass(frozen=True, slots=True, eq=False)
class SocketGroups:
    """The groups of some rows."""

    by: GroupField
    groups: tuple[SocketGroup, ...]
    """TOP at most, the largest first."""
    count: int
    """All groups."""
    sockets: int


def group_sockets(rows: Rows, by: GroupField) -> SocketGroups:
    """Return the rows grouped by this field."""
    partition = group_by(_NUMBERS[by](rows))
    size, first = partition.size, partition.first
    bytes_counted = rows.state != State.LISTEN
    established = partition.sums(rows.state == State.ESTABLISHED)
    unread = partition.sums(np.where(bytes_counted, rows.table["idiag_rqueue"], 0).astype(np.int64))
    unsent = partition.sums(np.where(bytes_counted, rows.table["idiag_wqueue"], 0).astype(np.int64))
    rx = _sums(partition, rows.throughput.rx_bytes_per_s(rows.cookie))
    tx = _sums(partition, rows.throughput.tx_bytes_per_s(rows.cookie))
    per_s = rows.throughput.retransmits_per_s(rows.cookie)
    per_s[(rows.state == State.SYN_SENT) | (rows.state == State.SYN_RCVD)] = np.nan
    retransmits = _sums(partition, per_s)
    groups = [
        SocketGroup(
            by,
            *_NAMES[by](rows, int(first[at])),
            sockets=int(size[at]),
            share=int(size[at]) / len(rows),
            established=int(established[at]),
            recv_queue=int(unread[at]),
            send_queue=int(unsent[at]),
            rx_per_s=_known(rx[at]),
            tx_per_s=_known(tx[at]),
            retransmits_per_s=_known(retransmits[at]),
        )
        for at in np.argsort(-size, kind="stable")[:TOP].tolist()
    ]
    groups.sort(key=lambda group: (-group.sockets, not group.filter, group.name))
    return SocketGroups(by, tuple(groups), len(partition), len(rows))


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _sums(partition: Partition, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of the known values of each group; NaN where none is known."""
    if not len(partition):
        return np.zeros(0)
    known = ~np.isnan(values)
    sums: NDArray[np.float64] = np.add.reduceat(np.where(known, values, 0.0)[partition.order], partition.start)
    sums[partition.sums(known) == 0] = np.nan
    return sums


def _owners(rows: Rows) -> NDArray[np.uint64]:
    """Return the pid of each socket's first process, so that sets of processes with the same first one are a group."""
    first = np.array([owner.processes[0].pid for owner in rows.owners] or [0], np.int64)
    numbers = np.where(rows.owner >= 0, first[np.maximum(rows.owner, 0)], rows.owner.astype(np.int64))
    return numbers.view(np.uint64)


def _peers(rows: Rows) -> NDArray[np.uint64]:
    """Return a number for each remote address; IPv4-mapped addresses have that of the IPv4 address."""
    addresses = rows.table["idiag_dst"]
    numbers, is_v4 = ipv4_numbers(addresses, rows.table["idiag_family"] == AF_INET)
    return np.where(is_v4, numbers, hash_addresses(address_halves(addresses)))


_NUMBERS: dict[GroupField, Callable[[Rows], NDArray[np.uint64]]] = {
    GroupField.PROCESS: _owners,
    GroupField.PEER: _peers,
    GroupField.SERVICE: lambda rows: mix_bits(_peers(rows)) ^ rows.table["idiag_dport"].astype(np.uint64),
    GroupField.LOCAL_PORT: lambda rows: rows.table["idiag_sport"].astype(np.uint64),
    GroupField.STATE: lambda rows: rows.state.astype(np.uint64),
    GroupField.CGROUP: lambda rows: rows.table["cgroup_id"].astype(np.uint64),
}

Named = tuple[Endpoint | State | int | str, str]
"""The shared value, and the filter that selects the sockets of the group."""


def _process(rows: Rows, at: int) -> Named:
    code = int(rows.owner[at])
    if code < 0:
        return WHY_UNKNOWN[code], ""
    process = rows.owners[code].processes[0]
    return process.label, f"pid:{process.pid}"


def _remote(rows: Rows, at: int, port: bool) -> Named:
    row = rows.table[at]
    remote = remote_endpoint(row, port)
    return (remote, remote.remote_filter) if row["idiag_dport"] else ("(no peer)", "")


def _state(rows: Rows, at: int) -> Named:
    state = State(int(rows.state[at]))
    return state, f"state:{state.name}"


_NAMES: dict[GroupField, Callable[[Rows, int], Named]] = {
    GroupField.PROCESS: _process,
    GroupField.PEER: lambda rows, at: _remote(rows, at, port=False),
    GroupField.SERVICE: lambda rows, at: _remote(rows, at, port=True),
    GroupField.LOCAL_PORT: lambda rows, at: (port := int(rows.table["idiag_sport"][at]), f"lport:{port}"),
    GroupField.STATE: _state,
    GroupField.CGROUP: lambda rows, at: (int(rows.table["cgroup_id"][at]) or "unknown (half-open, TIME_WAIT)", ""),
}
