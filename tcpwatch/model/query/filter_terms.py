"""The single tests that a filter is made of: each turns rows into a mask, all rows at once.

What a test asks of text is asked once of each distinct value (port, state, owner, user) and then looked up.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.arrays.digits import numbers_with
from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.model.lifecycle.ending import NOT_ENDED
from tcpwatch.model.query.address_match import Addresses, AddressPiece, Mask
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import SPELLINGS, State, normalised_name

Test = Callable[[Rows], Mask]

LOCAL, REMOTE = ("idiag_src", "idiag_sport"), ("idiag_dst", "idiag_dport")
"""The fields of each end: address, port."""
BOTH = (LOCAL, REMOTE)
Ends = tuple[tuple[str, str], ...]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def any_of(masks: Iterable[Mask]) -> Mask:
    """The rows that pass at least one."""
    return functools.reduce(np.logical_or, masks)


def states(wanted: Collection[State]) -> Test:
    """In one of these states."""
    table = np.zeros(256, np.bool_)
    table[list(wanted)] = True
    return lambda rows: table.take(rows.state)


def endings(wanted: Collection[int]) -> Test:
    """Ended so (ending.Ending, ending.ALIVE); where nobody has asked, all live."""
    table = np.zeros(256, np.bool_)
    table[list(wanted)] = True
    return lambda rows: np.full(len(rows), table[NOT_ENDED]) if rows.ending is None else table.take(rows.ending)


def roles(wanted: Collection[int]) -> Test:
    """In one of these roles."""
    table = np.zeros(256, np.bool_)
    table[list(wanted)] = True
    return lambda rows: table.take(rows.role)


def ports(ranges: Collection[tuple[int, int]], ends: Ends) -> Test:
    """A port of one of these ends lies in one of the ranges, both borders included."""
    table = np.zeros(1 << 16, np.bool_)
    for first, last in ranges:
        table[first : last + 1] = True
    return lambda rows: any_of(_at_ports(rows, port, table) for _, port in ends)


def _at_ports(rows: Rows, name: str, table: Mask) -> Mask:
    return table.take(rows.table[name].astype(np.uint16))


def field(name: str, wanted: Collection[int]) -> Test:
    """A number of the kernel's table is one of these."""
    return lambda rows: any_of(rows.table[name] == number for number in wanted)


def cookies(wanted: Collection[int]) -> Test:
    """The cookie is one of these."""
    return lambda rows: any_of(rows.cookie == np.uint64(number) for number in wanted)


def owners(test: Callable[[Owner], bool]) -> Test:
    """The owner passes; sockets without a known owner do not."""

    def mask(rows: Rows) -> Mask:
        table = np.array([*map(test, rows.owners), False], np.bool_)  # the last one is where negative codes look
        return table.take(np.maximum(rows.owner, -1))

    return mask


def users(name: str) -> Test:
    """The socket's user has this name, or this number; a socket that no process holds has none."""
    wanted = name.casefold()

    def mask(rows: Rows) -> Mask:
        uids = {uid for uid, known in rows.users.items() if known.casefold() == wanted}
        if wanted.isascii() and wanted.isdigit():
            uids.add(min(int(wanted), 0xFFFFFFFF))
        return np.isin(rows.table["idiag_uid"].astype(np.uint32), list(uids)) & _held(rows)

    return mask


def networks(network: Network, ends: Ends) -> Test:
    """An address of one of these ends lies in the network; IPv4-mapped addresses and networks count as IPv4."""
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
        found = np.full(len(hextets), network.version == 6)
        for i, shift in enumerate(range(112, -16, -16)):
            part = mask >> shift & 0xFFFF
            if network.version == 6 and part:
                found &= (hextets[:, i] & part) == base >> shift & 0xFFFF
        return found

    return lambda rows: any_of(Addresses.of(rows.table, name).match(v4, v6) for name, _ in ends)


