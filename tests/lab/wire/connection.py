"""One TCP connection of the scripted peer, which follows the script even where it breaks the protocol."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Self

from tests.lab.waiting import DEADLINE_S
from tests.lab.wire.icmp import Unreachable
from tests.lab.wire.packets import SEQUENCE_SPACE, Endpoint, Flag, Options, Segment
from tests.lab.wire.wire import Line

# Each connection starts above the ones before it, so that a kernel socket in TIME_WAIT accepts
# a new connection of the same endpoints (RFC 9293, section 3.6.1).
_initial_sequence_numbers = itertools.count(1_000_000, 1_000_000)


class Policy(Enum):
    """The answer of a scripted host to a SYN of the kernel's connect()."""

    ACCEPT = auto()  # SYN+ACK: the kernel's socket becomes ESTABLISHED
    REFUSE = auto()  # RST: connect() fails with ECONNREFUSED
    SILENT = auto()  # no answer: SYN_SENT until the kernel gives up
    SIMULTANEOUS_OPEN = auto()  # a SYN of its own, then the ACK (RFC 9293, section 3.5, figure 7)
    SIMULTANEOUS_HALF_OPEN = auto()  # a SYN of its own, never the ACK: SYN_RCVD


@dataclass(frozen=True, slots=True)
class Offer:
    """The options the scripted side offers; they are used if the kernel offers them, too."""

    mss: int = 1460  # bytes
    window_scale: int | None = None  # bits
    sack_permitted: bool = False  # the peer itself never sends SACK blocks
    timestamps: bool = False


