"""`python -m tests.lab.scenes.callers SCENE FAMILY NAME FD`: the callers of a scene that share a process."""

import errno
import selectors
import socket
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial

from tests.lab.scenes import actor
from tests.lab.scenes.line import Timetable
from tests.lab.scenes.parts import Caller
from tests.lab.scenes.tally import Tally, tally
from tests.lab.wire.packets import Family
from tests.lab.wire.peer import REMOTE

_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_REQUEST = b"a few bytes"
_MUCH = bytes(200_000)  # more than a host that does not read can receive


@dataclass(slots=True)
class Call:
    """A connection attempt of one caller."""

    number: int  # of the caller
    caller: Caller
    connected: bool = False


class Callers:
    """One loop that connects at the due times and treats each connection as the caller's manner says."""

    def __init__(self, family: Family, counts: Tally) -> None:
        self._family = family
        self._counts = counts
        self._timetable = Timetable()
        self._selector = selectors.DefaultSelector()
        self._selector.register(actor.CUE, selectors.EVENT_READ)
        self._made: Counter[int] = Counter()
        self._kept: list[socket.socket] = []

    def expect(self, number: int, caller: Caller) -> None:
        """Start a caller."""
        self._connect(number, caller, time.monotonic())

    def run(self) -> None:
        while True:
            for key, _ in self._selector.select(self._timetable.pause_s):
                if key.fd == actor.CUE:
                    return
                assert isinstance(key.fileobj, socket.socket)
                self._go_on(key.fileobj, key.data)
            self._timetable.do_what_is_due()

    def _connect(self, number: int, caller: Caller, due: float) -> None:
        kernel = socket.socket(_AF[self._family])
        kernel.setblocking(False)
        failure = kernel.connect_ex((REMOTE[self._family], caller.port))
        if failure in (0, errno.EINPROGRESS):
            self._selector.register(kernel, selectors.EVENT_WRITE, Call(number, caller))
        else:
            self._fail(kernel, number, failure)
        self._made[number] += 1
        due += 1 / caller.per_s
        if caller.most is None or self._made[number] < caller.most:
            self._timetable.add(due, partial(self._connect, number, caller, due))

    def _fail(self, kernel: socket.socket, number: int, failure: int) -> None:
        self._counts.add(number, "no_port" if failure == errno.EADDRNOTAVAIL else "refused")
        kernel.close()

    def _go_on(self, kernel: socket.socket, call: Call) -> None:
        if call.connected:
            self._listen_to(kernel, call)
            return
        self._selector.unregister(kernel)
        if failure := kernel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._fail(kernel, call.number, failure)
            return
        call.connected = True
        self._counts.add(call.number, "connected")
        if call.caller.manner.startswith("asks"):
            kernel.send(_REQUEST)
            self._selector.register(kernel, selectors.EVENT_READ, call)
        else:
            self._kept.append(kernel)
            if call.caller.manner == "sends":
                kernel.send(_MUCH)

    def _listen_to(self, kernel: socket.socket, call: Call) -> None:
        if kernel.recv(4096) and call.caller.manner == "asks and waits":
            return
        self._selector.unregister(kernel)
        kernel.close()


def main() -> None:
    part = actor.part()
    (fd,) = part.fds
    with tally(fd) as counts:
        callers = Callers(part.family, counts)
        actor.say_ready()
        for number, caller in enumerate(part.scene.callers):
            if caller.process == part.name:
                callers.expect(number, caller)
        callers.run()


if __name__ == "__main__":
    main()
