"""How long a socket has certainly accepted nothing: proofs, and samples that prove nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tcpwatch.model.listeners.accept_stalls import AcceptStall
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_analysis import QueueAnalysis
from tcpwatch.sample import Completeness, Sample, SourceInfo
from tests.support.polls import polls
from tests.support.views import NOW, Sock, make_rows, make_sample, sock


@dataclass(frozen=True, slots=True)
class At:
    """A sample: depths of the sockets of one port, cookies of the waiting connections, and PassiveOpens."""

    depths: Sequence[int]
    waiting: Sequence[int]
    opened: int | None = None
    elsewhere: int = 0
    """Depth of another listener's queue, whose connections are not listed."""
    cookie: int = 1
    """Of the first socket."""

    def sample(self, second: float, **facts: object) -> Sample:
        socks: list[Sock] = [
            sock("LISTEN", "0.0.0.0:80", cookie=self.cookie + at, inode=9, recv_queue=depth, send_queue=4096)
            for at, depth in enumerate(self.depths)
        ]
        socks.append(sock("LISTEN", "0.0.0.0:81", cookie=90, inode=9, recv_queue=self.elsewhere, send_queue=99))
        socks += [sock("ESTAB", "10.0.0.1:80", f"192.0.2.1:{cookie}", cookie=cookie) for cookie in self.waiting]
        counters = {} if self.opened is None else {"PassiveOpens": self.opened}
        return make_sample(make_rows(socks, time=NOW + second), monotonic=second, counters=counters, **facts)


def stalled(*steps: At) -> list[list[float | None]]:
    """Return how long each socket of port 80 has accepted nothing, in samples ten seconds apart."""
    return [[one.stalled_s for one in sockets] for sockets in follow(*steps)]


def follow(*steps: At) -> list[list[Listener]]:
    analysis, answers = QueueAnalysis(0.8), []
    for poll in polls(*(step.sample(10.0 * at) for at, step in enumerate(steps))):
        found = analysis.step(poll).listeners
        answers.append(sorted((one for one in found if one.local_port == 80), key=lambda one: one.cookie))
    return answers


A, B, C, D = 101, 102, 103, 104
CASES: dict[str, tuple[list[At], list[list[float | None]]]] = {
    "all wait": ([At([2], [A, B])] * 3, [[None], [10.0], [20.0]]),
    "more come": ([At([1], [A]), At([2], [A, B]), At([3], [A, B, C])], [[None], [10.0], [20.0]]),
    "nobody waits": ([At([0], [])] * 2, [[None], [None]]),
    "the first is accepted": ([At([2], [A, B]), At([1], [B]), At([1], [B])], [[None], [None], [10.0]]),
    "one is accepted and one comes, a full queue": (
        [At([2], [A, B]), At([2], [B, C]), At([2], [C, D])], [[None], [None], [None]],
    ),
    "one that came later is reset": (
        [At([1], [A]), At([3], [A, B, C]), At([3], [A, C])], [[None], [10.0], [20.0]],
    ),
    "one of the first is reset: perhaps it was accepted": (
        [At([2], [A, B]), At([2], [B]), At([2], [B])], [[None], [None], [None]],
    ),
    "one is reset on a quiet host": (
        [At([2], [A, B], 500), At([2], [B], 500), At([2], [B], 500)], [[None], [10.0], [20.0]],
    ),
    "one is reset on a quiet host, then others connect elsewhere": (
        [At([2], [A, B], 500), At([2], [B], 500), At([2], [B], 501)], [[None], [10.0], [None]],
    ),
    "all were reset": ([At([2], [], 500)] * 3, [[None], [10.0], [20.0]]),
    "some were reset before, on a busy host": ([At([9], [A], 500), At([9], [A], 700)], [[None], [None]]),
    "the queue grows by all that connect": (
        [At([2], [], 500), At([7], [], 505), At([9], [], 507)], [[None], [10.0], [20.0]],
    ),
    "another queue grows, too": ([At([2], [], 500), At([4], [], 505, 3)], [[None], [10.0]]),
    "the queue grows by less": ([At([2], [], 500), At([6], [], 505)], [[None], [None]]),
    "the counter is new": ([At([2], [], 500), At([2], [], 5)], [[None], [None]]),
    "connections of another listener are taken for ours": ([At([0], [A, B])] * 2, [[None], [None]]),
    "too many, too": ([At([1], [A, B])] * 2, [[None], [None]]),
    "a new socket in the place of the old one": ([At([1], [A]), At([1], [B], cookie=7)], [[None], [None]]),
    "one of a group, the other accepts": (
        [At([1, 0], [A]), At([2, 0], [A, B]), At([2, 1], [A, B, C]), At([2, 0], [A, B])],
        [[None, None], [10.0, None], [20.0, None], [30.0, None]],
    ),
    "both of a group": ([At([1, 1], [A, B])] * 2, [[None, None], [10.0, 10.0]]),
    "one of a group, it is not certain which": (
        [At([1, 1], [A, B]), At([1, 1], [A, C])], [[None, None], [None, None]],
    ),
    "nothing was ever accepted": ([At([1], [A], 1), At([2], [A, B], 2)], [[None], [10.0]]),
}  # fmt: skip


