"""Scenarios of whole connections as data: the play, the states the socket goes through, and the ending.

A play is a generator that yields the state its socket should be in next (NO_SOCKET: the kernel no longer has it). The
player waits for that state, looks, and resumes the play. So many scenarios are played at the same time, and slow ones
cost nothing. Between two yields nothing waits for one of the kernel's timers.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.lab.lifetimes.actor import Actor
from tests.lab.machine.namespace import Namespace
from tests.lab.observe import Row, rows
from tests.lab.wire.packets import Endpoint, Family
from tests.lab.wire.peer import Peer

NO_SOCKET = ""
_PAUSE_S = 0.01
_MOST_S = 12.0  # the longest wait for one state

# Less than the truth, but nothing false: how an ending may look to an observer that does not see the whole connection.
_LESS = {
    "BY_US": "BY_US ORDERLY UNKNOWN",
    "BY_PEER": "BY_PEER ORDERLY UNKNOWN",
    "AT_ONCE": "AT_ONCE BY_US ORDERLY UNKNOWN",  # by us: our FIN did not wait for the peer's
    "RESET_SENT": "RESET_SENT RESET UNKNOWN",
    "RESET_RECEIVED": "RESET_RECEIVED RESET UNKNOWN",
    "RESET": "RESET UNKNOWN",
    "TIMED_OUT": "TIMED_OUT UNKNOWN",
    "REFUSED": "REFUSED RESET UNKNOWN",
    "UNREACHABLE": "UNREACHABLE UNKNOWN",
    "GIVEN_UP": "GIVEN_UP UNKNOWN",
    "KILLED": "KILLED RESET_SENT RESET UNKNOWN",
    "NOT_ACCEPTED": "NOT_ACCEPTED RESET_SENT RESET UNKNOWN",
    "UNKNOWN": "UNKNOWN",
}


Seen = Mapping[tuple[Endpoint, Endpoint], Row]
Play = Callable[[Actor], Iterator[str]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens to one connection, and what tcpwatch should report about it."""

    name: str
    play: Play
    family: Family
    states: tuple[str, ...]
    """All states in order."""
    endings: tuple[str, ...]
    """Endings that are right for an observer that sees everything; empty: the connection does not end."""
    less: frozenset[str]
    """Endings that are right for an observer that does not see everything."""
    full: bool = True
    """It had a full socket: neither the trace nor destroy events report other sockets."""
    freed: bool = True
    """The full socket is freed at the end: there is no destroy event before that."""


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    name: str,
    states: str,
    endings: str,
    *,
    family: Family = 4,
    less: str = "",
    without: str = "",
    full: bool = True,
    freed: bool = True,
) -> Callable[[Play], Play]:
    """Add a play to SCENARIOS. States and endings are words separated by spaces.

    `less` adds endings that are right for an observer that does not see everything, `without` removes some.
    """

    def register(play: Play) -> Play:
        assert name not in SCENARIOS, name
        right = tuple(endings.split())
        honest = {word for each in right for word in _LESS[each].split()} | set(less.split())
        honest -= set(without.split())
        SCENARIOS[name] = Scenario(name, play, family, tuple(states.split()), right, frozenset(honest), full, freed)
        return play

    return register


def serve(it: Actor) -> Iterator[str]:
    """A client connects and is accepted."""
    it.knock()
    yield "SYN_RCVD"
    it.connection.complete()
    it.take()
    yield "ESTABLISHED"


def call(it: Actor) -> Iterator[str]:
    """The application connects."""
    it.call()
    yield "SYN_SENT"
    it.answer()
    yield "ESTABLISHED"


def after_open(name: str, states: str, endings: str, *, less: str = "") -> Callable[[Play], Play]:
    """Add two scenarios: the play starts in ESTABLISHED, once as a server (IPv4) and once as a client (IPv6)."""

    def register(play: Play) -> Play:
        def served(it: Actor) -> Iterator[str]:
            yield from serve(it)
            yield from play(it)

        def called(it: Actor) -> Iterator[str]:
            yield from call(it)
            yield from play(it)

        scenario(f"{name}, server", f"SYN_RCVD ESTABLISHED {states}", endings, family=4, less=less)(served)
        scenario(f"{name}, client", f"SYN_SENT ESTABLISHED {states}", endings, family=6, less=less)(called)
        return play

    return register


# Playing them -----------------------------------------------------------------------------------


class Mark(NamedTuple):
    """The socket entered the state (NO_SOCKET: it was removed) between these two times of time.monotonic()."""

    state: str
    earliest: float
    latest: float


@dataclass(slots=True)
class Played:
    """A scenario that is being played, or has been."""

    scenario: Scenario
    actor: Actor
    steps: Iterator[str]
    awaited: str | None = None
    """The state the play waits for; None: the play is over."""
    since: float = 0.0
    marks: list[Mark] = field(default_factory=list)
    sights: list[str] = field(default_factory=list)
    """States the socket was in both before and after a look."""
    state: str = NO_SOCKET
    """The state at the end."""

    def go_on(self) -> None:
        self.since = time.monotonic()
        self.awaited = next(self.steps, None)

    def is_ready(self, seen: Seen) -> bool:
        return self.present(seen) == self.awaited

    def present(self, seen: Seen) -> str:
        """Return the state of the socket."""
        row = seen.get(self.actor.ends) if self.actor.ends else None
        return row.state if row else NO_SOCKET

    def mark(self) -> None:
        """Note when the awaited state was reached."""
        if self.awaited is not None and [it.state for it in self.marks[-1:]] != [self.awaited]:
            self.marks.append(Mark(self.awaited, self.since, time.monotonic()))


@contextmanager
def played(
    namespace: Namespace, peer: Peer, scenarios: Iterable[Scenario], look: Callable[[], object] | None = None
) -> Iterator[list[Played]]:
    """Play all scenarios at the same time; `look` is called whenever some have reached the state they yielded.

    In the `with` block each socket is as its play has left it; afterwards all of them are removed.
    """
    with ExitStack() as stack:
        cast = []
        for each in scenarios:
            actor = Actor(namespace, peer, each.family)
            stack.callback(actor.clear)
            cast.append(Played(each, actor, each.play(actor)))
            cast[-1].go_on()
        while waiting := [it for it in cast if it.awaited is not None]:
            _play_on(waiting, look)
        end = _seen()
        for it in cast:
            it.state = it.present(end)
        yield cast


def _play_on(waiting: list[Played], look: Callable[[], object] | None) -> None:
    seen = _seen()
    ready = [it for it in waiting if it.is_ready(seen)]
    if not ready:
        _complain(waiting)
        time.sleep(_PAUSE_S)
        return
    for it in ready:
        it.mark()
    if look:
        look()
        _note(ready, _seen())
    for it in ready:
        it.go_on()


def _seen() -> Seen:
    # Not sock_diag: it gives a cookie to each socket it shows, and unobserved sockets must stay without one.
    return {(row.local, row.remote): row for family in (4, 6) for row in rows(family)}


def _note(ready: list[Played], after: Seen) -> None:
    for it in ready:
        if it.is_ready(after) and it.awaited and it.sights[-1:] != [it.awaited]:
            it.sights.append(it.awaited)


def _complain(waiting: list[Played]) -> None:
    now = time.monotonic()
    for it in waiting:
        if now - it.since > _MOST_S:
            raise TimeoutError(f"{it.scenario.name}: no {it.awaited or 'end'} within {_MOST_S} s")
