"""`python -m tests.lab.scene_server SCENE FAMILY`: the applications of a scene, in one process."""

import heapq
import random
import selectors
import socket
import time

from tests.lab import scene_actor
from tests.lab.packets import Family
from tests.lab.peer import LOCAL
from tests.lab.scene import Application, Scene

_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_ANY: dict[Family, str] = {4: "0.0.0.0", 6: "::"}
_JITTER = 0.3  # of the pause between two accepts: otherwise a poll and it may see each other in one phase for ever


def open_listeners(application: Application, family: Family) -> list[socket.socket]:
    """The sockets of an application, the lazy ones first."""
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
    """One loop: accepts as it is told, sends back what it reads, closes when the other end has closed."""

    def __init__(self, scene: Scene, family: Family) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(scene_actor.CUE, selectors.EVENT_READ)
        self._random = random.Random(scene.name)
        self._due: list[tuple[float, int, float]] = []  # when to accept from which listener, how many a second
        self._listeners: dict[int, socket.socket] = {}
        for application in scene.applications:
            for number, listener in enumerate(open_listeners(application, family)):
                self._listeners[listener.fileno()] = listener
                if number >= application.lazy:
                    self._attend(listener, application.accepts)

    def run(self) -> None:
        while True:
            wait_s = self._due[0][0] - time.monotonic() if self._due else None
            for key, _ in self._selector.select(wait_s):
                if key.fd == scene_actor.CUE:
                    return
                self._serve(key)
            self._accept_what_is_due()

    def _attend(self, listener: socket.socket, accepts: str | float) -> None:
        if accepts == "everything":
            self._selector.register(listener, selectors.EVENT_READ, listener)
        elif not isinstance(accepts, str):
            self._put_off(listener.fileno(), accepts)

    def _put_off(self, fd: int, per_s: float) -> None:
        pause_s = self._random.uniform(1 - _JITTER, 1 + _JITTER) / per_s
        heapq.heappush(self._due, (time.monotonic() + pause_s, fd, per_s))

    def _accept_what_is_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            _, fd, per_s = heapq.heappop(self._due)
            self._accept(self._listeners[fd])
            self._put_off(fd, per_s)

    def _serve(self, key: selectors.SelectorKey) -> None:
        listener = self._listeners.get(key.fd)
        if listener:
            while self._accept(listener):
                pass
        elif isinstance(key.fileobj, socket.socket):
            self._answer(key.fileobj)

    def _accept(self, listener: socket.socket) -> bool:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return False
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ)
        return True

    def _answer(self, connection: socket.socket) -> None:
        try:
            if data := connection.recv(4096):
                connection.sendall(data)
                return
        except ConnectionError:
            pass  # the client is in a hurry
        self._selector.unregister(connection)
        connection.close()


def main() -> None:
    scene, family, _ = scene_actor.part()
    server = Server(scene, family)
    scene_actor.say_ready()
    server.run()


if __name__ == "__main__":
    main()
