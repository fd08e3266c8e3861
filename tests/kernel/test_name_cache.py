"""Names of users and interfaces: looked up once, never changed in the hands of a reader, and never waited for long."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from tcpwatch.kernel import name_cache
from tcpwatch.kernel.name_cache import NameCache


@pytest.fixture
def switching() -> Iterator[None]:
    """Switch between threads as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def uids(count: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.arange(count, dtype=np.uint32)


def test_names_can_be_read_while_another_thread_finds_new_ones(
    switching: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name_cache, "user_name", lambda uid: f"user{uid}")
    cache, failed = NameCache(), list[Exception]()
    names, done = cache.users(uids(200)), threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                assert [uid for uid, name in names.items() if name == f"user{uid}"] == list(range(200))
        except Exception as error:
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for count in range(200, 500):
        cache.users(uids(count))
    done.set()
    reader.join()
    assert not failed
    assert len(cache.users(uids(500))) == 500 and len(names) == 200


def test_new_names_are_looked_up_for_a_short_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1_000))
    monkeypatch.setattr(name_cache, "monotonic", lambda: 0.1 * next(clock))
    monkeypatch.setattr(name_cache, "user_name", lambda uid: "x")
    cache = NameCache()
    sizes = [len(cache.users(uids(8))) for _ in range(4)]
    assert sizes[0] < sizes[1] < sizes[2] <= sizes[3] == 8
