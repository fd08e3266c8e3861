"""Names of users: each is asked for once, a missing one again after a while, and a late one is not lost."""

from __future__ import annotations

import pwd
import threading
from collections import Counter
from types import SimpleNamespace

import pytest

from tcpwatch.blocking import Unanswered
from tcpwatch.kernel import user_names
from tcpwatch.kernel.user_names import user_name
from tests.lab.waiting import wait_until

SLOW, MISSING = 3, 4


def test_names_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answered, clock = Counter[int](), threading.Event(), [100.0]

    def getpwuid(uid: int) -> SimpleNamespace:
        asked[uid] += 1
        if uid == MISSING:
            raise KeyError(uid)
        if uid == SLOW:
            answered.wait(60)
        return SimpleNamespace(pw_name=f"user{uid}\x1b")

    monkeypatch.setattr(user_names, "_known", {})
    monkeypatch.setattr(user_names, "monotonic", lambda: clock[0])
    monkeypatch.setattr(pwd, "getpwuid", getpwuid)
    for _ in range(3):
        assert wait_until(lambda: name_or(1), "a name") == "user1\\x1b"
        assert wait_until(lambda: name_or(MISSING) == "none", "the answer that there is none")
    assert name_or(SLOW) == ""
    assert user_names.lookups_block()
    answered.set()
    assert wait_until(lambda: name_or(SLOW), "the late name") == "user3\\x1b"
    clock[0] += user_names._MISSING_S
    assert wait_until(lambda: name_or(MISSING) == "none", "the answer that there is none")
    assert asked == {1: 1, MISSING: 2, SLOW: 1}


def name_or(uid: int) -> str:
    """Return the name, "none" if there is none, or nothing yet."""
    try:
        return user_name(uid) or "none"
    except Unanswered:
        return ""
