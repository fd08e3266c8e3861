"""Keys of the listeners: local address and port, and which key an incoming connection belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.arrays.address_words import MAPPED_LOW, address_halves, are_mapped, first_words, mapped_halves
from tcpwatch.arrays.lookup import find_sorted
from tcpwatch.kernel.netlink import uapi
from tcpwatch.model.listeners.redirected import NO_KEY, Redirected, redirected
from tcpwatch.model.states import State
from tcpwatch.sample import Sample

ANY4, ANY6 = (0, MAPPED_LOW), (0, 0)
NO_LISTENER = NO_KEY
"""The index of a socket without a listener."""


class LocalEndpoints(NamedTuple):
    """The columns of a Sample that `lookup` reads; aligned."""

    table: NDArray[np.void]
    """uapi.SOCKET"""
    local_port: NDArray[np.uint16]
    family: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, order=True)
class ListenerKey:
    """The kernel looks up the listener for a SYN by these fields; the sockets of a SO_REUSEPORT group share them."""

    port: int
    high: int
    low: int
    """The address as two 64-bit halves, IPv4 in its IPv4-mapped form."""
    interface: int = 0
    """Index of the interface or VRF that the socket is bound to (SO_BINDTODEVICE, a link-local scope); 0 for any."""
    v6only: bool = False
    device: str = field(default="", compare=False)
    """The name of that interface; empty for any."""
    exclusions: str = field(default="", compare=False)
    """Filter terms that exclude the sockets of more specific listeners on the same port."""
    other_ends: tuple[tuple[str, int], ...] = field(default=(), compare=False)
    """Local addresses and ports of its connections that are not its own: see redirected.py."""

    @property
    def halves(self) -> tuple[int, int]:
        """The address, to compare it with ANY4 and ANY6."""
        return self.high, self.low

    @property
    def any_address(self) -> bool:
        """Return whether the address is the wildcard of IPv4, of IPv6, or of both."""
        return self.halves in (ANY4, ANY6)

    @property
    def address(self) -> str:
        """The local address as text."""
        return units.address(self.high.to_bytes(8) + self.low.to_bytes(8), uapi.AF_INET6)

    @property
    def endpoint(self) -> str:
        """Local address and port, with `*` for any address and `[::]` for any IPv6 address alone, as in ss(8).

        The interface stands behind the address: `*%eth0:80`, `[fe80::1]%eth0:80`.
        """
        return units.endpoint("*" if self.any_address and not self.v6only else self.address, self.port, self.device)

    @property
    def local_filter(self) -> str:
        """Filter terms for the sockets with this local end."""
        ports = sorted({self.port, *(port for _, port in self.other_ends)})
        addresses = [] if self.any_address else sorted({self.address, *(address for address, _ in self.other_ends)})
        terms = [f"{name}:{','.join(map(str, values))}" for name, values in (("lport", ports), ("laddr", addresses))
                 if 0 < len(values) <= _IN_FILTER]  # fmt: skip
        interface = [f"if:{self.device}"] if self.interface else []
        return " ".join((*terms[:1], *interface, *terms[1:])) + self.exclusions


_IN_FILTER = 8
"""Most ports, and most addresses, in a filter; it has neither if there are more."""


@dataclass(frozen=True, slots=True, eq=False)
class ListenerKeys:
    """The listeners of one sample."""

    keys: tuple[ListenerKey, ...]
    """Distinct keys, the most specific first, as in the kernel's lookup (inet_lookup_listener).

    An accepted connection is bound to the interface of its listener. So keys with an interface come before all others.
    """
    row: NDArray[np.intp]
    """The sample's rows in LISTEN."""
    key: NDArray[np.int32]
    """Index in `keys` of each of these rows."""
    redirected: Redirected
    _by_port: NDArray[np.int32]
    """Port → index of its key if that is its only one and a wildcard; NO_LISTENER if it has none; else _AMBIGUOUS."""

    @classmethod
    def of(cls, sample: Sample, previous: ListenerKeys | None = None) -> ListenerKeys:
        """Return the keys of the listeners of a sample; `previous` are those of the previous one."""
        row = np.flatnonzero(sample.state == State.LISTEN)
        of_row = _keys_of(sample.table[row], sample.interfaces)
        keys = tuple(sorted(set(of_row), key=_specific_first))
        places = {key: at for at, key in enumerate(keys)}
        key = np.array([places[key] for key in of_row], np.int32)
        found = cls(_with_exclusions(keys), row, key, Redirected(), _index_by_port(keys))
        moved = found._redirected(sample, previous)
        if not len(moved.cookie) and not len(moved.orphans):
            return found
        return replace(found, keys=_with_other_ends(found.keys, moved, sample), redirected=moved)

    def _redirected(self, sample: Sample, previous: ListenerKeys | None) -> Redirected:
        before = Redirected()
        if previous is not None and len(previous.redirected.cookie):
            places = {key: at for at, key in enumerate(self.keys)}
            now = np.array([*(places.get(key, NO_LISTENER) for key in previous.keys), NO_LISTENER], np.int32)
            before = replace(previous.redirected, key=now[previous.redirected.key])
        elif previous is not None:
            before = previous.redirected

        def by_end(where: NDArray[np.intp]) -> NDArray[np.int32]:
            return self._by_end(sample, where)

        def before_by_end(where: NDArray[np.intp]) -> NDArray[np.int32]:
            assert previous is not None
            return previous._by_end(sample, where)

        return redirected(sample, self.row, self.key, by_end, before, before_by_end if previous else None)

    def lookup(self, sample: Sample | LocalEndpoints, where: NDArray[np.intp]) -> NDArray[np.int32]:
        """Return for each of these rows the index of the key of its listener, or NO_LISTENER.

        The listener is the one that accepts connections to the local end, unless the connection is known to be
        redirected. The port alone is not enough: a client may use the same port on another address.
        """
        key = self._by_end(sample, where)
        if len(self.redirected.cookie):
            self.redirected.override(key, sample.table["idiag_cookie"][where])
        return key

    def _by_end(self, sample: Sample | LocalEndpoints, where: NDArray[np.intp]) -> NDArray[np.int32]:
        port = sample.local_port[where]
        key = self._by_port[port]
        v6 = np.flatnonzero(sample.family[where] != uapi.AF_INET)
        # The last two are for _AMBIGUOUS and NO_LISTENER.
        is_v4_only = np.array([*(known.halves == ANY4 for known in self.keys), False, False])
        key[v6[is_v4_only[key[v6]]]] = _AMBIGUOUS
        for number in np.flatnonzero(np.bincount(port[key == _AMBIGUOUS], minlength=1)).tolist():
            at = np.flatnonzero(port == number)
            key[at] = self._by_address(sample, where[at], number)
        return key

    def _by_address(self, sample: Sample | LocalEndpoints, where: NDArray[np.intp], port: int) -> NDArray[np.int32]:
        index = np.full(len(where), NO_LISTENER, np.int32)
        unassigned = np.ones(len(where), np.bool_)
        for at, key in enumerate(self.keys):
            if key.port == port:
                matches = unassigned & _accepts(key, sample, where)
                index[matches] = at
                unassigned &= ~matches
        return index


