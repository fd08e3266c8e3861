"""SYNs by the hundred thousand, from hosts that do not exist."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from tests.lab.machine.namespace import Namespace
from tests.lab.wire.packets import IP_HEADER_LENGTH, Endpoint, Family, Flag, Options, Segment
from tests.lab.wire.tun import make_tun

# Spoofed sources: the upper half of the peer's IPv4 range, a corner of its IPv6 network.
_FIRST: dict[Family, IPv4Address | IPv6Address] = {
    4: IPv4Address("198.19.0.1"),
    6: IPv6Address("fd00:198:18:0:f::1"),
}
MOST_ADDRESSES = 65_000
_ROUTES = ("198.19.0.0/16 dev {0}", "fd00:198:18:0:f::/80 via fe80::1 dev {0}")
_FIRST_PORT = 1024
_PORTS = 65_536 - _FIRST_PORT
_BATCH = 64  # SYNs between two readings of the clock, fewer at low rates
_BATCHES_PER_S = 100
_PROJECT = Path(__file__).parents[3]

Template = tuple[bytes, bytes]  # a packet without its middle: ports and sequence number


@dataclass(frozen=True, slots=True)
class FloodReport:
    """Number of SYNs written, and the seconds it took."""

    sent: int
    seconds: float

    @property
    def rate(self) -> float:
        """SYNs per second."""
        return self.sent / self.seconds


class Flood:
    """A TUN device of its own that is never read: the kernel's SYN+ACKs are lost at once.

    Neither the flood nor a Peer in the same namespace is slowed down by the answers.
    """

    def __init__(self, namespace: Namespace, device: str = "flood0") -> None:
        self._rows = 0  # source ports used up
        self.fd = make_tun(
            namespace,
            device,
            f"link set {device} txqueuelen 1 up",
            # Through a router: otherwise each spoofed IPv6 address needs a neighbour entry, and
            # net.ipv6.neigh.default.gc_thresh3 allows 1024.
            *(f"route add {route.format(device)}" for route in _ROUTES),
        )

    def close(self) -> None:
        os.close(self.fd)

    def send(self, target: Endpoint, count: int, *, rate: float | None = None, addresses: int = 256) -> FloodReport:
        """Send `count` SYNs to the target, at `rate` per second or as fast as possible.

        The sources are `addresses` hosts in turn, each SYN from a (host, port) of its own; the
        next call continues with the next ports. After 64,512 ports the sources start again.

        To keep them all half-open, listen with a backlog above twice the count: the kernel thins out a SYN queue that
        is more than half full (reqsk_timer_handler in inet_connection_sock.c).
        """
        row = self._take_rows(count, addresses)
        return send_syns(self.fd, target, count, rate, addresses, row)

    def start(
        self, target: Endpoint, count: int, *, rate: float | None = None, addresses: int = 256
    ) -> subprocess.Popen[str]:
        """Like `send`, in a process of its own; `finish` waits for it and returns the report."""
        row = self._take_rows(count, addresses)
        arguments = [self.fd, *target, count, rate or 0, addresses, row]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.lab.wire.flood_process", *map(str, arguments)],
            cwd=_PROJECT,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[self.fd],
        )

    def _take_rows(self, count: int, addresses: int) -> int:
        if not 0 < addresses <= MOST_ADDRESSES:
            raise ValueError(f"addresses must be 1 to {MOST_ADDRESSES}, not {addresses}")
        row, self._rows = self._rows, self._rows + -(-count // addresses)
        return row


def finish(process: subprocess.Popen[str]) -> FloodReport:
    """Wait until a process made by Flood.start ends; return its report."""
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the flood ended with {process.returncode}")
    return FloodReport(**json.loads(output))


def print_report(report: FloodReport) -> None:
    """Print the report that `finish` reads."""
    print(json.dumps(asdict(report)))


def send_syns(fd: int, target: Endpoint, count: int, rate: float | None, addresses: int, first_row: int) -> FloodReport:
    """Write the SYNs to the device; row n is one SYN from the n-th port of every address."""
    templates = list(_templates(target, min(addresses, count)))
    write = os.write
    sent = 0
    start = time.monotonic()
    for middle, batch in _batches(templates, target.port, count, rate, first_row):
        for head, tail in batch:
            write(fd, head + middle + tail)
        sent += len(batch)
        if rate:
            time.sleep(max(0.0, sent / rate - (time.monotonic() - start)))
    return FloodReport(sent, time.monotonic() - start)


def _batches(
    templates: list[Template], port: int, count: int, rate: float | None, first_row: int
) -> Iterator[tuple[bytes, list[Template]]]:
    size = max(1, min(_BATCH, int(rate / _BATCHES_PER_S))) if rate else len(templates)
    for row in itertools.count(first_row):
        middle = _middle(_FIRST_PORT + row % _PORTS, port)
        for at in range(0, len(templates), size):
            batch = templates[at : min(at + size, at + count)]
            yield middle, batch
            count -= len(batch)
            if not count:
                return


def _middle(source_port: int, port: int) -> bytes:
    """Ports and sequence number, whose 16 bit words have the same sum whatever the source port.

    The low word of the sequence number is the complement of the source port, so the checksum of
    the whole packet stays that of its template (RFC 1624 with nothing to update).
    """
    words = (source_port, port, 0x1234, 0xFFFF - source_port)
    return b"".join(word.to_bytes(2) for word in words)


def _templates(target: Endpoint, addresses: int) -> Iterator[Template]:
    family = target.family
    start = IP_HEADER_LENGTH[family]
    for number in range(addresses):
        source = Endpoint(str(_FIRST[family] + number), 0)
        syn = Segment(source, target, Flag.SYN, seq=0x1234FFFF, options=Options(mss=1460))
        packet = syn.pack()
        yield packet[:start], packet[start + 8 :]
