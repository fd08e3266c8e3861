"""Events between two samples on the real kernel, their cost, and cleaning up."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tcpwatch.kernel.netlink import destroy_event_reader
from tcpwatch.kernel.netlink.destroy_event_reader import DestroyEventReader
from tcpwatch.kernel.netlink.sock_diag import SockDiagError
from tcpwatch.kernel.trace.trace_events import TraceEventKind
from tcpwatch.kernel.trace.tracefs import TraceError
from tcpwatch.kernel.trace.tracepoint_reader import TracepointReader
from tcpwatch.sources.event_watch import EventWatch
from tcpwatch.sources.live import LiveSource, open_source
from tests import lab
from tests.lab.machine.requirements import tracefs

ROOT = Path(__file__).parents[3]
_SO_COOKIE = 57


def cookie(sock: socket.socket) -> int:
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), sys.byteorder)


def connection() -> list[int]:
    """Open and close a connection; return the cookies of both ends."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        return [cookie(client), cookie(server)]


def waiting(watch: EventWatch) -> Callable[[], bool]:
    """Return whether the thread of this watch is waiting."""
    call = Path(f"/proc/self/task/{watch._thread.native_id}/syscall")
    return lambda: call.read_text().split()[0].isdigit()


# Events in samples ----------------------------------------------------------------------------


def test_a_sample_has_the_destroy_events_before_its_dump(namespace: lab.Namespace) -> None:
    with closing(LiveSource(events=True)) as source:
        source.sample()
        expected = set(connection())
        taken = []

        def heard() -> bool:
            sample = source.sample()
            assert sample.destroyed is not None
            assert (sample.destroyed.received_monotonic_s <= sample.begin_monotonic_s).all()
            assert sample.begin_monotonic_s <= sample.monotonic
            assert sample.trace_events is None
            taken.extend(sample.destroyed.table["idiag_cookie"].tolist())
            return expected <= set(taken)

        lab.wait_until(heard, "both ends")
        assert len(set(taken)) == len(taken)
        assert source.info.why_no_trace == "switched off"


def test_a_sample_has_the_trace_events_until_the_end_of_its_dump(namespace: lab.Namespace) -> None:
    lab.require(tracefs)
    source = open_source("sock_diag", events=True, trace=True)
    with closing(source):
        assert source.info.why_no_trace == ""
        source.sample()
        cookies = connection()
        traced = source.sample().trace_events
        assert traced is not None
        assert traced.lost == 0
        destroyed = traced.events[traced.events["kind"] == TraceEventKind.DESTROYED]
        assert set(cookies) <= set(destroyed["cookie"].tolist())
        again = source.sample().trace_events
        assert again is not None
        assert not set(cookies) & set(again.events["cookie"].tolist())


def test_no_events_without_request(namespace: lab.Namespace) -> None:
    with closing(LiveSource()) as source:
        sample = source.sample()
        assert sample.destroyed is None
        assert sample.trace_events is None
        assert sample.source.why_no_trace == "not asked for"
        assert "tcpwatch-events" not in [thread.name for thread in threading.enumerate()]


def test_it_watches_the_namespace_where_it_was_made(namespace: lab.Namespace) -> None:
    with closing(EventWatch(trace=False)) as outer, lab.Namespace():
        with closing(EventWatch(trace=False)) as inner:
            theirs = connection()
            heard: list[int] = []

            def both() -> bool:
                taken = inner.take_destroyed()
                assert taken is not None
                heard.extend(taken.table["idiag_cookie"].tolist())
                return set(theirs) <= set(heard)

            lab.wait_until(both, "both ends")
        ours = outer.take_destroyed()
        assert ours is not None
        assert not set(theirs) & set(ours.table["idiag_cookie"].tolist())