_AMBIGUOUS = -2
"""The port has several keys, or one that is no wildcard: the address decides."""


def _index_by_port(keys: tuple[ListenerKey, ...]) -> NDArray[np.int32]:
    places_by_port = defaultdict(list)
    for at, key in enumerate(keys):
        places_by_port[key.port].append(at)
    table = np.full(65_536, NO_LISTENER, np.int32)
    for port, places in places_by_port.items():
        key = keys[places[0]]
        wildcard = len(places) == 1 and key in (ListenerKey(port, *ANY4), ListenerKey(port, *ANY6))
        table[port] = places[0] if wildcard else _AMBIGUOUS
    return table


def _specific_first(key: ListenerKey) -> tuple[object, ...]:
    return not key.interface, key.any_address, key.halves == ANY6, key


def _with_exclusions(keys: tuple[ListenerKey, ...]) -> tuple[ListenerKey, ...]:
    ports = [key.port for key in keys]
    if len(set(ports)) == len(ports):
        return keys
    by_port = defaultdict(list)
    for key in keys:
        by_port[key.port].append(key)
    return tuple(replace(key, exclusions=_exclusions(key, by_port[key.port])) for key in keys)


def _with_other_ends(keys: tuple[ListenerKey, ...], moved: Redirected, sample: Sample) -> tuple[ListenerKey, ...]:
    """Return the keys with the local ends of their redirected connections."""
    ends: dict[int, set[tuple[str, int]]] = defaultdict(set)
    row = find_sorted(sample.cookie, moved.cookie)
    columns = np.concatenate((sample.table["idiag_src"][row], sample.local_port[row, None].view(np.uint8)), axis=1)
    _, first = np.unique(columns, axis=0, return_index=True)
    for at in first[: _IN_FILTER * _IN_FILTER].tolist():
        place = int(row[at])
        raw, family = sample.table["idiag_src"][place].tobytes(), int(sample.family[place])
        ends[int(moved.key[at])].add((units.address(raw, family), int(sample.local_port[place])))
    return tuple(replace(key, other_ends=tuple(sorted(ends[at]))) if at in ends else key for at, key in enumerate(keys))


