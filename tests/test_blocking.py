"""Calls that block: given up, remembered, and answered later."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pytest

from tcpwatch import blocking
from tcpwatch.blocking import BlockingCalls, Unanswered, in_child
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


def returned(calls: Calls, key: object, call: Callable[[], int] = lambda: -1, group: object = None) -> int:
    """Ask again until the answer is there."""

    def ask() -> list[int]:
        try:
            return [calls.answer(key, call, group)]
        except Unanswered:
            return []

    (result,) = wait_until(ask, "an answer")
    return result


def test_a_call_has_its_result_or_its_error() -> None:
    calls = Calls()
    assert [returned(calls, key, partial(abs, -2 * key)) for key in range(5)] == [0, 2, 4, 6, 8]
    with pytest.raises(ZeroDivisionError):
        returned(calls, 1, lambda: 1 // 0)
    assert returned(calls, 1, lambda: 3) == 3


def test_a_blocked_call_is_made_once_and_answered_later(end: threading.Event) -> None:
    calls = Calls()
    nothing_yet(calls, "a", blocks(end, 7))
    assert calls.blocked() and calls.blocked(), "it still blocks"
    for _ in range(100):
        nothing_yet(calls, "a", lambda: -1)
    assert returned(calls, "b", lambda: 5) == 5
    end.set()
    assert returned(calls, "a") == 7
    assert calls.blocked(), "since this was last asked"
    assert returned(calls, "a", lambda: 9) == 9
    calls.blocked()
    assert not calls.blocked()


def test_threads_are_few_and_one_group_does_not_block_them_all(end: threading.Event) -> None:
    calls, before = Calls(threads=5, threads_per_group=2), threading.active_count()
    for key in range(20):
        nothing_yet(calls, key, blocks(end), "one user")
    assert returned(calls, "a", lambda: 5, "another user") == 5
    for key in range(20, 40):
        nothing_yet(calls, key, blocks(end), key % 10)
    assert threading.active_count() == before + 5
    nothing_yet(calls, "a", lambda: 5, "another user")
    end.set()
    assert returned(calls, 0) == 1
    assert returned(calls, "a") == -1
    for key in range(100):
        with suppress(Unanswered):
            calls.answer(f"new {key}", partial(abs, key))
    assert returned(calls, "a") == -1
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


def test_a_call_in_a_child() -> None:
    def refused() -> bytes:
        raise OSError(errno.EACCES, "not for you")

    def blocks_for_ever() -> bytes:
        signal.pause()
        return b""

    assert in_child(lambda: b"x" * 500_000, 30.0) == b"x" * 500_000
    with pytest.raises(PermissionError):
        in_child(refused, 30.0)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        in_child(blocks_for_ever, 0.05)


def test_a_child_holds_no_file() -> None:
    with open("/dev/full"):
        with_files, without = (in_child(_links, 30.0, files=files).decode() for files in (True, False))
    assert "/dev/full" in with_files and "/dev/full" not in without


def _links() -> bytes:
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return " ".join(links).encode()