class Connection:
    """`local` is the kernel's endpoint and `remote` the peer's: the names a monitor uses.

    The attributes tell what the kernel has shown the peer; they change on the reader thread, so
    read them through wait_for, or after it. The peer never repeats anything by itself.
    """

    def __init__(self, wire: Line, local: Endpoint, remote: Endpoint, offer: Offer) -> None:
        self.local = local
        self.remote = remote
        self.completes = True  # answer a SYN+ACK with the last ACK of the handshake
        self.answered = False  # the kernel has sent its SYN+ACK
        self.established = False
        self.fin_received = False
        self.reset = False  # the kernel has sent RST
        self.received = b""
        self.lost = 0  # segments dropped by lose_every
        self.unreachable: Unreachable | None = None  # the ICMP error that answers the kernel's next SYN
        self._wire = wire
        self._offer = offer
        self._agreed = Options()  # the kernel's options that the peer has offered, too
        self._timestamp = 0  # the kernel's last timestamp, to be echoed
        self._next = next(_initial_sequence_numbers) % SEQUENCE_SPACE  # SND.NXT of RFC 9293, 3.3.1
        self._una = self._next  # SND.UNA
        self._expected = 0  # RCV.NXT: all before it has arrived
        self._acknowledged = 0  # all before it has been acknowledged to the kernel
        self._kernel_start = -1  # IRS
        self._acknowledging = True
        self._acknowledging_fin = True
        self._window = 65535  # bytes
        self._buffer: int | None = None  # bytes, if the peer does not read
        self._kernel_window = 0  # bytes, from _una
        self._kernel_scale = 0
        self._lose_every = 0
        self._carrying = 0  # segments with data or FIN the kernel has sent

    # Actions of the script ------------------------------------------------------------------

    def syn(self, data: bytes = b"") -> None:
        """Send, or retransmit, the peer's SYN; with `data` it is a TCP Fast Open (RFC 7413)."""
        with self._wire.changed:
            self._send_syn(Flag.SYN, data)

    def complete(self) -> None:
        """Send the last ACK of the handshake."""
        with self._wire.changed:
            self.completes = True
            self._send(Flag.ACK)
            self.established = True

    def answer(self, policy: Policy) -> None:
        """Answer the kernel's SYN; after SILENT, a second answer may follow at any time."""
        with self._wire.changed:
            if policy is Policy.ACCEPT:
                self._send_syn(Flag.SYN | Flag.ACK)
            elif policy is Policy.REFUSE:
                self.rst()
            elif policy is not Policy.SILENT:
                self.completes = policy is Policy.SIMULTANEOUS_OPEN
                self._send_syn(Flag.SYN)

    def send(self, data: bytes) -> None:
        """Send data, at most the kernel's receive window (64 KiB at the start)."""
        with self._wire.changed:
            size = self._offer.mss
            for at in range(0, len(data), size):
                self._send(Flag.ACK | Flag.PSH, data[at : at + size])

    def fin(self, *, acknowledging: bool = False) -> None:
        """Send a FIN that acknowledges nothing new, or, with `acknowledging`, everything."""
        with self._wire.changed:
            if acknowledging:
                self._acknowledged = self._expected
            self._send(Flag.ACK | Flag.FIN)

    def rst(self) -> None:
        """Reset the connection; right in every state, as its sequence number is exact."""
        with self._wire.changed:
            self._send(Flag.ACK | Flag.RST)

    def close(self, deadline_s: float = DEADLINE_S) -> None:
        """Send a FIN, as the first or the second end to close, and wait for its ACK."""
        self.acknowledge()
        self.fin()
        self.wait_for(lambda self: self.all_acknowledged, "the ACK of the FIN", deadline_s)

    def acknowledge(self, data: bool = True, *, fin: bool = True) -> None:
        """Acknowledge what the kernel sends: all, nothing (False), all but its FIN (fin=False).

        What is not acknowledged is received all the same; switched on again, it is acknowledged.
        """
        with self._wire.changed:
            self._acknowledging = data
            self._acknowledging_fin = fin
            if self.established:
                self._acknowledge()

    def window(self, size: int) -> None:
        """Set the window that the kernel may use; 0 makes it probe (RFC 9293, 3.8.6.1)."""
        with self._wire.changed:
            self._window = size
            self._send(Flag.ACK)

    def stop_reading(self, buffer: int) -> None:
        """Stop reading: from now on the window is what is left of this buffer. Best called before the handshake."""
        with self._wire.changed:
            self._buffer = buffer

    def read_all(self) -> None:
        """Empty the buffer, read everything from now on, and send the new window."""
        with self._wire.changed:
            self._buffer = None
            self._send(Flag.ACK)

    def lose_every(self, nth: int) -> None:
        """From now on drop every nth segment with data or FIN from the kernel; 0: drop none."""
        with self._wire.changed:
            self._lose_every = nth
            self._carrying = 0

    def wait_for(self, predicate: Callable[[Self], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
        """Wait until the predicate is true for this connection; TimeoutError if it does not become true."""
        what = f"{what} ({self.remote} to {self.local})"
        self._wire.wait_for(lambda: predicate(self), what, deadline_s)

    @property
    def all_acknowledged(self) -> bool:
        """Whether the kernel has acknowledged everything the peer has sent."""
        return self._una == self._next

    @property
    def room(self) -> int:
        """Bytes that the peer may still send in the kernel's window."""
        return max(self._kernel_window - (self._next - self._una) % SEQUENCE_SPACE, 0)

    def belongs_to(self, syn: Segment) -> bool:
        """Return whether the kernel's SYN is a retransmit of the one that began this connection."""
        return self._kernel_start == syn.seq

    # Segments of the kernel: called by the Peer, under the lock -------------------------------

    def receive_syn(self, segment: Segment) -> None:
        """Process the kernel's SYN, with or without ACK, original or retransmitted."""
        self._kernel_start = segment.seq
        if not self.established:
            self._expected = self._acknowledged = (segment.seq + 1) % SEQUENCE_SPACE
        self._agree(segment.options)
        if not segment.flags & Flag.ACK:
            return
        self.answered = True
        self._una = segment.ack
        self._kernel_window = segment.window  # never scaled in a SYN (RFC 7323, section 2.2)
        if self.established:
            self._acknowledge()
        elif self.completes:
            self.complete()

    def receive(self, segment: Segment) -> None:
        """Process any segment without SYN."""
        if segment.flags & Flag.RST:
            self.reset = True
            return
        if segment.length and self._is_lost():
            return
        if segment.options.timestamps:
            self._timestamp = segment.options.timestamps[0]
        self._una = segment.ack
        self._kernel_window = segment.window << self._kernel_scale
        self.established = self.established or self.all_acknowledged
        in_order = segment.seq == self._expected
        self._take(segment)
        # Not in order: a retransmit, a keepalive or a window probe. All need an ACK.
        if segment.length or not in_order:
            self._acknowledge()

    def _is_lost(self) -> bool:
        self._carrying += 1
        lost = self._lose_every > 0 and self._carrying % self._lose_every == 0
        self.lost += lost
        return lost

    def _take(self, segment: Segment) -> None:
        known = (self._expected - segment.seq) % SEQUENCE_SPACE  # retransmitted bytes at its start
        if known >= segment.length or self.fin_received:
            return  # nothing new, or a gap before it
        data = segment.payload[known:]
        if data and not self._open:
            return
        self.received += data
        self.fin_received = bool(segment.flags & Flag.FIN)
        new = len(data) + self.fin_received
        self._expected = (self._expected + new) % SEQUENCE_SPACE

    @property
    def _open(self) -> int:
        """The window, bytes."""
        return self._window if self._buffer is None else max(self._buffer - len(self.received), 0)

    def _acknowledge(self) -> None:
        if not self._acknowledging:
            return
        held_back = self.fin_received and not self._acknowledging_fin
        self._acknowledged = (self._expected - held_back) % SEQUENCE_SPACE
        self._send(Flag.ACK)

    # Options and segments -------------------------------------------------------------------

    def _agree(self, theirs: Options) -> None:
        offer = self._offer
        scaled = offer.window_scale is not None and theirs.window_scale is not None
        stamped = offer.timestamps and theirs.timestamps
        self._agreed = Options(
            window_scale=offer.window_scale if scaled else None,
            sack_permitted=offer.sack_permitted and theirs.sack_permitted,
            timestamps=theirs.timestamps if stamped else None,
        )
        self._kernel_scale = theirs.window_scale or 0 if scaled else 0
        self._timestamp = theirs.timestamps[0] if theirs.timestamps else 0

    def _send_syn(self, flags: Flag, data: bytes = b"") -> None:
        self._next = self._una  # always the same number: a SYN may be a retransmit
        agreed = self._offer if flags is Flag.SYN else self._agreed
        stamps = (_clock(), self._timestamp) if agreed.timestamps else None
        options = Options(self._offer.mss, agreed.window_scale, agreed.sack_permitted, stamps)
        self._emit(flags, min(self._open, 65535), options, data)

    def _send(self, flags: Flag, payload: bytes = b"") -> None:
        stamps = (_clock(), self._timestamp) if self._agreed.timestamps else None
        window = min(self._open >> (self._agreed.window_scale or 0), 65535)
        self._emit(flags, window, Options(timestamps=stamps), payload)

    def _emit(self, flags: Flag, window: int, options: Options, payload: bytes = b"") -> None:
        ack = self._acknowledged if flags & Flag.ACK else 0
        segment = Segment(self.remote, self.local, flags, self._next, ack, window, options, payload)
        self._next = (self._next + segment.length) % SEQUENCE_SPACE
        self._wire.send(segment)


def _clock() -> int:
    """Return a timestamp value: milliseconds, modulo 32 bits (RFC 7323, section 5.4)."""
    return time.monotonic_ns() // 1_000_000 % SEQUENCE_SPACE
