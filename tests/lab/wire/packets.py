"""Raw TCP segments in IPv4 (RFC 791) and IPv6 (RFC 8200) packets: build, take apart."""

import socket
import struct
from dataclasses import dataclass
from enum import IntFlag
from typing import Literal, NamedTuple, Self

Family = Literal[4, 6]

SEQUENCE_SPACE = 1 << 32
IP_HEADER_LENGTH: dict[Family, int] = {4: 20, 6: 40}

_AF: dict[Family, socket.AddressFamily] = {4: socket.AF_INET, 6: socket.AF_INET6}
_HOP_LIMIT = 64
_DONT_FRAGMENT = 0x4000
_MAPPED = "::ffff:"  # IPv4 seen through an IPv6 socket (RFC 4291, 2.5.5.2)


class Flag(IntFlag):
    """The control bits of RFC 9293, section 3.1."""

    FIN = 1
    SYN = 2
    RST = 4
    PSH = 8
    ACK = 16
    URG = 32
    ECE = 64
    CWR = 128


class Endpoint(NamedTuple):
    """An address in its canonical spelling, and a port."""

    address: str
    port: int

    @classmethod
    def of(cls, address: str, port: int) -> Self:
        """Accept any spelling; a v4-mapped IPv6 address becomes its IPv4 address."""
        plain = address.partition("%")[0]
        if plain.lower().startswith(_MAPPED) and "." in plain:
            plain = plain[len(_MAPPED) :]
        family = _AF[family_of(plain)]
        return cls(socket.inet_ntop(family, socket.inet_pton(family, plain)), port)

    @property
    def family(self) -> Family:
        return family_of(self.address)


def family_of(address: str) -> Family:
    return 6 if ":" in address else 4


@dataclass(frozen=True, slots=True)
class Options:
    """TCP options (RFC 9293 section 3.2, RFC 7323, RFC 2018); None or False: not sent."""

    mss: int | None = None  # bytes
    window_scale: int | None = None  # bits
    sack_permitted: bool = False
    timestamps: tuple[int, int] | None = None  # own value, echoed value

    def pack(self) -> bytes:
        parts = b""
        if self.mss is not None:
            parts += struct.pack("!BBH", 2, 4, self.mss)
        if self.window_scale is not None:
            parts += struct.pack("!BBB", 3, 3, self.window_scale)
        if self.sack_permitted:
            parts += b"\x04\x02"
        if self.timestamps is not None:
            parts += struct.pack("!BBII", 8, 10, *self.timestamps)
        return parts + b"\x01" * (-len(parts) % 4)  # no-operation up to a 32 bit boundary

    @classmethod
    def parse(cls, data: bytes) -> Self:
        found = _split_options(data)
        return cls(
            mss=struct.unpack("!H", found[2])[0] if 2 in found else None,
            window_scale=found[3][0] if 3 in found else None,
            sack_permitted=4 in found,
            timestamps=struct.unpack("!II", found[8]) if 8 in found else None,
        )


def _split_options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != 0:  # 0 ends the list
        if data[at] == 1:  # no-operation has no length
            at += 1
            continue
        length = data[at + 1]
        found[data[at]] = data[at + 2 : at + length]
        at += max(length, 2)
    return found


@dataclass(frozen=True, slots=True)
class Segment:
    """One TCP segment; `seq` and `ack` are absolute, `window` is the field as sent, unscaled."""

    source: Endpoint
    destination: Endpoint
    flags: Flag
    seq: int = 0
    ack: int = 0
    window: int = 65535
    options: Options = Options()
    payload: bytes = b""

    @property
    def family(self) -> Family:
        return self.source.family

    @property
    def length(self) -> int:
        """The number of sequence numbers it uses: SYN and FIN count one each (RFC 9293, 3.4)."""
        return len(self.payload) + bool(self.flags & Flag.SYN) + bool(self.flags & Flag.FIN)

    def pack(self) -> bytes:
        """Return the whole IP packet with correct checksums."""
        options = self.options.pack()
        fields = (self.source.port, self.destination.port, self.seq, self.ack)
        offset = (20 + len(options)) // 4 << 4
        tcp = struct.pack("!HHIIBBHHH", *fields, offset, self.flags, self.window, 0, 0)
        tcp += options + self.payload
        ends = addresses(self.source, self.destination)
        pseudo_header = ends + struct.pack("!II", len(tcp), socket.IPPROTO_TCP)
        tcp = tcp[:16] + checksum(pseudo_header + tcp).to_bytes(2) + tcp[18:]
        return ip_header(ends, socket.IPPROTO_TCP, len(tcp)) + tcp


def addresses(source: Endpoint, destination: Endpoint) -> bytes:
    """Both, as an IP header has them."""
    family = _AF[source.family]
    return socket.inet_pton(family, source.address) + socket.inet_pton(family, destination.address)


def ip_header(ends: bytes, protocol: int, length: int) -> bytes:
    """Return the header of a packet between these `addresses` with `length` bytes after it."""
    if len(ends) == 32:
        return struct.pack("!IHBB", 6 << 28, length, protocol, _HOP_LIMIT) + ends
    form = "!BBHHHBBH"
    fields = (0x45, 0, 20 + length, 0, _DONT_FRAGMENT, _HOP_LIMIT, protocol)
    return struct.pack(form, *fields, checksum(struct.pack(form, *fields, 0) + ends)) + ends


def parse(packet: bytes) -> Segment | None:
    """Parse an IP packet; None if it is not TCP."""
    version = packet[0] >> 4
    if version == 4 and packet[9] == socket.IPPROTO_TCP:
        length = int.from_bytes(packet[2:4])
        addresses, tcp = packet[12:20], packet[(packet[0] & 15) * 4 : length]
    elif version == 6 and packet[6] == socket.IPPROTO_TCP:
        addresses, tcp = packet[8:40], packet[40 : 40 + int.from_bytes(packet[4:6])]
    else:
        return None
    family = _AF[4 if version == 4 else 6]
    half = len(addresses) // 2
    source, destination = (socket.inet_ntop(family, part) for part in (addresses[:half], addresses[half:]))
    return _parse_tcp(source, destination, tcp)


def _parse_tcp(source: str, destination: str, tcp: bytes) -> Segment:
    ports, seq, ack, offset, flags, window = struct.unpack_from("!IIIBBH", tcp)
    start = (offset >> 4) * 4
    return Segment(
        Endpoint(source, ports >> 16),
        Endpoint(destination, ports & 0xFFFF),
        Flag(flags),
        seq,
        ack,
        window,
        Options.parse(tcp[20:start]),
        tcp[start:],
    )


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071): the complement of the one's complement sum."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
