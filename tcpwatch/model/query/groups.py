"""Groups: sockets taken together by what they share, with totals; a million of them in a fraction of a second."""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.arrays.address_words import address_halves, hash_addresses, ipv4_numbers
from tcpwatch.arrays.group_by import Partition, group_by, mix_bits
from tcpwatch.kernel.netlink.uapi import AF_INET
from tcpwatch.model.columns.socket_values import WHY_UNKNOWN
from tcpwatch.model.sockets.endpoint import Endpoint
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import State

TOP = 1_000
"""Groups that are told; the largest."""


class GroupField(enum.Enum):
    """What is shared; the value says it to people."""

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
    """Sockets that share something."""

    value: Endpoint | State | int | str
    """What they share."""
    filter: str
    """Selects them; empty where no filter can."""
    sockets: int
    established: int
    recv_queue: int
    """Bytes that wait to be read; listeners' queues, which count connections, left out."""
    send_queue: int
    """Bytes that are not acknowledged."""
    rx_per_s: float | None
    tx_per_s: float | None
    """Bytes per second of those of which they are known; None where of none."""
    retransmits_per_s: float | None

    @property
    def name(self) -> str:
        """The value as text."""
        return self.value.name if isinstance(self.value, State) else str(self.value)


@dataclass(frozen=True, slots=True, eq=False)
class SocketGroups:
    """All groups of some rows."""

    by: GroupField
    groups: tuple[SocketGroup, ...]
    """The largest first, TOP at most."""
    count: int
    """Groups that there are."""
    sockets: int


def group_sockets(rows: Rows, by: GroupField) -> SocketGroups:
    """These rows, grouped."""
    found = group_by(_NUMBERS[by](rows))
    size, first = found.size, found.first
    bytes_counted = rows.state != State.LISTEN
    established = found.sums(rows.state == State.ESTABLISHED)
    unread = found.sums(np.where(bytes_counted, rows.table["idiag_rqueue"], 0).astype(np.int64))
    unsent = found.sums(np.where(bytes_counted, rows.table["idiag_wqueue"], 0).astype(np.int64))
    rx = _sums(found, rows.throughput.rx_bytes_per_s(rows.cookie))
    tx = _sums(found, rows.throughput.tx_bytes_per_s(rows.cookie))
    again = _sums(found, rows.throughput.retransmits_per_s(rows.cookie))
    told = [
        SocketGroup(
            *_NAMES[by](rows, int(first[at])),
            sockets=int(size[at]),
            established=int(established[at]),
            recv_queue=int(unread[at]),
            send_queue=int(unsent[at]),
            rx_per_s=_known(rx[at]),
            tx_per_s=_known(tx[at]),
            retransmits_per_s=_known(again[at]),
        )
        for at in np.argsort(-size, kind="stable")[:TOP].tolist()
    ]
    return SocketGroups(by, tuple(sorted(told, key=lambda one: (-one.sockets, one.name))), len(found), len(rows))


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group as a row of the table."""

    by: GroupField
    group: SocketGroup
    share: float
    """Of the sockets that were grouped."""

    @property
    def identity(self) -> Hashable:
        """What stays the same of it while its figures move: a process may rename itself, and is the same pid."""
        return self.by, self.group.filter or self.group.name


def rows_of(grouped: SocketGroups) -> list[GroupRow]:
    """One each, in the same order."""
    return [GroupRow(grouped.by, one, one.sockets / grouped.sockets) for one in grouped.groups]


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _sums(found: Partition, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    sums = np.zeros(len(found))
    if len(found):
        sums = np.add.reduceat(np.where(known, values, 0.0)[found.order], found.start)
        sums[found.sums(known) == 0] = np.nan
    return sums


def _owners(rows: Rows) -> NDArray[np.uint64]:
    """Of those who hold several sockets in different company the first process counts."""
    first = np.array([owner.processes[0].pid for owner in rows.owners] or [0], np.int64)
    numbers = np.where(rows.owner >= 0, first[np.maximum(rows.owner, 0)], rows.owner.astype(np.int64))
    return numbers.view(np.uint64)


def _peers(rows: Rows) -> NDArray[np.uint64]:
    """Remote addresses; an IPv4-mapped one is the same peer as the IPv4 address."""
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
    return f"{process.name}[{process.pid}]", f"pid:{process.pid}"


def _peer(rows: Rows, at: int) -> Named:
    if not _has_peer(rows, at):
        return "none: nobody is at the other end", ""
    remote = Endpoint(_address(rows, at))
    return remote, remote.remote_filter


def _service(rows: Rows, at: int) -> Named:
    if not _has_peer(rows, at):
        return _peer(rows, at)
    remote = Endpoint(_address(rows, at), int(rows.table["idiag_dport"][at]))
    return remote, remote.remote_filter


def _address(rows: Rows, at: int) -> str:
    return units.address(rows.table["idiag_dst"][at].tobytes(), int(rows.table["idiag_family"][at]))


def _has_peer(rows: Rows, at: int) -> bool:
    return bool(rows.table["idiag_dport"][at])


def _local_port(rows: Rows, at: int) -> Named:
    port = int(rows.table["idiag_sport"][at])
    return port, f"lport:{port}"


def _state(rows: Rows, at: int) -> Named:
    state = State(int(rows.state[at]))
    return state, f"state:{state.name}"


def _cgroup(rows: Rows, at: int) -> Named:
    number = int(rows.table["cgroup_id"][at])
    return (number or "none told: half-open and TIME_WAIT"), ""


_NAMES: dict[GroupField, Callable[[Rows, int], Named]] = {
    GroupField.PROCESS: _process,
    GroupField.PEER: _peer,
    GroupField.SERVICE: _service,
    GroupField.LOCAL_PORT: _local_port,
    GroupField.STATE: _state,
    GroupField.CGROUP: _cgroup,
}