def _exclusions(key: ListenerKey, same_port: list[ListenerKey]) -> str:
    """Return filter terms that exclude the sockets of the other listeners on the port."""
    terms: dict[str, None] = {}
    for other in same_port:
        if other.interface and not key.interface:
            terms[f" -if:{other.device}"] = None
        elif other.interface == key.interface and key.any_address and not other.any_address:
            terms[f" -laddr:{other.address}"] = None
        elif other.interface == key.interface and {key.halves, other.halves} == {ANY4, ANY6}:
            terms[" laddr:0.0.0.0/0" if key.halves == ANY4 else " laddr:::/0"] = None
    return "".join(terms)


def _keys_of(listening: NDArray[np.void], interfaces: Mapping[int, str]) -> list[ListenerKey]:
    high, low = mapped_halves(listening["idiag_src"], listening["idiag_family"] == uapi.AF_INET).T
    v6only = (listening["has"] & uapi.IS_V6ONLY) != 0
    columns = (listening["idiag_sport"], high, low, listening["idiag_if"], v6only)
    keys = [ListenerKey(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]
    return [
        replace(key, device=interfaces.get(key.interface) or str(key.interface)) if key.interface else key
        for key in keys
    ]


def _accepts(key: ListenerKey, sample: Sample | LocalEndpoints, where: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return whether a listener accepts connections to the local address of these rows."""
    v4 = sample.family[where] == uapi.AF_INET
    matches = _address_matches(key, sample.table, where, v4)
    if key.interface:
        matches &= sample.table["idiag_if"][where] == key.interface
    return matches


def _address_matches(
    key: ListenerKey, table: NDArray[np.void], where: NDArray[np.intp], v4: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return whether the addresses match. IPv4 has two forms here: converting a million rows to one form costs more."""
    if key.halves == ANY6 and not key.v6only:
        return np.ones(len(where), np.bool_)
    v6 = np.flatnonzero(~v4)
    halves = address_halves(table["idiag_src"][where[v6]])
    matches = v4.copy()
    if key.halves == ANY4:
        matches[v6] = are_mapped(halves)
    elif key.halves == ANY6:
        matches[:] = False
        matches[v6] = ~are_mapped(halves)
    else:
        mapped = key.high == 0 and key.low >> 32 == 0xFFFF
        matches &= (first_words(table, "idiag_src")[where] == key.low & 0xFFFFFFFF) if mapped else False
        matches[v6] = (halves == (key.high, key.low)).all(axis=1)
    return matches
