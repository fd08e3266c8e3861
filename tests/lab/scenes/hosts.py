"""The hosts of a scene that accept connections, behind the TUN device: ports of one address."""

from dataclasses import dataclass
from functools import partial

from tests.lab.scenes.line import Device, Timetable
from tests.lab.scenes.parts import Host
from tests.lab.wire.connection import Connection, Offer, Policy
from tests.lab.wire.packets import Endpoint, Flag, Segment

_ANSWER = b"a few bytes"


@dataclass(slots=True)
class Call:
    """One connection, or connection attempt, of a process of the host."""

    connection: Connection
    host: Host
    answered: int = 0  # bytes
    closed: bool = False

    def go_on(self) -> None:
        """Respond at once to what the kernel has sent."""
        it, manner = self.connection, self.host.manner
        if manner == "reads nothing":
            return
        asked = len(it.received) > self.answered
        if asked:
            self.answered = len(it.received)
            it.send(_ANSWER)
        if not self.closed and (it.fin_received or (asked and manner == "answers and closes")):
            self.closed = True
            it.fin()

    @property
    def over(self) -> bool:
        it = self.connection
        return it.reset or (self.closed and it.fin_received and it.all_acknowledged)


class Hosts:
    """All hosts; a port without a host refuses connections."""

    def __init__(self, device: Device, timetable: Timetable, hosts: tuple[Host, ...]) -> None:
        self._device = device
        self._timetable = timetable
        self._hosts = {host.port: host for host in hosts}
        self._calls: dict[tuple[Endpoint, Endpoint], Call] = {}

    def hear(self, segment: Segment) -> None:
        """Process a segment to one of the hosts."""
        ends = segment.source, segment.destination
        if segment.flags & Flag.SYN:
            self._receive_syn(segment)
        elif call := self._calls.get(ends):
            call.connection.receive(segment)
            call.go_on()
            if call.over:
                del self._calls[ends]

    def _receive_syn(self, syn: Segment) -> None:
        host = self._hosts.get(syn.destination.port)
        if host is None:
            connection = Connection(self._device, syn.source, syn.destination, Offer())
            connection.receive_syn(syn)
            connection.answer(Policy.REFUSE)
        elif host.manner != "is dead":
            self._accept(host, syn)

    def _accept(self, host: Host, syn: Segment) -> None:
        ends = syn.source, syn.destination
        call = self._calls.get(ends)
        if call is None or not call.connection.belongs_to(syn):
            connection = Connection(self._device, *ends, Offer(timestamps=host.timestamps))
            call = self._calls[ends] = Call(connection, host)
            if host.manner == "reads nothing":
                connection.stop_reading(host.buffer)
                if host.reads_after_s is not None:
                    self._timetable.after(host.reads_after_s, partial(connection.read_all))
        call.connection.receive_syn(syn)
        call.connection.answer(Policy.ACCEPT)
