"""Each connection counts as opened and as ended for the same process, whenever that becomes known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tcpwatch.model.lifecycle.archive import Archive
from tcpwatch.model.lifecycle.tracker import Tracker
from tests.model.lifecycle.test_records import CALLER, CALLING, LISTENER, OPEN, TIME_WAIT, Poll, event, traced
from tests.support.polls import polls as joined
from tests.support.views import Sock, sock

QUEUED = sock("ESTAB", "10.0.0.1:80", "10.0.0.9:4000", cookie=7)
ORPHAN = sock("FIN_WAIT_1", "10.0.0.1:80", "10.0.0.9:4000", cookie=7)
CALLED = sock("TIME_WAIT", "10.0.0.1:4000", "10.0.0.9:443", cookie=8, timer="timewait", timer_s=60)
STATES = ((3.0, "CLOSED", "SYN_SENT"), (3.1, "SYN_SENT", "ESTABLISHED"), (3.2, "ESTABLISHED", "FIN_WAIT_1"),
          (3.3, "FIN_WAIT_1", "FIN_WAIT_2"), (3.4, "FIN_WAIT_2", "CLOSED"))  # fmt: skip

SCENARIOS: dict[str, tuple[list[Poll], dict[str, tuple[int, int]]]] = {
    "open in one poll": (
        [Poll([LISTENER]), Poll([LISTENER, OPEN]), Poll([LISTENER], [event(OPEN, 3.0)])],
        {"worker[13]": (1, 1)},
    ),
    "accepted after it was seen": (
        [Poll([LISTENER]), Poll([LISTENER, QUEUED]), Poll([LISTENER, OPEN, TIME_WAIT]),
         Poll([LISTENER, TIME_WAIT], [event(OPEN, 5.0)])],
        {"worker[13]": (1, 1)},
    ),
    "an orphan at last": (
        [Poll([LISTENER]), Poll([LISTENER, OPEN]), Poll([LISTENER, ORPHAN]), Poll([LISTENER], [event(OPEN, 5.0)])],
        {"worker[13]": (1, 1)},
    ),
    "no poll saw it before TIME_WAIT": (
        [Poll([LISTENER]), Poll([LISTENER, CALLED], [event(CALLING, 3.5)], traced(CALLING, 21, *STATES),
                                callers={21: CALLER})],
        {"wget[21]": (1, 1)},
    ),
    "never accepted": (
        [Poll([LISTENER]), Poll([LISTENER, QUEUED]), Poll([LISTENER], [event(QUEUED, 3.0)])],
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCENARIOS)
def test_opened_and_ended_by_process(name: str) -> None:
    polls, expected = SCENARIOS[name]
    model, opened, ended = Tracker(memory_mib=1), Counter[str](), Counter[str]()
    for poll in joined(*(poll.sample(number) for number, poll in enumerate(polls))):
        step = model.step(poll)
        for codes in (step.opened_owner, step.found_owner):
            opened.update(names(codes, step.archive))
        ended.update(names(step.ended["owner"], step.archive))
    assert {process: (opened[process], ended[process]) for process in opened | ended} == expected


def names(codes: np.ndarray[tuple[int, ...], np.dtype[np.int32]], archive: Archive) -> list[str]:
    return [str(archive.owner(code)) for code in codes.tolist() if code >= 0]


def test_the_owner_of_an_orphan_is_in_its_record() -> None:
    def last(*polls: Sock) -> int:
        model = Tracker(memory_mib=1)
        samples = [Poll([LISTENER, one] if one else [LISTENER]) for one in (None, *polls, None)]
        for poll in joined(*(poll.sample(number) for number, poll in enumerate(samples))):
            model.step(poll)
        record = model.archive.last_record(7)
        assert record is not None
        return int(record["owner"])

    assert last(OPEN, ORPHAN) >= 0
    assert last(ORPHAN) < 0
