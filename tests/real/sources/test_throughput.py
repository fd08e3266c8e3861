"""The shown throughput against test traffic of known size, over loopback."""

from __future__ import annotations

import bisect
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import numpy as np
import pytest

from tcpwatch.model.columns.columns import BY_KEY
from tcpwatch.model.sockets.throughput import SendLimit
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tests import lab

TOLERANCE = 0.05
"""Largest allowed error, as a share of the true amount."""


class Traffic:
    """Bytes from a sender to a receiver, chunk by chunk; each chunk is checked on arrival."""

    def __init__(self, sender: socket.socket, receiver: socket.socket, chunk: int, pause_s: float) -> None:
        self._sender, self._receiver = sender, receiver
        self._chunk, self._pause_s = bytes(chunk), pause_s
        self._over = threading.Event()
        self._moments = [time.monotonic()]
        self._moved = [0]
        self._threads = [threading.Thread(target=it, daemon=True) for it in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    @property
    def moved(self) -> int:
        """Bytes that the receiver has read."""
        return self._moved[-1]

    def moved_at(self, moment: float) -> tuple[int, int]:
        """Return the least and the most bytes read so far; one chunk may be in flight."""
        at = bisect.bisect_right(self._moments, moment)
        after = self._moved[at] if at < len(self._moved) else self._moved[-1]
        return self._moved[at - 1], after + len(self._chunk)

    def stop(self) -> None:
        """Stop both threads."""
        self._over.set()
        self._threads[0].join()
        self._sender.shutdown(socket.SHUT_WR)
        self._threads[1].join()

    def _send(self) -> None:
        while not self._over.wait(self._pause_s):  # the pace of the traffic; nothing waits for it
            self._sender.sendall(self._chunk)

    def _receive(self) -> None:
        while data := self._receiver.recv(1 << 20):
            total = self._moved[-1] + len(data)
            self._moments.append(time.monotonic())
            self._moved.append(total)


@contextmanager
def connected(address: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection: client, server."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((address, 0), family=family))
        client = stack.enter_context(socket.create_connection(listener.getsockname()[:2]))
        yield client, stack.enter_context(listener.accept()[0])


@pytest.fixture
def monitor(namespace: lab.Namespace) -> Iterator[Monitor]:
    with closing(Monitor(LiveSource(ask_infos=True))) as it:
        yield it


def cell(view: View, end: socket.socket, key: str) -> Any:
    """Return a column's value in the row of this end."""
    ports = (end.getsockname()[1], end.getpeername()[1])
    table = view.rows.table
    (at,) = np.flatnonzero((table["idiag_sport"] == ports[0]) & (table["idiag_dport"] == ports[1])).tolist()
    return BY_KEY[key].values(view.rows.take(slice(at, at + 1)))[0]


def sampled_at(view: View) -> float:
    """Return the time of the kernel's answer; with few sockets it is the same for all."""
    infos = view.sample.tcp_info_table
    assert infos
    (moment,) = set(infos.received_monotonic_s.tolist())
    return float(moment)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_rates_equal_the_bytes_moved(monitor: Monitor, address: str) -> None:
    """From poll to poll and for both ends, at 20 MB/s and through a buffer of a hundredth of that."""
    with connected(address) as (client, server):
        traffic = Traffic(client, server, chunk=100_000, pause_s=0.005)
        try:
            before = sampled_at(monitor.step())
            for _ in range(5):
                goal = traffic.moved + 10_000_000
                lab.wait_until(lambda goal=goal: traffic.moved >= goal, "10 MB", deadline_s=30)  # type: ignore[misc]
                view = monitor.step()
                now = sampled_at(view)
                rates = cell(view, client, "tx_bytes_per_s"), cell(view, server, "rx_bytes_per_s")
                goal = traffic.moved + 1
                lab.wait_until(lambda goal=goal: traffic.moved >= goal, "the traffic", 30)  # type: ignore[misc]
                (least_then, most_then), (least_now, most_now) = traffic.moved_at(before), traffic.moved_at(now)
                least, most = least_now - most_then, most_now - least_then
                assert most - least < 0.1 * most, "the truth is known to a tenth at most"
                for rate in rates:
                    assert (1 - TOLERANCE) * least <= rate * (now - before) <= (1 + TOLERANCE) * most
                before = now
        finally:
            traffic.stop()


def test_the_sum_of_all_rates_equals_the_bytes_moved(monitor: Monitor) -> None:
    """Every byte of a transfer of known size is in one of the rates."""
    with connected("127.0.0.1") as (client, server):
        first = sampled_at(monitor.step())
        shown, before = 0.0, first
        for _ in range(4):
            client.sendall(bytes(500_000))
            left = 500_000
            while left:
                left -= len(server.recv(left))
            lab.wait_until(lambda: not _unacknowledged(client), "the last acknowledgement")
            view = monitor.step()
            now = sampled_at(view)
            shown += cell(view, client, "tx_bytes_per_s") * (now - before)
            assert cell(view, server, "rx_bytes_per_s") * (now - before) == pytest.approx(500_000, rel=1e-3)
            before = now
        assert shown == pytest.approx(2_000_000, rel=1e-3)


def _unacknowledged(end: socket.socket) -> int:
    from fcntl import ioctl
    from termios import TIOCOUTQ

    return int.from_bytes(ioctl(end, TIOCOUTQ, bytes(4)), "little")


# What limits a flow -------------------------------------------------------------------------------


def limit_after(monitor: Monitor, end: socket.socket, least_s: float = 0.3) -> str | None:
    """Return what limits this end, over a time much longer than the kernel's jiffies."""
    begin = sampled_at(monitor.step())
    lab.wait_until(lambda: time.monotonic() > begin + least_s, "some time", deadline_s=10)
    view = monitor.step()
    word = cell(view, end, "limited_by")
    assert word is None or isinstance(word, str)
    return word


def test_an_application_that_sends_now_and_then(monitor: Monitor) -> None:
    with connected("127.0.0.1") as (client, server):
        traffic = Traffic(client, server, chunk=1000, pause_s=0.02)
        try:
            assert limit_after(monitor, client) == SendLimit.APPLICATION.word
            assert limit_after(monitor, server) is None, "it sends nothing"
        finally:
            traffic.stop()


def test_a_receiver_that_does_not_read(monitor: Monitor) -> None:
    with connected("127.0.0.1") as (client, server):
        client.setblocking(False)
        lab.wait_until(lambda: _is_full(client), "full buffers")
        assert limit_after(monitor, client) == SendLimit.RECEIVER.word
        assert cell(monitor.step(), server, "tx_bytes_per_s") == 0


def _is_full(end: socket.socket) -> bool:
    try:
        while True:
            end.send(bytes(1 << 16))
    except BlockingIOError:
        return _unacknowledged(end) > 1 << 18


def test_a_network_that_loses_everything(namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor) -> None:
    with lab.produce(peer, "ESTABLISHED/unacknowledged", 4) as it:
        assert it.kernel
        assert limit_after(monitor, it.kernel) == SendLimit.NETWORK.word
        view = monitor.step()
        assert cell(view, it.kernel, "tx_bytes_per_s") == 0
        lab.wait_until(lambda: cell(monitor.step(), it.kernel, "retransmits_total"), "a repeat")  # type: ignore[arg-type]


def test_a_new_flow_has_no_rate_yet(monitor: Monitor) -> None:
    monitor.step()
    with connected("127.0.0.1") as (client, server):
        client.sendall(b"x")
        view = monitor.step()
        assert cell(view, client, "rtt_ms") > 0
        assert cell(view, client, "retransmits_total") == 0
        assert [cell(view, server, key) for key in ("rx_bytes_per_s", "limited_by")] == [None, None]
        assert math.isfinite(cell(monitor.step(), server, "rx_bytes_per_s"))