def starts_with(prefix: str, ends: Ends) -> Test:
    """The text of an address of one of these ends starts so."""
    term = AddressPiece(prefix, start=True)
    return lambda rows: any_of(Addresses.of(rows.table, name).contain(term) for name, _ in ends)


def text_anywhere(term: str) -> Test:
    """The text, in any case, is part of something that the row shows."""
    wanted = term.casefold()

    def owned(owner: Owner) -> bool:
        return any(wanted in f"{p.name}[{p.pid}]".casefold() or wanted in p.command.casefold() for p in owner.processes)

    name = normalised_name(term)
    in_state = states([state for spelling, state in SPELLINGS.items() if name in spelling])
    tests = [owners(owned), _user_shows(wanted), _interface_shows(wanted)]
    tests += [in_state] * bool(name)
    tests += [_endpoint_shows(wanted, end) for end in BOTH]
    return lambda rows: any_of(test(rows) for test in tests)


def _held(rows: Rows) -> Mask:
    """The kernel says uid 0 where no process holds the socket, whoever owned it; that is not shown."""
    return np.asarray(rows.table["idiag_inode"] != 0)


def _user_shows(wanted: str) -> Test:
    return lambda rows: _named(rows.table["idiag_uid"].astype(np.uint32), rows.users, wanted) & _held(rows)


def _interface_shows(wanted: str) -> Test:
    def mask(rows: Rows) -> Mask:
        indices = rows.table["idiag_if"].astype(np.uint32)
        return _named(indices, {0: "", **rows.interfaces}, wanted)

    return mask


def _named(values: NDArray[np.uint32], names: Mapping[int, str], wanted: str) -> Mask:
    """Which numbers have the text in their name; one without a name is shown as it is."""
    found = np.isin(values, [number for number, name in names.items() if wanted in name.casefold()])
    if wanted.isascii() and wanted.isdigit():
        nameless = np.unique(values[~np.isin(values, list(names))])
        found |= np.isin(values, [number for number in nameless.tolist() if wanted in str(number)])
    return found


def _endpoint_shows(wanted: str, end: tuple[str, str]) -> Test:
    """Address, port, the name of the port's service, or all of it as `192.0.2.1:80`, `[2001:db8::1]:80`."""
    address, port = end
    numbers, service = _port_texts(wanted, start=False), units.service_port(wanted)
    if service is not None:
        numbers = np.zeros(1 << 16, np.bool_) if numbers is None else numbers.copy()
        numbers[service] = True

    def mask(rows: Rows) -> Mask:
        addresses = Addresses.of(rows.table, address)
        found = addresses.contain(_bracketed(wanted))
        if "[" in wanted or "]" in wanted:
            found &= ~addresses.is_v4  # the brackets belong to IPv6
        if numbers is not None:
            found |= _at_ports(rows, port, numbers)
        return found | _across(addresses, rows, port, wanted)

    return mask


def _bracketed(wanted: str) -> AddressPiece:
    """A bracket stands before an IPv6 address, or after it, and nowhere in it."""
    return AddressPiece(wanted.removeprefix("[").removesuffix("]"), wanted[:1] == "[", wanted[-1:] == "]")


def _across(addresses: Addresses, rows: Rows, port: str, wanted: str) -> Mask:
    """The end of an address, a colon, the beginning of a port."""
    host, colon, number = wanted.rpartition(":")
    begins = _port_texts(number, start=True)
    bracket = host.endswith("]")
    if not colon or begins is None or (":" in host and not bracket):
        return np.zeros(len(rows), np.bool_)
    found = addresses.contain(replace(_bracketed(host), end=True))
    found &= ~addresses.is_v4 if bracket else (addresses.is_v4 | (host == ""))
    return found & _at_ports(rows, port, begins)


def _port_texts(wanted: str, start: bool) -> Mask | None:
    """For every port whether its number contains the text, or starts with it. Port 0 is not shown."""
    table = numbers_with(wanted, 1 << 16, 10, start)
    if table is not None and table[0]:
        table = table.copy()
        table[0] = False
    return table
