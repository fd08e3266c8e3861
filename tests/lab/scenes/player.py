"""Play a scene in a namespace of its own for the duration of a test."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.lab.machine.namespace import Namespace
from tests.lab.scenes import actor
from tests.lab.scenes.figures import Figures
from tests.lab.scenes.parts import Spoofed
from tests.lab.scenes.scene import Condition, Scene
from tests.lab.scenes.tally import Tally, tally
from tests.lab.waiting import wait_until
from tests.lab.wire.flood import Flood
from tests.lab.wire.packets import Endpoint, Family
from tests.lab.wire.peer import LOCAL, make_device

LONGEST_S = 30
"""A flood ends after this time in any case."""
STANDS_WITHIN_S = 10.0
"""The slowest scene needs three seconds on an idle machine."""


class Playing:
    """A scene that runs in the background; the main thread is in its namespace."""

    def __init__(self, scene: Scene, namespace: Namespace, family: Family, counts: Tally) -> None:
        self.scene = scene
        self.namespace = namespace
        self.family = family
        self.figures = Figures(namespace, family, scene.callers, counts)

    def wait_until_it_stands(self, deadline_s: float = STANDS_WITHIN_S) -> None:
        """Wait for the situation; TimeoutError, with the figures, if it does not come about."""
        try:
            wait_until(lambda: not self._broken(self.scene.stands), "the scene", deadline_s)
        except TimeoutError as error:
            raise TimeoutError(f"{self.scene.name} does not stand: {self._broken(self.scene.stands)}") from error

    def check_that_it_remains(self) -> None:
        """Raise AssertionError, with the figures, if a condition of the situation no longer holds."""
        broken = self._broken(self.scene.remains)
        assert not broken, f"{self.scene.name} is not what it was: {broken}"

    def _broken(self, conditions: Iterable[Condition]) -> list[str]:
        """Return the conditions that do not hold now, as text."""
        looks = ((condition, self.figures[condition.figure]) for condition in conditions)
        return [f"{condition}, but is {value:g}" for condition, value in looks if not condition.holds(value)]


def _be_patient() -> None:
    """Let hosts outside that answer late on a busy machine not look like loss: no probe of the tail, late timeouts."""
    ipv4 = Path("/proc/sys/net/ipv4")
    (ipv4 / "tcp_early_retrans").write_text("0")
    if (ipv4 / "tcp_rto_min_us").exists():  # since Linux 6.11
        (ipv4 / "tcp_rto_min_us").write_text("2000000")


@contextmanager
def play(scene: Scene, family: Family) -> Iterator[Playing]:
    """Enter a fresh namespace and start all players of the scene."""
    with ExitStack() as stack:
        namespace = stack.enter_context(Namespace())
        for name, value in scene.sysctls.items():
            namespace.sysctl(name, value)
        if scene.silent:
            _be_patient()
        fd = make_device(namespace, "clients0")
        stack.callback(os.close, fd)
        counts = stack.enter_context(tally())
        playing = Playing(scene, namespace, family, counts)
        for process in dict.fromkeys(it.process for it in scene.applications):
            stack.enter_context(actor.start("server", scene, family, name=process))
        if scene.clients or scene.hosts:
            stack.enter_context(actor.start("outside", scene, family, fd))
        for process in dict.fromkeys(it.process for it in scene.callers):
            stack.enter_context(actor.start("callers", scene, family, counts.fd, name=process))
        if scene.local_clients:
            stack.enter_context(actor.start("local_clients", scene, family))
        for spoofed in scene.spoofed:
            stack.enter_context(_flood(namespace, family, spoofed))
        yield playing


@contextmanager
def _flood(namespace: Namespace, family: Family, spoofed: Spoofed) -> Iterator[None]:
    flood = Flood(namespace)
    target = Endpoint.of(LOCAL[family], spoofed.port)
    count = int(LONGEST_S * spoofed.per_s)
    try:
        with flood.start(target, count, rate=spoofed.per_s, addresses=spoofed.sources) as process:
            try:
                yield
            finally:
                process.kill()
    finally:
        flood.close()
