"""`python -m tests.lab.scenes.server SCENE FAMILY NAME`: the applications of a scene that share a process."""

import contextlib
import random
import resource
import selectors
import socket
from functools import partial

from tests.lab.scenes import actor
from tests.lab.scenes.line import Timetable
from tests.lab.scenes.parts import Application
from tests.lab.wire.packets import Family
from tests.lab.wire.peer import LOCAL

_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_ANY: dict[Family, str] = {4: "0.0.0.0", 6: "::"}
_JITTER = 0.3  # of the pause between two accepts: otherwise every poll might meet the same phase
_SIP, _SIP_EVERY_S = 30_000, 0.4  # bytes per read of a slow reader, and the interval


def open_listeners(application: Application, family: Family) -> list[socket.socket]:
    """Return the listening sockets of an application, the lazy ones first."""
    host = (_ANY if application.address == "any" else LOCAL)[family]
    opened = []
    for _ in range(application.sockets):
        listener = socket.socket(_AF[family])
        if application.sockets > 1:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if application.defer_accept_s:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, application.defer_accept_s)
        listener.bind((host, application.port))
        listener.setblocking(False)
        opened.append(listener)
    for listener in opened:
        listener.listen(application.backlog)
    return opened


class Server:
    """One loop that accepts connections and treats each client as the application's manner says."""

    def __init__(self, seed: str, family: Family) -> None:
        self._family = family
        self._selector = selectors.DefaultSelector()
        self._selector.register(actor.CUE, selectors.EVENT_READ)
        self._random = random.Random(seed)
        self._timetable = Timetable()
        self._kept: list[socket.socket] = []  # nothing is done with them

    def open(self, application: Application) -> None:
        """Listen, and accept from all listeners except the lazy ones."""
        if application.descriptors is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (application.descriptors,) * 2)
        for number, listener in enumerate(open_listeners(application, self._family)):
            accepts = application.accepts
            if number < application.lazy or accepts == "nothing":
                self._kept.append(listener)
            elif isinstance(accepts, str):
                accept = partial(self._accept_all, listener, application)
                self._selector.register(listener, selectors.EVENT_READ, accept)
            else:
                self._put_off(listener, application, accepts)

    def run(self) -> None:
        while True:
            for key, _ in self._selector.select(self._timetable.pause_s):
                if key.fd == actor.CUE:
                    return
                key.data()
            self._timetable.do_what_is_due()

    def _put_off(self, listener: socket.socket, application: Application, per_s: float) -> None:
        pause_s = self._random.uniform(1 - _JITTER, 1 + _JITTER) / per_s
        self._timetable.after(pause_s, partial(self._accept_in_time, listener, application, per_s))

    def _accept_in_time(self, listener: socket.socket, application: Application, per_s: float) -> None:
        self._accept(listener, application)
        self._put_off(listener, application, per_s)

    def _accept_all(self, listener: socket.socket, application: Application) -> None:
        while self._accept(listener, application):
            pass

    def _accept(self, listener: socket.socket, application: Application) -> bool:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return False
        connection.setblocking(False)
        match application.manner:
            case "reads nothing":
                self._kept.append(connection)
            case "reads slowly":
                self._sip(connection)
            case "reads on":
                self._selector.register(connection, selectors.EVENT_READ, partial(self._read, connection))
            case _:
                answer = partial(self._answer, connection, application)
                self._selector.register(connection, selectors.EVENT_READ, answer)
        return True

    def _answer(self, connection: socket.socket, application: Application) -> None:
        try:
            data = connection.recv(4096)
            if data:
                connection.sendall(data)
                if application.manner == "answers and shuts down":
                    connection.shutdown(socket.SHUT_WR)
                if application.manner != "answers and closes":
                    return
        except ConnectionError:
            pass  # the client is in a hurry
        self._selector.unregister(connection)
        connection.close()

    def _read(self, connection: socket.socket) -> None:
        if not connection.recv(1_000_000):
            self._selector.unregister(connection)
            self._kept.append(connection)

    def _sip(self, connection: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):  # nothing there yet
            connection.recv(_SIP)
        self._timetable.after(_SIP_EVERY_S, partial(self._sip, connection))


def main() -> None:
    part = actor.part()
    server = Server(part.scene.name, part.family)
    for application in part.scene.applications:
        if application.process == part.name:
            server.open(application)
    actor.say_ready()
    server.run()


if __name__ == "__main__":
    main()
