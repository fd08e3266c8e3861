"""The tests of filter terms: each returns a mask over all rows.

Text is compared once per distinct value (port, state, owner, user); rows look the result up.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.arrays.digits import numbers_with
from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.model.lifecycle.ending import NOT_ENDED
from tcpwatch.model.query.address_match import Addresses, AddressPiece, Mask
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import SPELLINGS, normalised_name

Test = Callable[[Rows], Mask]

LOCAL, REMOTE = ("idiag_src", "idiag_sport"), ("idiag_dst", "idiag_dport")
"""Fields of uapi.SOCKET: address, port."""
BOTH = (LOCAL, REMOTE)
Ends = tuple[tuple[str, str], ...]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def any_of(masks: Iterable[Mask]) -> Mask:
    """Return the rows that are in at least one mask."""
    return functools.reduce(np.logical_or, masks)


def negated(test: Test) -> Test:
    """Match the other rows."""
    return lambda rows: ~test(rows)


def _table_of(codes: Collection[int]) -> Mask:
    table = np.zeros(256, np.bool_)
    table[list(codes)] = True
    return table


def codes(column: Literal["state", "role"], wanted: Collection[int]) -> Test:
    """Match sockets with one of these numbers in a column of Rows."""
    table = _table_of(wanted)
    return lambda rows: table.take(getattr(rows, column))


def endings(wanted: Collection[int]) -> Test:
    """Match these endings (Ending or NOT_ENDED); rows without endings are all live."""
    table = _table_of(wanted)
    return lambda rows: np.full(len(rows), table[NOT_ENDED]) if rows.ending is None else table.take(rows.ending)


def ports(ranges: Collection[tuple[int, int]], ends: Ends) -> Test:
    """Match a port of one of these ends in one of the ranges, bounds included."""
    table = np.zeros(1 << 16, np.bool_)
    for first, last in ranges:
        table[first : last + 1] = True
    return lambda rows: any_of(_at_ports(rows, port, table) for _, port in ends)


def _at_ports(rows: Rows, name: str, table: Mask) -> Mask:
    return table.take(rows.table[name].astype(np.uint16))


def field(name: str, wanted: Collection[int]) -> Test:
    """Match one of these numbers in a field of uapi.SOCKET."""
    return lambda rows: any_of(rows.table[name] == number for number in wanted)


def cookies(wanted: Collection[int]) -> Test:
    """Match one of these cookies."""
    return lambda rows: any_of(rows.cookie == np.uint64(number) for number in wanted)


def owners(test: Callable[[Owner], bool]) -> Test:
    """Match sockets with a known owner that passes the test."""

    def mask(rows: Rows) -> Mask:
        table = np.array([*map(test, rows.owners), False], np.bool_)  # the last one is for negative codes
        return table.take(np.maximum(rows.owner, -1))

    return mask


def interfaces(wanted: Collection[str]) -> Test:
    """Match sockets that are bound to an interface with one of these names or indices."""

    def mask(rows: Rows) -> Mask:
        indices = [index for index, name in rows.interfaces.items() if index and (name or str(index)) in wanted]
        indices += [int(name) for name in wanted if name.isascii() and name.isdigit() and int(name) < 1 << 32]
        return np.isin(rows.table["idiag_if"].astype(np.uint32), indices)

    return mask


def users(name: str) -> Test:
    """Match sockets of the user with this name or user id; a socket that no process holds has no user."""
    wanted = name.casefold()

    def mask(rows: Rows) -> Mask:
        uids = {uid for uid, known in rows.users.items() if known.casefold() == wanted}
        if wanted.isascii() and wanted.isdigit():
            uids.add(min(int(wanted), 0xFFFFFFFF))
        return np.isin(rows.table["idiag_uid"].astype(np.uint32), list(uids)) & _held(rows)

    return mask


def networks(network: Network, ends: Ends) -> Test:
    """Match an address of one of these ends in the network; IPv4-mapped addresses and networks count as IPv4."""
    if isinstance(network, ipaddress.IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= 96:
            network = ipaddress.ip_network((mapped, network.prefixlen - 96))
    base, mask = int(network.network_address), int(network.netmask)

    def v4(values: NDArray[np.uint32]) -> Mask:
        if network.version == 6:
            return np.zeros(len(values), np.bool_)
        same: Mask = (values & np.uint32(mask)) == np.uint32(base)
        return same

    def v6(hextets: NDArray[np.uint16]) -> Mask:
        matched = np.full(len(hextets), network.version == 6)
        for i, shift in enumerate(range(112, -16, -16)):
            part = mask >> shift & 0xFFFF
            if network.version == 6 and part:
                matched &= (hextets[:, i] & part) == base >> shift & 0xFFFF
        return matched

    return lambda rows: any_of(Addresses.of(rows.table, name).match(v4, v6) for name, _ in ends)


def starts_with(prefix: str, ends: Ends) -> Test:
    """Match an address of one of these ends whose text starts with the prefix."""
    term = AddressPiece(prefix, start=True)
    return lambda rows: any_of(Addresses.of(rows.table, name).contain(term) for name, _ in ends)


def text_anywhere(term: str) -> Test:
    """Match rows that show the text, in upper or lower case."""
    wanted = term.casefold()

    def owned(owner: Owner) -> bool:
        return any(wanted in f"{p.name}[{p.pid}]".casefold() or wanted in p.command.casefold() for p in owner.processes)

    name = normalised_name(term)
    in_state = codes("state", [state for spelling, state in SPELLINGS.items() if name in spelling])
    tests = [owners(owned), _user_shows(wanted), _interface_shows(wanted)]
    tests += [in_state] * bool(name)
    tests += [_endpoint_shows(wanted, end) for end in BOTH]
    return lambda rows: any_of(test(rows) for test in tests)


def _held(rows: Rows) -> Mask:
    """Return which sockets a process holds; for the others the kernel reports uid 0, which is not shown."""
    return np.asarray(rows.table["idiag_inode"] != 0)


def _user_shows(wanted: str) -> Test:
    return lambda rows: _named(rows.table["idiag_uid"].astype(np.uint32), rows.users, wanted) & _held(rows)


def _interface_shows(wanted: str) -> Test:
    return lambda rows: _named(rows.table["idiag_if"].astype(np.uint32), {0: "", **rows.interfaces}, wanted)


def _named(values: NDArray[np.uint32], names: Mapping[int, str], wanted: str) -> Mask:
    """Return which numbers have the text in their name; a number without a name is shown as a number."""
    matched = np.isin(values, [number for number, name in names.items() if wanted in name.casefold()])
    if wanted.isascii() and wanted.isdigit():
        nameless = np.unique(values[~np.isin(values, list(names))])
        matched |= np.isin(values, [number for number in nameless.tolist() if wanted in str(number)])
    return matched


def _endpoint_shows(wanted: str, end: tuple[str, str]) -> Test:
    """Match the text in address, port, service name, or the whole: `192.0.2.1:80`, `[2001:db8::1]:80`."""
    address, port = end
    numbers, service = _port_texts(wanted, start=False), units.service_port(wanted)
    if service is not None:
        numbers = np.zeros(1 << 16, np.bool_) if numbers is None else numbers.copy()
        numbers[service] = True

    def mask(rows: Rows) -> Mask:
        addresses = Addresses.of(rows.table, address)
        matched = addresses.contain(_bracketed(wanted))
        if "[" in wanted or "]" in wanted:
            matched &= ~addresses.is_v4  # only IPv6 addresses have brackets
        if numbers is not None:
            matched |= _at_ports(rows, port, numbers)
        return matched | _across(addresses, rows, port, wanted)

    return mask


def _bracketed(wanted: str) -> AddressPiece:
    """Return the piece to find; a bracket is only before or after an IPv6 address."""
    return AddressPiece(wanted.removeprefix("[").removesuffix("]"), wanted[:1] == "[", wanted[-1:] == "]")


def _across(addresses: Addresses, rows: Rows, port: str, wanted: str) -> Mask:
    """Match the end of an address, a colon, and the beginning of a port."""
    host, colon, number = wanted.rpartition(":")
    begins = _port_texts(number, start=True)
    bracket = host.endswith("]")
    if not colon or begins is None or (":" in host and not bracket):
        return np.zeros(len(rows), np.bool_)
    matched = addresses.contain(replace(_bracketed(host), end=True))
    matched &= ~addresses.is_v4 if bracket else (addresses.is_v4 | (host == ""))
    return matched & _at_ports(rows, port, begins)


def _port_texts(wanted: str, start: bool) -> Mask | None:
    """Return for each port whether its number contains, or starts with, the text. Port 0 is not shown."""
    table = numbers_with(wanted, 1 << 16, 10, start)
    if table is not None and table[0]:
        table = table.copy()
        table[0] = False
    return table
