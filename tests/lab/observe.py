"""Read the kernel's sockets from /proc/net/tcp and TCP_INFO.

This shares no code with the program under test, on purpose.
"""

import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from tests.lab.wire.packets import Endpoint, Family

# include/net/tcp_states.h, by the names of RFC 9293. Half-open sockets are 12 inside the kernel
# (TCP_NEW_SYN_RECV) but are shown as 3.
STATES = (
    "",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RCVD",
    "FIN_WAIT_1",
    "FIN_WAIT_2",
    "TIME_WAIT",
    "CLOSED",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
)
TIMERS = ("off", "retransmit", "keepalive", "timewait", "persist")  # by number

_PROC: dict[Family, Path] = {4: Path("/proc/net/tcp"), 6: Path("/proc/net/tcp6")}


@dataclass(frozen=True, slots=True)
class Row:
    """A socket; a line of /proc/net/tcp or tcp6 (Documentation/networking/proc_net_tcp.rst)."""

    family: Family  # of the socket: 6 for v4-mapped addresses
    local: Endpoint
    remote: Endpoint
    state: str
    transmit_queue: int  # bytes; LISTEN: 0, or from find_row the limit of the accept queue
    receive_queue: int  # bytes; LISTEN: connections waiting for accept()
    timer: str
    retransmits: int  # SYN_RCVD: of the SYN+ACK
    inode: int


def rows(family: Family) -> list[Row]:
    """Return all TCP sockets of one family in the main thread's namespace, except CLOSED ones."""
    lines = _PROC[family].read_text().splitlines()[1:]
    return [_row(family, line.split()) for line in lines]


def tcp_state(kernel: socket.socket) -> str:
    """Return the state of a socket of this process, by getsockopt(TCP_INFO)."""
    (number,) = kernel.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return STATES[number]


def _row(family: Family, fields: list[str]) -> Row:
    transmit, receive = fields[4].split(":")
    return Row(
        family=family,
        local=_endpoint(fields[1]),
        remote=_endpoint(fields[2]),
        state=STATES[int(fields[3], 16)],
        transmit_queue=int(transmit, 16),
        receive_queue=int(receive, 16),
        timer=TIMERS[int(fields[5].split(":")[0], 16)],
        retransmits=int(fields[6], 16),
        inode=int(fields[9]),
    )


def _endpoint(text: str) -> Endpoint:
    address, port = text.split(":")
    # Each 32 bit word is printed in the byte order of the machine.
    words = (int(address[at : at + 8], 16) for at in range(0, len(address), 8))
    packed = b"".join(struct.pack("=I", word) for word in words)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return Endpoint.of(socket.inet_ntop(family, packed), int(port, 16))
