"""Peaks of accept queues between two samples, on the real kernel."""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import closing

import pytest

from tcpwatch.kernel.netlink.sock_diag import SockDiag, SockDiagError
from tcpwatch.monitor import Monitor
from tcpwatch.sources.accept_queue_watch import AcceptQueueWatch
from tcpwatch.sources.live import LiveSource
from tests import lab

_SO_COOKIE = 57


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_a_peak_between_two_samples_is_seen(namespace: lab.Namespace) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=8) as listener, closing(AcceptQueueWatch()) as watch:
        cookie = int.from_bytes(listener.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), sys.byteorder)
        lab.wait_until(lambda: watch.take().get(cookie) == 0, "the first look")
        clients = [socket.create_connection(listener.getsockname()) for _ in range(5)]
        deepest = 0

        def seen() -> bool:
            nonlocal deepest
            deepest = max(deepest, watch.take().get(cookie, 0))
            return deepest == 5

        lab.wait_until(seen, "five that wait")
        for client in clients:
            listener.accept()[0].close()
            client.close()
        lab.wait_until(lambda: watch.take().get(cookie) == 0, "that nothing waits")


def test_the_monitor_shows_the_peak(namespace: lab.Namespace) -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=8) as listener,
        closing(Monitor(LiveSource(watch_queues=True))) as monitor,
    ):
        port = listener.getsockname()[1]
        monitor.step()
        clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        monitor._source._queues._read_depths()  # type: ignore[attr-defined]  # so that nothing has to be waited for
        for client in clients:
            listener.accept()[0].close()
            client.close()
        (one,) = (one for one in monitor.step().listeners if one.local_port == port)
        assert (one.accept_queue.depth, one.accept_peak) == (0, 3)


def test_the_thread_ends_with_its_source(namespace: lab.Namespace) -> None:
    before = threads()
    source = LiveSource(watch_queues=True)
    assert "tcpwatch-queues" in threads()
    source.close()
    assert threads() == before


def test_a_failing_sock_diag_ends_the_watch_and_nothing_else(
    namespace: lab.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(diag: SockDiag) -> None:
        raise SockDiagError(1, "no")

    monkeypatch.setattr(SockDiag, "listeners", fail)
    watch = AcceptQueueWatch()
    watch._thread.join(5)
    assert not watch._thread.is_alive()
    assert watch.take() == {}
    assert watch.failure == "no"
    watch.close()


def test_a_watch_that_has_ended_is_reported_and_a_depth_is_no_peak(
    namespace: lab.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=8) as listener,
        closing(Monitor(LiveSource(watch_queues=True))) as monitor,
    ):
        watch = monitor._source._queues  # type: ignore[attr-defined]
        cookie = int.from_bytes(listener.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), sys.byteorder)
        lab.wait_until(lambda: cookie in watch._peaks, "the first look")
        (one,) = monitor.step().listeners
        assert one.accept_peak == 0

        def fail(diag: SockDiag) -> None:
            raise SockDiagError(1, "broken")

        with monkeypatch.context() as broken:
            broken.setattr(watch._diag, "listeners", lambda: fail(watch._diag))
            watch._thread.join(5)
        view = monitor.step()
        (one,) = view.listeners
        assert (one.accept_queue.depth, one.accept_peak) == (0, None)
        assert view.sample.completeness.missing == ("accept queues are not watched between polls (broken)",)
        (finding,) = view.findings
        assert (finding.rule, finding.headline) == ("data-incomplete", view.sample.completeness.words)


def test_how_long_a_connection_waited_before_the_start(namespace: lab.Namespace) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=8) as listener:
        client = socket.create_connection(listener.getsockname())
        begin = time.time()
        lab.wait_until(lambda: time.time() - begin > 0.3, "that it has waited for a while")
        with client, closing(Monitor(LiveSource())) as monitor:
            monitor.step()
            (one,) = (one for one in monitor.step().listeners if one.local_port == listener.getsockname()[1])
            assert one.waiting_s is not None
            assert 0.3 <= one.waiting_s <= time.time() - begin + 0.1  # jiffies
