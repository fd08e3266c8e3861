"""`python -m tests.lab.scene_clients SCENE FAMILY FD`: the honest clients of a scene, behind a TUN device.

The path is as long as each client's round trip says: its ACK of a SYN+ACK comes so much later. Everything after the
handshake is answered at once.
"""

import heapq
import itertools
import os
import random
import select
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from tests.lab import scene_actor
from tests.lab.connection import Connection, Offer
from tests.lab.packets import Endpoint, Family, Flag, Segment, parse
from tests.lab.peer import LOCAL
from tests.lab.scene import Clients
from tests.lab.tun import MTU
from tests.lab.waiting import DEADLINE_S

_HOSTS: dict[Family, str] = {4: "198.18.1.{}", 6: "fd00:198:18::1:{}"}
_HOST_COUNT = 100  # each costs a neighbour entry in IPv6, of which there may be 1024
_FIRST_PORT = 10_000
_SYN_REPEATS_S = (1.0, 3.0)  # after the first SYN (RFC 6298, section 2)
_REQUEST = b"a few bytes"

Deed = Callable[[], None]


class Timetable:
    """Deeds in the order of their times."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Deed]] = []
        self._numbers = itertools.count()  # two of the same time: the first comes first

    def add(self, time_s: float, deed: Deed) -> None:
        heapq.heappush(self._heap, (time_s, next(self._numbers), deed))

    def after(self, seconds: float, deed: Deed) -> None:
        self.add(time.monotonic() + seconds, deed)

    def do_what_is_due(self) -> None:
        while self._heap and self._heap[0][0] <= time.monotonic():
            _, _, deed = heapq.heappop(self._heap)
            deed()

    @property
    def pause_s(self) -> float:
        """Until the next deed."""
        return max(self._heap[0][0] - time.monotonic(), 0.0)


class Device:
    """The line of all clients; there is one thread, so it needs no lock."""

    changed: AbstractContextManager[object] = nullcontext()

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def send(self, segment: Segment) -> None:
        os.write(self.fd, segment.pack())

    def wait_for(self, predicate: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
        raise RuntimeError(f"the thread that would wait for {what} is the one that reads")

    def read(self) -> Segment | None:
        """The next segment of the kernel; None if there is none now, or no TCP."""
        try:
            return parse(os.read(self.fd, MTU))
        except BlockingIOError:
            return None


class Crowd:
    """All clients of the scene, of all kinds."""

    def __init__(self, device: Device, family: Family, seed: str) -> None:
        self.timetable = Timetable()
        self._device = device
        self._family = family
        self._random = random.Random(seed)
        self._numbers = itertools.count()
        self._present: dict[tuple[Endpoint, Endpoint], tuple[Connection, Clients]] = {}

    def expect(self, kind: Clients) -> None:
        """Let clients of a kind arrive from now on, without end."""
        self._arrive(kind, time.monotonic())

    def hear(self, segment: Segment) -> None:
        """Take what the kernel sends to one of them; one who has gone does not answer."""
        ends = segment.source, segment.destination
        if ends not in self._present:
            return
        connection, kind = self._present[ends]
        if not segment.flags & Flag.SYN:
            connection.receive(segment)
        else:
            first = not connection.answered
            connection.receive_syn(segment)
            if first:
                self.timetable.after(self._random.uniform(*kind.rtt_ms) / 1000, partial(self._complete, ends))
        if connection.reset or (connection.fin_received and connection.all_acknowledged):
            del self._present[ends]

    def _arrive(self, kind: Clients, due: float) -> None:
        for _ in range(kind.burst):
            self._knock(kind)
        due += kind.burst / kind.per_s
        self.timetable.add(due, partial(self._arrive, kind, due))

    def _knock(self, kind: Clients) -> None:
        row, host = divmod(next(self._numbers), _HOST_COUNT)
        local = Endpoint.of(LOCAL[self._family], kind.port)
        remote = Endpoint.of(_HOSTS[self._family].format(host + 1), _FIRST_PORT + row)
        connection = Connection(self._device, local, remote, Offer())
        connection.completes = False  # not at once: see hear
        ends = local, remote
        self._present[ends] = connection, kind
        connection.syn()
        for pause_s in _SYN_REPEATS_S:
            self.timetable.after(pause_s, partial(self._knock_again, ends))

    def _knock_again(self, ends: tuple[Endpoint, Endpoint]) -> None:
        if ends in self._present and not (connection := self._present[ends][0]).answered:
            connection.syn()

    def _complete(self, ends: tuple[Endpoint, Endpoint]) -> None:
        if ends not in self._present:
            return
        connection, kind = self._present[ends]
        connection.complete()
        if kind.sends_after_s is not None:
            self.timetable.after(kind.sends_after_s, partial(self._send, ends))
        if kind.leaves_after_s is not None:
            self.timetable.after(kind.leaves_after_s, partial(self._leave, ends))

    def _send(self, ends: tuple[Endpoint, Endpoint]) -> None:
        if ends in self._present:
            self._present[ends][0].send(_REQUEST)

    def _leave(self, ends: tuple[Endpoint, Endpoint]) -> None:
        if ends in self._present:
            self._present[ends][0].fin()


def play(crowd: Crowd, device: Device) -> None:
    """Until the part is over."""
    while True:
        readable, _, _ = select.select([device.fd, scene_actor.CUE], [], [], crowd.timetable.pause_s)
        if scene_actor.CUE in readable:
            return
        while segment := device.read():
            crowd.hear(segment)
            crowd.timetable.do_what_is_due()
        crowd.timetable.do_what_is_due()


def main() -> None:
    scene, family, (fd,) = scene_actor.part()
    device = Device(fd)
    crowd = Crowd(device, family, scene.name)
    scene_actor.say_ready()
    for kind in scene.clients:
        crowd.expect(kind)
    play(crowd, device)


if __name__ == "__main__":
    main()
