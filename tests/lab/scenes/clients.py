"""The honest clients of a scene, behind the TUN device.

Each client's ACK of a SYN+ACK is delayed by its round trip time. Everything after the handshake is answered at once.
"""

import itertools
import random
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial

from tests.lab.scenes.line import Device, Timetable
from tests.lab.scenes.parts import Clients
from tests.lab.wire.connection import Connection, Offer
from tests.lab.wire.packets import Endpoint, Family, Flag, Segment
from tests.lab.wire.peer import LOCAL

_HOSTS: dict[Family, str] = {4: "198.18.1.{}", 6: "fd00:198:18::1:{}"}
_HOST_COUNT = 100  # each needs a neighbour entry in IPv6, and the limit is 1024
_FIRST_PORT = 10_000
_SYN_REPEATS_S = (1.0, 3.0)  # after the first SYN (RFC 6298, section 2)
_REQUEST = b"a few bytes"
_SEGMENT = 1460  # bytes: a client that fills the kernel's window sends at least this much

Ends = tuple[Endpoint, Endpoint]


@dataclass(slots=True)
class Guest:
    """One client, from its SYN until both ends have closed."""

    connection: Connection
    kind: Clients
    asked: int = 0  # bytes
    left: bool = False

    @property
    def finished(self) -> bool:
        it = self.connection
        return it.reset or (it.fin_received and it.all_acknowledged and (self.left or not self.kind.follows))


class Crowd:
    """All clients of the scene, of all kinds."""

    def __init__(self, device: Device, timetable: Timetable, family: Family, seed: str) -> None:
        self._device = device
        self._timetable = timetable
        self._family = family
        self._random = random.Random(seed)
        self._numbers = itertools.count()
        self._present: dict[Ends, Guest] = {}
        self._arrived: Counter[Clients] = Counter()
        self._carried: Counter[Clients] = Counter()  # segments with data or FIN, including lost ones

    def expect(self, kind: Clients) -> None:
        """Let clients of a kind arrive from now on, without end or until `most` have arrived."""
        self._arrive(kind, time.monotonic())

    def hear(self, segment: Segment) -> bool:
        """Process a segment to one of the clients; return whether it was for one that is still there."""
        ends = segment.source, segment.destination
        guest = self._present.get(ends)
        if guest is None:
            return False
        if segment.flags & Flag.SYN:
            self._begin(guest, ends, segment)
        elif not self._is_lost(guest.kind, segment):
            guest.connection.receive(segment)
            self._go_on(guest)
        if guest.finished:
            del self._present[ends]
        return True

    def _begin(self, guest: Guest, ends: Ends, segment: Segment) -> None:
        first = not guest.connection.answered
        guest.connection.receive_syn(segment)
        if first:
            self._timetable.after(self._random.uniform(*guest.kind.rtt_ms) / 1000, partial(self._complete, ends))

    def _is_lost(self, kind: Clients, segment: Segment) -> bool:
        if not kind.loses_every or not segment.length:
            return False
        self._carried[kind] += 1
        return self._carried[kind] % kind.loses_every == 0

    def _go_on(self, guest: Guest) -> None:
        """Respond at once to what the kernel has sent."""
        connection, kind = guest.connection, guest.kind
        # What is left of a nearly closed window is used when nothing else is in flight (RFC 9293, 3.8.6.2.1).
        if kind.fills and connection.room >= (1 if connection.all_acknowledged else _SEGMENT):
            connection.send(bytes(connection.room))
        if kind.follows and connection.fin_received and not guest.left:
            guest.left = True
            connection.fin()

    def _arrive(self, kind: Clients, due: float) -> None:
        for _ in range(kind.burst):
            self._knock(kind)
        self._arrived[kind] += kind.burst
        due += kind.burst / kind.per_s
        if kind.most is None or self._arrived[kind] < kind.most:
            self._timetable.add(due, partial(self._arrive, kind, due))

    def _knock(self, kind: Clients) -> None:
        row, host = divmod(next(self._numbers), _HOST_COUNT)
        local = Endpoint.of(LOCAL[self._family], kind.port)
        remote = Endpoint.of(_HOSTS[self._family].format(host + 1), _FIRST_PORT + row)
        connection = Connection(self._device, local, remote, Offer())
        connection.completes = False  # not at once: see _begin
        connection.acknowledge(fin=kind.acknowledges_fin)
        ends = local, remote
        self._present[ends] = Guest(connection, kind)
        connection.syn()
        for pause_s in _SYN_REPEATS_S:
            self._timetable.after(pause_s, partial(self._knock_again, ends))

    def _knock_again(self, ends: Ends) -> None:
        if ends in self._present and not (connection := self._present[ends].connection).answered:
            connection.syn()

    def _complete(self, ends: Ends) -> None:
        guest = self._present.get(ends)
        if guest is None:
            return
        guest.connection.complete()
        kind = guest.kind
        if kind.sends_after_s is not None:
            self._timetable.after(kind.sends_after_s, partial(self._ask, ends))
        if kind.asks_every_s is not None:
            self._ask_again(ends)
        if kind.leaves_after_s is not None:
            self._timetable.after(kind.leaves_after_s, partial(self._leave, ends))
        self._go_on(guest)

    def _ask(self, ends: Ends) -> None:
        if guest := self._present.get(ends):
            guest.asked += len(_REQUEST)
            guest.connection.send(_REQUEST)

    def _ask_again(self, ends: Ends) -> None:
        guest = self._present.get(ends)
        if guest is None or guest.kind.asks_every_s is None:
            return
        if len(guest.connection.received) == guest.asked:
            self._ask(ends)
        self._timetable.after(guest.kind.asks_every_s, partial(self._ask_again, ends))

    def _leave(self, ends: Ends) -> None:
        if guest := self._present.get(ends):
            guest.left = True
            guest.connection.fin()
