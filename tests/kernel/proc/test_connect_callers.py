"""Threads, and the processes that they belong to."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tcpwatch.kernel.proc import connect_callers
from tcpwatch.kernel.proc.connect_callers import ConnectCallers


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> ConnectCallers:
    """Pretend to be in the initial pid namespace, so that thread ids are the same for both sides."""
    monkeypatch.setattr(connect_callers, "_FIRST_PID_NAMESPACE", os.stat("/proc/self/ns/pid").st_ino)
    return ConnectCallers()


def test_a_thread_has_its_process_as_owner(first: ConnectCallers) -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait, args=(10,))
    thread.start()
    try:
        assert thread.native_id is not None
        owners = first.lookup([thread.native_id, os.getpid()])
        assert {owner.processes[0].pid for owner in owners.values()} == {os.getpid()}
        assert owners.keys() == {thread.native_id, os.getpid()}
    finally:
        done.set()
        thread.join()
    assert first.lookup([]).keys() == owners.keys()  # recent answers are kept for a while


def test_an_ended_thread_is_absent(first: ConnectCallers) -> None:
    beyond = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    assert first.lookup([beyond]) == {}


def test_in_another_pid_namespace_numbers_mean_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect_callers, "_FIRST_PID_NAMESPACE", 0)
    assert ConnectCallers().lookup([os.getpid()]) == {}
