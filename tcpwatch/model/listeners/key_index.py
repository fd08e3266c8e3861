"""KeyIndex: the key of the listener that accepts connections to a local address and port.

The most specific listener wins: one that is bound to the interface of the connection before the others, among these one
with its address, then the wildcard of IPv4, then that of IPv6 (inet_lookup_listener in the kernel). Ports that have
wildcards alone are looked up in a table, addresses by binary search: the number of listeners hardly matters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.address_words import (
    ANY4,
    ANY6,
    MAPPED_LOW,
    Halves,
    address_halves,
    are_mapped,
    first_words,
    hash_addresses,
    mapped_halves,
)
from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.kernel.netlink import uapi
from tcpwatch.model.listeners.redirected import NO_KEY
from tcpwatch.sample import Sample

_Places = NDArray[np.int32]


class LocalEndpoints(NamedTuple):
    """The columns of a Sample that `find` reads; aligned."""

    table: NDArray[np.void]
    """uapi.SOCKET"""
    local_port: NDArray[np.uint16]
    family: NDArray[np.uint8]


class KeyColumns(NamedTuple):
    """The fields of ListenerKey as columns; aligned."""

    port: NDArray[np.uint16]
    halves: Halves
    interface: NDArray[np.uint32]
    v6only: NDArray[np.bool_]

    @classmethod
    def of(cls, table: NDArray[np.void]) -> KeyColumns:
        """Return the fields of each row of `table` (uapi.SOCKET)."""
        return cls(
            table["idiag_sport"].astype(np.uint16),
            mapped_halves(table["idiag_src"], table["idiag_family"] == uapi.AF_INET),
            table["idiag_if"].astype(np.uint32),
            (table["has"] & uapi.IS_V6ONLY) != 0,
        )

    def take(self, where: NDArray[np.intp]) -> KeyColumns:
        """Return the rows at these indices."""
        return KeyColumns(self.port[where], self.halves[where], self.interface[where], self.v6only[where])

    def distinct(self) -> tuple[KeyColumns, NDArray[np.int32]]:
        """Return the distinct rows, the most specific first, and which of them each row is."""
        high, low = self.halves.T
        any6, any4 = (high == 0) & (low == 0), (high == 0) & (low == MAPPED_LOW)
        order = np.lexsort((self.v6only, self.interface, low, high, self.port, any6, any4 | any6, self.interface == 0))
        ordered = self.take(order)
        differs = np.zeros(len(order), np.bool_)
        for column in (ordered.port, *ordered.halves.T, ordered.interface, ordered.v6only):
            differs[1:] |= column[1:] != column[:-1]
        number = np.empty(len(order), np.int32)
        number[order] = np.cumsum(differs)
        return ordered.take(np.flatnonzero(np.append(True, differs[1:]))[: len(order)]), number


class KeyIndex:
    """Finds the keys of many local ends at once."""

    def __init__(self, keys: KeyColumns) -> None:
        """`keys` are distinct, the most specific first."""
        high, low = keys.halves.T
        mapped, any6 = are_mapped(keys.halves), (high == 0) & (low == 0)
        any4, every_device = mapped & (low == MAPPED_LOW), keys.interface == 0
        self._keys = keys
        self._wildcard4 = _by_port(keys.port, every_device & (any4 | (any6 & ~keys.v6only)))
        self._wildcard6 = _by_port(keys.port, every_device & any6)
        self._by_address = np.zeros(65_536, np.bool_)
        """Port → whether it has a key that is bound to an address or a device."""
        self._by_address[keys.port[~(every_device & (any4 | any6))]] = True
        self._by_family = self._wildcard4 != self._wildcard6
        self._has_device = np.zeros(65_536, np.bool_)
        self._has_device[keys.port[~every_device]] = True
        self._has_devices = not bool(every_device.all())
        of_v4 = np.flatnonzero(every_device & mapped & ~any4)
        self._number, first = np.unique(_numbers(keys.port[of_v4], low[of_v4]), return_index=True)
        self._place = of_v4[first].astype(np.int32)
        others = np.flatnonzero(~(every_device & (mapped | any6)))
        hashes = _hashes(keys.port[others], keys.interface[others], keys.halves[others])
        self._hash, first = np.unique(hashes, return_index=True)
        self._hashed = others[first].astype(np.int32)

    def find(self, ends: Sample | LocalEndpoints, where: NDArray[np.intp]) -> _Places:
        """Return for each of these rows the index of its key, or NO_KEY."""
        port, v6 = ends.local_port[where], np.flatnonzero(ends.family[where] != uapi.AF_INET)
        place, by_address = self._wildcard4[port], self._by_address[port]
        place[v6] = self._wildcard6[port[v6]]
        by_address[v6] |= self._by_family[port[v6]]
        if by_address.any():
            is_v4 = np.ones(len(where), np.bool_)
            is_v4[v6] = False
            at = np.flatnonzero(by_address)
            place[at] = self._find_by_address(ends.table, where[at], port[at], is_v4[at])
        return place

    def _find_by_address(
        self, table: NDArray[np.void], row: NDArray[np.intp], port: NDArray[np.uint16], is_v4: NDArray[np.bool_]
    ) -> _Places:
        v6 = np.flatnonzero(~is_v4)
        halves = address_halves(table["idiag_src"][row[v6]])
        mapped = are_mapped(halves)
        # IPv4 has two forms: to convert a million rows to one form would cost more.
        word = first_words(table, "idiag_src")[row].astype(np.uint64)
        word[v6], is_v4[v6] = halves[:, 1], mapped
        six = v6[~mapped]
        place = self._wildcard4[port]
        place[six] = self._wildcard6[port[six]]
        if len(self._number):
            found = find_sorted(self._number, _numbers(port, word))
            found[six] = NOT_FOUND
            place[found != NOT_FOUND] = self._place[found[found != NOT_FOUND]]
        if len(six) and len(self._hash):
            self._override(place, six, port[six], np.zeros(len(six), np.uint32), halves[~mapped])
        if self._has_devices:
            self._override_by_device(place, table, row, port, is_v4)
        return place

    def _override_by_device(
        self,
        place: _Places,
        table: NDArray[np.void],
        row: NDArray[np.intp],
        port: NDArray[np.uint16],
        is_v4: NDArray[np.bool_],
    ) -> None:
        """Set the places of the rows that have a key on their device: later ones replace less specific ones."""
        at = np.flatnonzero(self._has_device[port] & (table["idiag_if"][row] != 0))
        ends = table[row[at]]
        port, device, is_v4 = port[at], ends["idiag_if"], is_v4[at]
        wildcard6 = np.full(len(at), NO_KEY, np.int32)
        self._override(wildcard6, np.arange(len(at)), port, device, np.full((len(at), 2), ANY6, np.uint64))
        fits = (wildcard6 != NO_KEY) & ~(is_v4 & self._keys.v6only[wildcard6])
        place[at[fits]] = wildcard6[fits]
        v4 = np.flatnonzero(is_v4)
        self._override(place, at[v4], port[v4], device[v4], np.full((len(v4), 2), ANY4, np.uint64))
        halves = mapped_halves(ends["idiag_src"], ends["idiag_family"] == uapi.AF_INET)
        self._override(place, at, port, device, halves)

    def _override(
        self,
        place: _Places,
        at: NDArray[np.intp],
        port: NDArray[np.uint16],
        device: NDArray[np.uint32],
        halves: Halves,
    ) -> None:
        """Set the places `at` whose port, device and address are those of a key."""
        found = find_sorted(self._hash, _hashes(port, device, halves))
        key = self._hashed[found]
        # Who chooses addresses whose hashes are equal hides a listener of his own: that of another is never named.
        same = (found != NOT_FOUND) & (self._keys.port[key] == port) & (self._keys.interface[key] == device)
        same &= (self._keys.halves[key] == halves).all(axis=1)
        place[at[same]] = key[same]


def _by_port(port: NDArray[np.uint16], wanted: NDArray[np.bool_]) -> _Places:
    """Return port → index of the first wanted key, or NO_KEY."""
    table = np.full(65_536, NO_KEY, np.int32)
    place = np.flatnonzero(wanted)[::-1]
    table[port[place]] = place
    return table


def _numbers(port: NDArray[np.uint16], word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return port.astype(np.uint64) << np.uint64(32) | word & np.uint64(0xFFFFFFFF)


def _hashes(port: NDArray[np.uint16], device: NDArray[np.uint32], halves: Halves) -> NDArray[np.uint64]:
    return hash_addresses(halves, port.astype(np.uint64) << np.uint64(32) | device)