def test_far_more_than_the_buffer_holds_is_read_in_time(
    namespace: lab.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread reads events while no sample is taken."""
    monkeypatch.setattr(destroy_event_reader, "BUFFER", 512 * 1024)
    with closing(EventWatch(trace=False)) as watch:
        assert watch is not None and watch._destroy
        room = watch._destroy.capacity // destroy_event_reader.TRUESIZE
        begin, made = time.monotonic(), 0
        while made < 5 * room:
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
            made += 1
            if made > 8000 * (time.monotonic() - begin):  # at most so many a second
                os.sched_yield()
        heard = lost = 0

        def all_of_them() -> bool:
            nonlocal heard, lost
            taken = watch.take_destroyed()
            assert taken is not None
            heard, lost = heard + len(taken.table), lost + taken.lost
            return heard + lost == made

        lab.wait_until(all_of_them, "all of them")
        assert heard > 2 * room


# What it costs and leaves behind ------------------------------------------------------------------


def test_it_sleeps_while_nothing_happens(namespace: lab.Namespace) -> None:
    with closing(EventWatch(trace=False)) as watch:
        asleep = waiting(watch)
        lab.wait_until(asleep, "that it waits")
        status = Path(f"/proc/self/task/{watch._thread.native_id}/status")

        def switches() -> str:
            return next(line for line in status.read_text().splitlines() if line.startswith("voluntary"))

        before, begin = switches(), time.monotonic()
        lab.wait_until(lambda: time.monotonic() - begin > 0.6, "some periods of the trace")
        assert switches() == before


def test_close_leaves_nothing_behind(namespace: lab.Namespace) -> None:
    traces = not tracefs()
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    watch = EventWatch(trace=traces)
    path = watch._trace._instance.path if watch._trace else ""
    assert threading.active_count() == before[1] + 1
    assert os.path.exists(path) == traces
    watch.close()
    watch.close()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
    assert not os.path.exists(path)
    assert watch.take_destroyed() is None
    assert watch.take_trace_events() is None


def test_a_program_that_does_not_close_it_ends_and_leaves_nothing(namespace: lab.Namespace) -> None:
    lab.require(tracefs)
    code = "from tcpwatch.sources.event_watch import EventWatch; it = EventWatch(True); print(it._trace._instance.path)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert "tcpwatch-" in done.stdout
    assert not os.path.exists(done.stdout.strip())


# What fails ---------------------------------------------------------------------------------------


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_samples_without_destroy_events(namespace: lab.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DestroyEventReader, "__init__", raising(SockDiagError(errno.EPERM, "no")))
    with closing(LiveSource(events=True)) as source:
        sample = source.sample()
        assert sample.destroyed is None
        assert sample.completeness.missing == ("no events of closed sockets (no)",)


def test_a_socket_of_destroy_events_that_fails_is_opened_again(namespace: lab.Namespace) -> None:
    with closing(LiveSource(events=True)) as source:
        assert source.sample().completeness.complete
        watch = source._events
        assert watch is not None and watch._destroy
        for _ in range(2):  # the second time not at once, but after REOPEN_S
            os.close(watch._destroy._socket.detach())
            sample = source.sample()
            assert sample.destroyed is None
            assert sample.completeness.missing == ("no events of closed sockets (destroy events: Bad file descriptor)",)
            lab.wait_until(lambda: watch._listening, "that it is open again")
            expected = set(connection())
            sample = source.sample()
            assert sample.completeness.missing == ("events of closed sockets were interrupted",)
            heard: set[int] = set()

            def ends(heard: set[int] = heard, expected: set[int] = expected) -> bool:
                sample = source.sample()
                assert sample.completeness.complete
                assert sample.destroyed
                heard |= set(sample.destroyed.table["idiag_cookie"].tolist())
                return expected <= heard

            assert sample.destroyed
            heard |= set(sample.destroyed.table["idiag_cookie"].tolist())
            lab.wait_until(ends, "both ends")


def test_destroy_events_that_cannot_be_had_again_are_no_longer_reported(
    namespace: lab.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(EventWatch(trace=False)) as watch:
        assert watch.take_destroyed() is not None
        monkeypatch.setattr(DestroyEventReader, "reopen", raising(SockDiagError(errno.EPERM, "no")))
        monkeypatch.setattr(DestroyEventReader, "read", raising(SockDiagError(errno.EIO, "broken")))
        connection()  # wakes the thread
        lab.wait_until(lambda: watch.why_no_destroyed == "no", "the second failure")
        assert watch.take_destroyed() is None
        assert watch.failures == ["no events of closed sockets (no)"]
        lab.wait_until(waiting(watch), "that it does not spin")


def test_the_reason_for_a_missing_trace(namespace: lab.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TracepointReader, "__init__", raising(TraceError(errno.EACCES, "needs root")))
    with closing(LiveSource(events=True, trace=True)) as source:
        assert source.info.why_no_trace == "needs root"
        sample = source.sample()
        assert (sample.trace_events, sample.source.why_no_trace) == (None, "needs root")
        assert sample.completeness.complete, "there has never been a trace that could end"
        assert sample.destroyed is not None


def test_a_trace_that_fails_later_ends_with_a_reason(namespace: lab.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.require(tracefs)
    with closing(LiveSource(events=True, trace=True)) as source:
        assert source.sample().trace_events is not None
        assert source._events
        assert source._events._trace
        path = source._events._trace._instance.path
        monkeypatch.setattr(TracepointReader, "read", raising(TraceError(errno.EIO, "the trace cannot be read")))
        sample = source.sample()
        assert (sample.trace_events, sample.source.why_no_trace) == (None, "the trace cannot be read")
        assert sample.completeness.missing == ("the trace has ended (the trace cannot be read)",)
        assert sample.destroyed is not None
        assert not os.path.exists(path)
        assert np.isfinite(sample.begin_monotonic_s)