@pytest.mark.parametrize(("steps", "expected"), CASES.values(), ids=CASES)
def test_how_long_nothing_was_accepted(steps: list[At], expected: list[list[float | None]]) -> None:
    assert stalled(*steps) == expected


BUSY = [500, 600, 700, 800]
UNSEEN: dict[str, tuple[list[At], AcceptStall | None]] = {
    "some were reset before": ([At([5], [A, B], opened) for opened in BUSY], AcceptStall(30.0, True, unseen=3)),
    "and since": ([At([5 + at], [A, B], opened) for at, opened in enumerate(BUSY)], AcceptStall(30.0, True, unseen=3)),
    "the depth falls": ([At([9 - at], [A, B], opened) for at, opened in enumerate(BUSY)], None),
    "visible ones are accepted": ([At([9], [A + at], opened) for at, opened in enumerate(BUSY)], None),
    "none is visible": ([At([9], [], opened) for opened in BUSY], None),
    "one of a group": ([At([9, 0], [A], opened) for opened in BUSY], None),
    "visible ones of another listener": ([At([1], [A, B], opened) for opened in BUSY], None),
}


@pytest.mark.parametrize(("steps", "expected"), UNSEEN.values(), ids=UNSEEN)
def test_connections_that_nobody_sees_may_have_been_accepted(steps: list[At], expected: AcceptStall | None) -> None:
    *_, (one, *_others) = follow(*steps)
    assert (one.stall, one.unmoved) == (None, expected)


def test_a_minimum_from_the_first_sample_on() -> None:
    begin, *_, end = (sockets[0] for sockets in follow(*[At([1], [A])] * 3))
    assert (begin.stall, end.stall) == (None, AcceptStall(20.0, since_first_sample=True))
    *_, later = follow(At([0], []), At([1], [A]), At([1], [A]))
    assert later[0].stall == AcceptStall(10.0)


def test_who_has_never_accepted_anything_has_not_since_the_oldest_came() -> None:
    samples = [
        At([2], [A, B], 2).sample(0),
        At([2], [A, B], 2).sample(1, watched_tcp_info={A: {"last_data_sent": 65_000}}),
    ]
    analysis = QueueAnalysis(0.8)
    *_, queues = [analysis.step(poll) for poll in polls(*samples)]
    one = next(one for one in queues.listeners if one.local_port == 80)
    assert one.stall == AcceptStall(65.0)


def test_a_proof_makes_the_rate_exact() -> None:
    (_, (one,)) = follow(At([1], [A]), At([2], [A, B]))
    assert one.accepted_per_s == 0.0


def test_connections_that_were_reset_in_the_queue() -> None:
    """They keep their places, but the kernel does not list them."""
    (_, (one,)) = follow(*[At([9], [A, B], 500)] * 2)
    assert (one.waiting, one.client_reset) == (2, 7)
    (_, (one,)) = follow(At([9], [A, B], 500), At([9], [A, B], 600))
    assert one.client_reset == 0, "perhaps they came after their sample, and some were accepted"


def test_nothing_is_certain_without_queues() -> None:
    info = SourceInfo("psutil", "root")
    analysis = QueueAnalysis(0.8)
    for poll in polls(*(At([1], [A], 1).sample(at, source=info) for at in range(2))):
        queues = analysis.step(poll)
        assert queues.accepted_at_most_per_s is None
        assert [one.stalled_s for one in queues.listeners] == [None, None]


def test_a_queue_that_an_interrupted_dump_lacks_has_not_grown() -> None:
    analysis = QueueAnalysis(0.8)
    first = At([2], [], 500, elsewhere=0).sample(0, completeness=Completeness(interrupted=True))
    samples = first, At([2], [], 503, elsewhere=3).sample(1), At([2], [], 503, elsewhere=3).sample(2)
    found = [analysis.step(poll).accepted_at_most_per_s for poll in polls(*samples)]
    assert found == [None, None, 0.0]


def test_accepted_at_most() -> None:
    analysis = QueueAnalysis(0.8)
    steps = At([2], [A, B], 500), At([5], [A, B, C], 540), At([5], [], None)
    found = [
        analysis.step(poll).accepted_at_most_per_s for poll in polls(*(s.sample(at) for at, s in enumerate(steps)))
    ]
    assert found == [None, 37.0, None]
