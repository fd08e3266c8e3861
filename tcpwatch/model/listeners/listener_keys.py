"""Keys of the listeners: local address and port, and which key an incoming connection belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.arrays.address_words import ANY4, ANY6
from tcpwatch.arrays.lookup import find_sorted
from tcpwatch.arrays.opaque_rows import take_rows
from tcpwatch.kernel.netlink import uapi
from tcpwatch.model.listeners.key_index import KeyColumns, KeyIndex, LocalEndpoints
from tcpwatch.model.listeners.redirected import NO_KEY, Redirected, redirected
from tcpwatch.model.states import State
from tcpwatch.sample import Sample

NO_LISTENER = NO_KEY
"""The index of a socket without a listener."""


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

    def is_spelled_as(self, other: ListenerKey) -> bool:
        """Return whether an equal key has the same texts."""
        texts, others = ((key.device, key.exclusions, key.other_ends) for key in (self, other))
        return texts == others

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
    _index: KeyIndex
    _source: tuple[object, ...]
    """The inputs of `keys` and `key`."""

    @classmethod
    def of(cls, sample: Sample, previous: ListenerKeys | None = None) -> ListenerKeys:
        """Return the keys of the listeners of a sample; `previous` are those of the previous one."""
        row = sample.rows_in(State.LISTEN)
        source = _source(sample, row)
        if previous is not None and previous._source == source and not len(previous.redirected.cookie):
            found = replace(previous, row=row, redirected=Redirected())  # the same listeners, as in most polls
        else:
            columns, key = KeyColumns.of(sample.table[row]).distinct()
            keys = _with_exclusions(_keys_of(columns, sample.interfaces))
            found = cls(keys, row, key, Redirected(), KeyIndex(columns), source)
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
        had_listener = partial(previous._index.find, sample) if previous else None
        return redirected(sample, self.row, self.key, partial(self._index.find, sample), before, had_listener)

    def lookup(self, sample: Sample | LocalEndpoints, where: NDArray[np.intp]) -> NDArray[np.int32]:
        """Return for each of these rows the index of the key of its listener, or NO_LISTENER.

        The listener is the one that accepts connections to the local end, unless the connection is known to be
        redirected. The port alone is not enough: a client may use the same port on another address.
        """
        key = self._index.find(sample, where)
        if len(self.redirected.cookie):
            self.redirected.override(key, sample.table["idiag_cookie"][where])
        return key


def _source(sample: Sample, row: NDArray[np.intp]) -> tuple[object, ...]:
    """Return all facts about these listeners that their keys depend on."""
    table = take_rows(sample.table, row)
    names = ("idiag_sport", "idiag_src", "idiag_if", "idiag_family")
    devices = [int(index) for index in np.unique(table["idiag_if"]) if index] if table["idiag_if"].any() else []
    return (
        *(table[name].tobytes() for name in names),
        (table["has"] & uapi.IS_V6ONLY).tobytes(),
        *(sample.interfaces.get(index) for index in devices),
    )


def _with_exclusions(keys: tuple[ListenerKey, ...]) -> tuple[ListenerKey, ...]:
    by_port = defaultdict(list)
    for key in keys:
        by_port[key.port].append(key)
    if len(by_port) == len(keys):
        return keys
    exclusions = {port: _Exclusions(same_port) for port, same_port in by_port.items() if len(same_port) > 1}
    return tuple(
        replace(key, exclusions=exclusions[key.port].of(key)) if key.port in exclusions else key for key in keys
    )


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


class _Exclusions:
    """Filter terms that exclude the sockets of the other listeners on one port."""

    def __init__(self, keys: list[ListenerKey]) -> None:
        self._wildcards = {(key.interface, key.halves) for key in keys if key.any_address}
        self._devices = "".join(dict.fromkeys(f" -if:{key.device}" for key in keys if key.interface))
        terms: dict[int, list[str]] = {interface: [] for interface, _ in self._wildcards}
        for key in keys:
            if key.interface in terms and not key.any_address:
                terms[key.interface].append(f" -laddr:{key.address}")
        self._addresses = {interface: "".join(dict.fromkeys(words)) for interface, words in terms.items()}
        """Interface → the terms for the addresses of its listeners."""

    def of(self, key: ListenerKey) -> str:
        """Return the terms for the filter of `key`."""
        terms = "" if key.interface else self._devices
        if not key.any_address:
            return terms
        family = {ANY4: " laddr:0.0.0.0/0", ANY6: " laddr:::/0"}
        other = ANY6 if key.halves == ANY4 else ANY4
        both = (key.interface, other) in self._wildcards
        return terms + self._addresses[key.interface] + family[key.halves] * both


def _keys_of(columns: KeyColumns, interfaces: Mapping[int, str]) -> tuple[ListenerKey, ...]:
    high, low = columns.halves.T
    values = (columns.port, high, low, columns.interface, columns.v6only)
    keys = [ListenerKey(*fields) for fields in zip(*(column.tolist() for column in values), strict=True)]
    return tuple(
        replace(key, device=interfaces.get(key.interface) or str(key.interface)) if key.interface else key
        for key in keys
    )
