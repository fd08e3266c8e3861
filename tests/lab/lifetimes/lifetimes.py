"""Whole lives of connections, as data: how each is played, through which states it goes, and how it ends.

A play is a generator that yields the state which its socket is to be in next (GONE: the kernel has it no more). Who
plays waits for it, looks, and lets the play go on: so many lives are played at the same time, and slow ones cost
nothing. Between two yields nothing waits for one of the kernel's timers.
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

GONE = ""
_PAUSE_S = 0.01
_MOST_S = 12.0  # that one state may be waited for

# Less than the truth, but nothing false: how an ending may look to one who does not see all of the life.
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
class Life:
    """What happens to one connection, and what is to be told of it."""

    name: str
    play: Play
    family: Family
    states: tuple[str, ...]
    """The whole truth."""
    endings: tuple[str, ...]
    """The Ending, as one knows it who sees all; if there are more, each is right; none: it lives."""
    less: frozenset[str]
    """Endings that are no lie for one who does not see all."""
    full: bool = True
    """It had a full socket: of others neither the trace nor destroy events tell."""
    freed: bool = True
    """The full socket is freed at the end: before that no destroy event tells of it."""


LIVES: dict[str, Life] = {}


def life(
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
    """Put a play into LIVES; all but its name are words: `less` what else would be honest, `without` what would not."""

    def register(play: Play) -> Play:
        assert name not in LIVES, name
        right = tuple(endings.split())
        honest = {word for each in right for word in _LESS[each].split()} | set(less.split())
        honest -= set(without.split())
        LIVES[name] = Life(name, play, family, tuple(states.split()), right, frozenset(honest), full, freed)
        return play

    return register


def serve(it: Actor) -> Iterator[str]:
    """A client comes and is accepted."""
    it.knock()
    yield "SYN_RCVD"
    it.connection.complete()
    it.take()
    yield "ESTABLISHED"


def call(it: Actor) -> Iterator[str]:
    """The application is the client."""
    it.call()
    yield "SYN_SENT"
    it.answer()
    yield "ESTABLISHED"


def after_open(name: str, states: str, endings: str, *, less: str = "") -> Callable[[Play], Play]:
    """Two lives: the play goes on from ESTABLISHED, once a server's (IPv4) and once a client's (IPv6)."""

    def register(play: Play) -> Play:
        def served(it: Actor) -> Iterator[str]:
            yield from serve(it)
            yield from play(it)

        def called(it: Actor) -> Iterator[str]:
            yield from call(it)
            yield from play(it)

        life(f"{name}, server", f"SYN_RCVD ESTABLISHED {states}", endings, family=4, less=less)(served)
        life(f"{name}, client", f"SYN_SENT ESTABLISHED {states}", endings, family=6, less=less)(called)
        return play

    return register


# Playing them -----------------------------------------------------------------------------------


class Mark(NamedTuple):
    """Between these two times (time.monotonic()) it came into the state, or was GONE."""

    state: str
    earliest: float
    latest: float


@dataclass(slots=True)
class Played:
    """A life that is being played, or has been."""

    life: Life
    actor: Actor
    steps: Iterator[str]
    awaited: str | None = None
    """None: the play is over."""
    since: float = 0.0
    marks: list[Mark] = field(default_factory=list)
    sights: list[str] = field(default_factory=list)
    """States that it was in while somebody looked."""
    state: str = GONE
    """That it is in at the end."""

    def go_on(self) -> None:
        self.since = time.monotonic()
        self.awaited = next(self.steps, None)

    def is_ready(self, seen: Seen) -> bool:
        return self.present(seen) == self.awaited

    def present(self, seen: Seen) -> str:
        """The state of its socket."""
        row = seen.get(self.actor.ends) if self.actor.ends else None
        return row.state if row else GONE

    def mark(self) -> None:
        """What it waited for has come."""
        if self.awaited is not None and [it.state for it in self.marks[-1:]] != [self.awaited]:
            self.marks.append(Mark(self.awaited, self.since, time.monotonic()))


@contextmanager
def played(
    namespace: Namespace, peer: Peer, lives: Iterable[Life], look: Callable[[], object] | None = None
) -> Iterator[list[Played]]:
    """Play them all at the same time; `look` is called whenever some are in a state that they have yielded.

    In the `with` block each is as its play has left it; after it nothing is left of them.
    """
    with ExitStack() as stack:
        cast = []
        for each in lives:
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
    # Not sock_diag: it gives each socket that it shows a cookie, which a socket that nobody saw does not have.
    return {(row.local, row.remote): row for family in (4, 6) for row in rows(family)}


def _note(ready: list[Played], after: Seen) -> None:
    for it in ready:
        if it.is_ready(after) and it.awaited and it.sights[-1:] != [it.awaited]:
            it.sights.append(it.awaited)


def _complain(waiting: list[Played]) -> None:
    now = time.monotonic()
    for it in waiting:
        if now - it.since > _MOST_S:
            raise TimeoutError(f"{it.life.name}: waited {_MOST_S} s in vain for {it.awaited or 'the end'}")
