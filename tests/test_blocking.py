"""Calls that block: given up, remembered, and answered later."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tcpwatch import blocking
from tcpwatch.blocking import BlockingCalls, Unanswered
from tests.lab.waiting import wait_until

Calls = BlockingCalls[int]


@pytest.fixture
def end() -> Iterator[threading.Event]:
    """Ends the calls that block."""
    event = threading.Event()
    yield event
    event.set()


def blocks(end: threading.Event, result: int = 1) -> Callable[[], int]:
    return lambda: result if end.wait() else 0


def nothing_yet(calls: Calls, key: object, call: Callable[[], int], group: object = None) -> None:
    with pytest.raises(Unanswered):
        calls.answer(key, call, group)


def returned(calls: Calls, key: object) -> int:
    """Ask again until the answer is there."""

    def ask() -> list[int]:
        try:
            return [calls.answer(key, lambda: -1)]
        except Unanswered:
            return []

    (result,) = wait_until(ask, "an answer")
    return result


def test_a_call_has_its_result_or_its_error() -> None:
    calls = Calls()
    assert [calls.answer(key, partial(abs, -2 * key)) for key in range(5)] == [0, 2, 4, 6, 8]
    with pytest.raises(ZeroDivisionError):
        calls.answer(1, lambda: 1 // 0)
    assert calls.answer(1, lambda: 3) == 3 and not calls.blocked()


def test_a_blocked_call_is_made_once_and_answered_later(end: threading.Event) -> None:
    calls = Calls()
    nothing_yet(calls, "a", blocks(end, 7))
    assert calls.blocked() and calls.blocked(), "it still blocks"
    for _ in range(100):
        nothing_yet(calls, "a", lambda: -1)
    assert calls.answer("b", lambda: 5) == 5
    end.set()
    assert returned(calls, "a") == 7
    assert calls.blocked(), "since this was last asked"
    assert calls.answer("a", lambda: 9) == 9 and not calls.blocked()


def test_threads_are_few_and_one_group_does_not_block_them_all(end: threading.Event) -> None:
    calls, before = Calls(threads=5, threads_per_group=2), threading.active_count()
    for key in range(20):
        nothing_yet(calls, key, blocks(end), "one user")
    assert calls.answer("a", lambda: 5, "another user") == 5
    for key in range(20, 40):
        nothing_yet(calls, key, blocks(end), key % 10)
    assert threading.active_count() == before + 5
    nothing_yet(calls, "a", lambda: 5, "another user")
    end.set()
    assert returned(calls, 0) == 1
    assert returned(calls, "a") == -1
    assert [calls.answer(f"new {key}", partial(abs, key)) for key in range(100)] == list(range(100))
    assert threading.active_count() == before + 5, "answers that nobody asks for leave their thread"


def test_waiting_is_bounded(end: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "WAITING_SHARE", 0.0)
    calls = Calls(threads=50, threads_per_group=50)
    begin = time.thread_time(), time.monotonic()
    for key in range(50):
        nothing_yet(calls, key, blocks(end))
    working_s, elapsed_s = time.thread_time() - begin[0], time.monotonic() - begin[1]
    assert elapsed_s >= 0.9 * blocking.WAITING_MOST_S
    assert elapsed_s < 50 * blocking.PATIENCE_S / 2 and working_s < blocking.WAITING_MOST_S
