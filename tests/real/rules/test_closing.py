"""What is said of connections that close badly, on the real kernel."""

from __future__ import annotations

import re
import resource
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest

from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Finding
from tcpwatch.monitor import Monitor
from tcpwatch.sample import Sample
from tcpwatch.sources.base import Source
from tcpwatch.sources.live import LiveSource
from tcpwatch.sources.psutil import PsutilSource
from tests import lab
from tests.lab.diag import dump
from tests.support.clock import SteadySource

LIMITS = Thresholds(close_wait_age_s=0.1)
MANY = 21
MAX_ORPHANS = 4


@pytest.fixture
def namespace() -> Iterator[lab.Namespace]:
    """A new namespace for each test: sockets of an earlier test would be counted."""
    lab.require(lab.namespaces, lab.tun, lab.ipv6, lab.program("ss"))
    with lab.Namespace() as it:
        yield it


@pytest.fixture
def peer(namespace: lab.Namespace) -> Iterator[lab.Peer]:
    with lab.Peer(namespace) as it:
        yield it


@pytest.fixture
def stack(namespace: lab.Namespace) -> Iterator[ExitStack]:
    with ExitStack() as it:
        yield it


@pytest.fixture
def listener(stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))


def left_open(listener: socket.socket, stack: ExitStack, data: bytes = b"") -> socket.socket:
    """Return an accepted connection whose client has sent the data and closed."""
    with socket.create_connection(listener.getsockname()) as client:
        accepted = stack.enter_context(listener.accept()[0])
        client.send(data)
    return accepted


def until_found(source: Source, rule: str) -> Finding:
    with closing(Monitor(source, thresholds=LIMITS)) as monitor:

        def found() -> list[Finding]:
            return [one for one in monitor.step().findings if one.rule == rule]

        return lab.wait_until(found, f"a finding of {rule}", 10)[0]


def test_several_kinds_of_close_wait(listener: socket.socket, stack: ExitStack) -> None:
    for number in range(MANY):
        accepted = left_open(listener, stack, b"unread" * (number % 3 == 2))
        if number % 3 == 0:
            assert accepted.recv(1) == b""
    finding = until_found(SteadySource(), "close-wait-leak")
    unread = [row.receive_queue for row in dump(4, "CLOSE_WAIT")]
    assert sorted(unread) == [0] * 7 + [1] * 7 + [7] * 7
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert finding.headline.startswith("21 CLOSE_WAIT (7 EOF seen, 7 EOF pending, 7 data pending), oldest ")
    assert finding.evidence["descriptor_limit"].value == limit


def test_a_source_that_does_not_know_what_was_read(listener: socket.socket, stack: ExitStack) -> None:
    for _ in range(MANY):
        left_open(listener, stack)
    finding = until_found(PsutilSource(), "close-wait-leak")
    assert finding.headline.startswith("21 CLOSE_WAIT, oldest ")
    assert finding.why == "The peers have closed, and the application has not."


@pytest.mark.parametrize("several", [False, True], ids=["a process", "processes"])
def test_a_number_that_grows_every_minute(several: bool, listener: socket.socket, stack: ExitStack) -> None:
    """In this process, or each in a process of its own."""

    def leak() -> None:
        accepted = left_open(listener, stack)
        if several:
            process = stack.enter_context(subprocess.Popen(["sleep", "60"], pass_fds=[accepted.fileno()]))
            stack.callback(process.kill)
            accepted.close()

    source = SteadySource(owners_least_s=5.0)
    source.apart_s = 61.0
    with closing(Monitor(source, thresholds=LIMITS)) as monitor:
        for _ in range(MANY):
            leak()
        for _ in range(7):
            leak()
            view = monitor.step()
        (finding,) = (one for one in view.findings if one.rule == "close-wait-leak")
        assert finding.evidence["close_wait"].value == len(dump(4, "CLOSE_WAIT")) == MANY + 7
        it, es = ("they", "es") if several else ("it", "")
        assert finding.advice[1].endswith(f"; otherwise {it} will run out of file descriptors.")
        for _ in range(6):
            view = monitor.step()
        (finding,) = (one for one in view.findings if one.rule == "close-wait-leak")
        assert finding.advice[1] == f"Restart the process{es} to free the sockets."


class OrphanSource(LiveSource):
    """A live source of a host with a small tcp_max_orphans, which counts the orphans of this namespace alone."""

    def sample(self, watched: Iterable[int] = ()) -> Sample:
        sample = super().sample(watched)
        limit, own = {"tcp_max_orphans": MAX_ORPHANS}, {"TCP_orphan": len(dump(4, "FIN_WAIT_1"))}
        return replace(sample, sysctls={**sample.sysctls, **limit}, counters={**sample.counters, **own})


def test_orphans_of_peers_that_do_not_read(peer: lab.Peer, stack: ExitStack) -> None:
    """These peers are reachable: they answer the probes, and have not got the FIN."""
    peer.listen(5000)
    for _ in range(2):
        kernel = socket.create_connection((lab.REMOTE[4], 5000))
        peer.connection_of(kernel).window(0)
        kernel.send(b"waits")
        kernel.close()
    finding = until_found(OrphanSource(), "orphans")
    orphans = dump(4, "FIN_WAIT_1")
    assert [(row.inode, row.timer, row.transmit_queue) for row in orphans] == [(0, "persist", 6)] * 2
    assert finding.headline == "2 orphans, 50 % of tcp_max_orphans"
    assert "or they do not read the data before the FIN" in finding.why


def test_time_waits_of_both_sides(namespace: lab.Namespace, listener: socket.socket) -> None:
    """They last a minute, whatever tcp_fin_timeout is, and the kernel makes no more than its limit."""
    namespace.sysctl("net.ipv4.tcp_fin_timeout", 5)
    namespace.sysctl("net.ipv4.tcp_max_tw_buckets", 10)
    port = listener.getsockname()[1]

    def close_in_order(first_is_server: bool) -> None:
        pair = socket.create_connection(("127.0.0.1", port)), listener.accept()[0]
        first, second = reversed(pair) if first_is_server else pair
        first.close()
        assert second.recv(1) == b""
        second.close()

    for first_is_server in (True, True, True, True, False, False, False, False, False):
        close_in_order(first_is_server)
    lab.wait_until(lambda: len(dump(4, "TIME_WAIT")) == 9, "the TIME_WAITs")
    assert sum(row.local.port == port for row in dump(4, "TIME_WAIT")) == 4
    timers = re.findall(r"timer:\(timewait,(\d+sec|1min)", namespace.ss("-tanoH", "state", "time-wait"))
    assert len(timers) == 9
    assert min(60 if timer == "1min" else int(timer[:-3]) for timer in timers) > 30
    with closing(Monitor(LiveSource())) as monitor:
        for _ in range(2):
            (finding,) = monitor.step().findings or (None,)
        assert finding is not None
        assert finding.headline == "9 of 10 TIME_WAIT; 4 on the server side, 5 on the client side"
        for _ in range(3):
            close_in_order(True)
        lab.wait_until(lambda: namespace.counters()["TCPTimeWaitOverflow"] == 2, "two sockets closed without it")
        (finding,) = monitor.step().findings
        assert finding.headline.startswith("10 of 10 TIME_WAIT, ")
        assert finding.headline.endswith("/s closed without it; 5 on the server side, 5 on the client side")
