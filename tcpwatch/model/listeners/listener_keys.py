"""Which local addresses and ports are listened on, and whose an incoming connection is."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.arrays.address_words import MAPPED_LOW, address_halves, are_mapped, first_words, mapped_halves
from tcpwatch.kernel.netlink import uapi
from tcpwatch.model.states import State
from tcpwatch.sample import Sample

ANY4, ANY6 = (0, MAPPED_LOW), (0, 0)
NO_LISTENER = -1
"""Stands for the key of a socket that no listener takes."""


class LocalEndpoints(Protocol):
    """Sockets, as far as it matters whose they are: aligned columns, as a Sample has them."""

    @property
    def table(self) -> NDArray[np.void]:
        """uapi.SOCKET"""

    @property
    def local_port(self) -> NDArray[np.uint16]:
        """Of each."""

    @property
    def family(self) -> NDArray[np.uint8]:
        """Of each."""


class ListenerKey(NamedTuple):
    """What a SYN is looked up by; the sockets of a SO_REUSEPORT group share it."""

    port: int
    high: int
    low: int
    """The address as two 64-bit halves, IPv4 in its IPv4-mapped form."""
    interface: int = 0
    """Index of the interface that it is bound to (SO_BINDTODEVICE); 0 for any."""
    v6only: bool = False

    @property
    def any_address(self) -> bool:
        """Return whether the address is the wildcard of IPv4, of IPv6, or of both."""
        return (self.high, self.low) in (ANY4, ANY6)

    @property
    def address(self) -> str:
        """The local address as text."""
        return units.address(self.high.to_bytes(8) + self.low.to_bytes(8), uapi.AF_INET6)

    @property
    def endpoint(self) -> str:
        """Local address and port, with `*` for any address and `[::]` for any IPv6 address alone, as in ss(8)."""
        return units.endpoint("*" if self.any_address and not self.v6only else self.address, self.port)

    @property
    def local_filter(self) -> str:
        """Filter terms for the sockets with this local end."""
        return f"lport:{self.port}" + ("" if self.any_address else f" laddr:{self.address}")


@dataclass(frozen=True, slots=True, eq=False)
class ListenerKeys:
    """The listeners of one sample."""

    keys: tuple[ListenerKey, ...]
    """Each once, the most specific first, as the kernel looks them up (inet_lookup_listener)."""
    row: NDArray[np.intp]
    """The sample's rows in LISTEN."""
    key: NDArray[np.int32]
    """Of each of these rows, the index in `keys`."""
    _alone: NDArray[np.int32]
    """Port → the index of its only key, where that has any address; NOBODY where nobody listens; else _ASK."""

    @classmethod
    def of(cls, sample: Sample) -> ListenerKeys:
        """The listeners of a sample."""
        row = np.flatnonzero(sample.state == State.LISTEN)
        of_row = _keys_of(sample.table[row])
        keys = tuple(sorted(set(of_row), key=_specific_first))
        places = {key: at for at, key in enumerate(keys)}
        key = np.array([places[key] for key in of_row], np.int32)
        return cls(keys, row, key, _alone(keys))

    def lookup(self, sample: LocalEndpoints, where: NDArray[np.intp]) -> NDArray[np.int32]:
        """For each of these rows the index of the key that takes what comes to its local end, or NOBODY.

        The port alone does not tell: the same number may be a client's on another address.
        """
        port = sample.local_port[where]
        taker = self._alone[port]
        v6 = np.flatnonzero(sample.family[where] != uapi.AF_INET)
        of_v4_alone = np.array([key[1:3] == ANY4 for key in self.keys] + [False, False])  # _ASK and NOBODY
        taker[v6[of_v4_alone[taker[v6]]]] = _ASK
        for number in np.flatnonzero(np.bincount(port[taker == _ASK], minlength=1)).tolist():
            there = np.flatnonzero(port == number)
            taker[there] = self._by_address(sample, where[there], number)
        return taker

    def _by_address(self, sample: LocalEndpoints, where: NDArray[np.intp], port: int) -> NDArray[np.int32]:
        taker = np.full(len(where), NO_LISTENER, np.int32)
        left = np.ones(len(where), np.bool_)
        for at, key in enumerate(self.keys):
            if key.port == port:
                hit = left & _takes(key, sample, where)
                taker[hit] = at
                left &= ~hit
        return taker


_ASK = -2
"""Several listen on the port, or one on an address of its own: the address decides."""


def _alone(keys: tuple[ListenerKey, ...]) -> NDArray[np.int32]:
    rivals = defaultdict(list)
    for at, key in enumerate(keys):
        rivals[key.port].append(at)
    table = np.full(65_536, NO_LISTENER, np.int32)
    for port, places in rivals.items():
        key = keys[places[0]]
        wildcard = len(places) == 1 and key in (ListenerKey(port, *ANY4), ListenerKey(port, *ANY6))
        table[port] = places[0] if wildcard else _ASK
    return table


def _specific_first(key: ListenerKey) -> tuple[object, ...]:
    return key.any_address, not key.interface, key[1:3] == ANY6, key


def _keys_of(listening: NDArray[np.void]) -> list[ListenerKey]:
    high, low = mapped_halves(listening["idiag_src"], listening["idiag_family"] == uapi.AF_INET).T
    v6only = (listening["has"] & uapi.IS_V6ONLY) != 0
    columns = (listening["idiag_sport"], high, low, listening["idiag_if"], v6only)
    return [ListenerKey(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]


def _takes(key: ListenerKey, sample: LocalEndpoints, where: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether a listener takes what comes to the local address of these rows."""
    v4 = sample.family[where] == uapi.AF_INET
    hit = _address_fits(key, sample.table, where, v4)
    if key.interface:
        hit &= sample.table["idiag_if"][where] == key.interface
    return hit


def _address_fits(
    key: ListenerKey, table: NDArray[np.void], where: NDArray[np.intp], v4: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Addresses are compared as they came, in both forms that IPv4 has: to bring a million into one form costs more."""
    if key[1:3] == ANY6 and not key.v6only:
        return np.ones(len(where), np.bool_)
    v6 = np.flatnonzero(~v4)
    halves = address_halves(table["idiag_src"][where[v6]])
    fits = v4.copy()
    if key[1:3] == ANY4:
        fits[v6] = are_mapped(halves)
    elif key[1:3] == ANY6:
        fits[:] = False
        fits[v6] = ~are_mapped(halves)
    else:
        mapped = key.high == 0 and key.low >> 32 == 0xFFFF
        fits &= (first_words(table, "idiag_src")[where] == key.low & 0xFFFFFFFF) if mapped else False
        fits[v6] = (halves == (key.high, key.low)).all(axis=1)
    return fits
