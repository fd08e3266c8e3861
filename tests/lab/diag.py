"""Small requests to sock_diag: find one socket, dump a state, list bound sockets, destroy a socket.

Finding one socket by its ends is cheap, while each reading of /proc/net/tcp walks through the kernel's whole hash table
(tens of milliseconds even when it is empty). Sockets that are only bound are not in /proc/net/tcp.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator

from tests.lab.observe import STATES, TIMERS, Row
from tests.lab.wire.packets import Endpoint, Family

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, net/tcp_states.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_SOCK_DESTROY = 21
_NLM_F_REQUEST = 0x001
_NLM_F_ACK = 0x004
_NLM_F_DUMP = 0x300
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_TCP_BOUND_INACTIVE = 13
_ALL_STATES = 0xFFFFFFFF
_ANY_COOKIE = b"\xff" * 8  # INET_DIAG_NOCOOKIE
_NO_ID = bytes(48)  # struct inet_diag_sockid
_HEADER = 16  # struct nlmsghdr

_AF: dict[Family, socket.AddressFamily] = {4: socket.AF_INET, 6: socket.AF_INET6}


def find_row(family: Family, local: Endpoint, remote: Endpoint) -> Row | None:
    """Return the socket of the family with these ends, as the kernel shows it now.

    In a socket of family 6, IPv4 ends are v4-mapped.
    """
    found = next(_ask(family, _ALL_STATES, _identity(family, local, remote), 0), None)
    row = _row(found) if found else None
    # If there is no such connection, the kernel answers with the listener for it.
    return row if row and (row.local, row.remote) == (local, remote) else None


def dump(family: Family, state: str) -> list[Row]:
    """Return all sockets in a state. Listeners are cheap; for other states the kernel walks its whole table."""
    return [_row(message) for message in _ask(family, 1 << STATES.index(state), _NO_ID, _NLM_F_DUMP)]


def bound_inactive(family: Family) -> set[Endpoint]:
    """Return the local ends of sockets bound to a port but neither listening nor connected (Linux 6.8).

    /proc/net/tcp and older versions of `ss` leave them out.
    """
    messages = _ask(family, 1 << _TCP_BOUND_INACTIVE, _NO_ID, _NLM_F_DUMP)
    return {_row(message).local for message in messages}


def destroy(family: Family, local: Endpoint, remote: Endpoint) -> None:
    """Destroy the socket with these ends, as `ss -K` does (CONFIG_INET_DIAG_DESTROY).

    It must exist: otherwise the kernel destroys the listener for it.
    """
    list(_ask(family, _ALL_STATES, _identity(family, local, remote), _NLM_F_ACK, _SOCK_DESTROY))


def _identity(family: Family, local: Endpoint, remote: Endpoint) -> bytes:
    """Return a struct inet_diag_sockid."""
    ends = struct.pack("!HH", local.port, remote.port)
    return ends + _pack_address(family, local) + _pack_address(family, remote) + bytes(4) + _ANY_COOKIE


def _pack_address(family: Family, end: Endpoint) -> bytes:
    if family == 6 and end.family == 4:
        return socket.inet_pton(socket.AF_INET6, f"::ffff:{end.address}")
    return socket.inet_pton(_AF[family], end.address).ljust(16, b"\0")


def _ask(family: Family, states: int, identity: bytes, flags: int, kind: int = _SOCK_DIAG_BY_FAMILY) -> Iterator[bytes]:
    """Send a struct inet_diag_req_v2; yield each struct inet_diag_msg of the answer."""
    body = struct.pack("=BBBxI", _AF[family], socket.IPPROTO_TCP, 0, states) + identity
    head = struct.pack("=IHHII", _HEADER + len(body), kind, _NLM_F_REQUEST | flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as diag:
        diag.send(head + body)
        while messages := list(_split(diag.recv(65_536))):
            yield from messages
            if not flags & _NLM_F_DUMP:
                return


def _split(answer: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(answer):
        length, kind = struct.unpack_from("=IH", answer, at)
        if kind == _NLMSG_DONE:
            return
        if kind == _NLMSG_ERROR:
            (number,) = struct.unpack_from("=i", answer, at + _HEADER)
            if -number in (0, errno.ENOENT):  # done, or no such socket
                return
            raise OSError(-number, os.strerror(-number))
        yield answer[at + _HEADER : at + length]
        at += (length + 3) & ~3


def _row(message: bytes) -> Row:
    af, state, timer, retransmits = message[:4]
    ports = struct.unpack_from("!HH", message, 4)
    receive, transmit, _uid, inode = struct.unpack_from("=IIII", message, 56)
    size = 4 if af == socket.AF_INET else 16
    local, remote = (
        Endpoint.of(socket.inet_ntop(af, message[at : at + size]), port)
        for at, port in zip((8, 24), ports, strict=True)
    )
    family: Family = 4 if af == socket.AF_INET else 6
    return Row(family, local, remote, STATES[state], transmit, receive, TIMERS[timer], retransmits, inode)
