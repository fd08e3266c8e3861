"""Verdicts about half-open connections on the real kernel."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tcpwatch.model.rules.half_open.verdict import half_open_verdict
from tcpwatch.model.rules.half_open.verdict_kinds import HalfOpenVerdict, VerdictKind
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tcpwatch.sources.psutil import PsutilSource
from tests import lab
from tests.lab.diag import dump
from tests.sentences.recorder import note_texts
from tests.support.clock import SteadySource

DEFER_60_S = (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)


@pytest.fixture
def namespace() -> Iterator[lab.Namespace]:
    lab.require(lab.namespaces, lab.tun, lab.ipv6, lab.program("ip"))
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


def listen(stack: ExitStack, backlog: int, *options: tuple[int, int, int]) -> tuple[socket.socket, int]:
    kernel = stack.enter_context(socket.create_server((lab.LOCAL[4], 0), backlog=backlog))
    for option in options:
        kernel.setsockopt(*option)
    return kernel, kernel.getsockname()[1]


def until(monitor: Monitor, kind: VerdictKind) -> HalfOpenVerdict:
    """Poll until the verdict about the host is of this kind, and return it."""

    def found() -> HalfOpenVerdict | None:
        verdict = half_open_verdict(monitor.step())
        return verdict if verdict.kind is kind else None

    verdict = lab.wait_until(found, str(kind), 10)
    assert verdict is not None
    return verdict


def test_a_listener_that_closes_while_handshakes_are_in_progress(peer: lab.Peer, stack: ExitStack) -> None:
    with closing(Monitor(LiveSource())) as monitor:
        kernel, port = listen(stack, 8)
        clients = [peer.half_open(port) for _ in range(2)]
        (listener,) = monitor.step().listeners
        kernel.close()
        assert [row.local.port for row in dump(4, "SYN_RCVD")] == [port] * 2
        verdict = half_open_verdict(monitor.step(), listener.key)
        note_texts("calm", (verdict.headline, verdict.why))
        assert (verdict.kind, verdict.headline) == (
            VerdictKind.LISTENER_CLOSED, "no listener; 2 half-open connections left on this host",
        )  # fmt: skip
        for client in clients:
            client.complete()
            client.wait_for(lambda it: it.reset, "the reset")
        assert not dump(4, "SYN_RCVD")
        verdict = half_open_verdict(monitor.step(), listener.key)
        assert verdict.headline == "no listener"


def test_clients_that_do_not_answer_fill_most_of_the_queue(peer: lab.Peer, stack: ExitStack) -> None:
    _, port = listen(stack, 10)
    for _ in range(9):
        peer.half_open(port)
    with closing(Monitor(LiveSource())) as monitor:
        verdict = half_open_verdict(monitor.step())
        assert (verdict.kind, verdict.headline) == (VerdictKind.BURST, "9 of 10 half-open, 0 % retransmitted")
        assert " is nearly full, or was a moment ago, but most clients answer" in verdict.why
        lab.wait_until(lambda: all(row.retransmits for row in dump(4, "SYN_RCVD")), "repeated SYN+ACKs")
        verdict = half_open_verdict(monitor.step())
        assert verdict.kind is VerdictKind.SLOW_CLIENTS
        assert verdict.headline.startswith("SYN+ACK retransmitted to 9 of 9 half-open connections, oldest ")
        assert verdict.why.endswith("; the queue is nearly full.")


def test_few_clients_that_do_not_answer(peer: lab.Peer, stack: ExitStack) -> None:
    _, port = listen(stack, 100)
    for _ in range(3):
        peer.half_open(port)
    with closing(Monitor(LiveSource())) as monitor:
        assert half_open_verdict(monitor.step()).kind is VerdictKind.QUIET
        lab.wait_until(lambda: all(row.retransmits for row in dump(4, "SYN_RCVD")), "repeated SYN+ACKs")
        verdict = half_open_verdict(monitor.step())
        assert verdict.headline.startswith("SYN+ACK retransmitted to 3 of 3 half-open connections, oldest ")
        assert verdict.why.endswith("; the queue has room, so no client is refused.")
        late = peer.open(port)
        assert late.established


def test_a_listener_that_waits_for_data(peer: lab.Peer, stack: ExitStack) -> None:
    _, port = listen(stack, 100, DEFER_60_S)
    clients = [peer.half_open(port) for _ in range(3)]
    for client in clients:
        client.complete()
    with closing(Monitor(LiveSource())) as monitor:
        verdict = until(monitor, VerdictKind.DEFERRED)
    assert verdict.headline.startswith("3 of 3 half-open connections wait without a retransmit, oldest ")
    assert [row.retransmits for row in dump(4, "SYN_RCVD")] == [0, 0, 0]
    assert sum(logged.from_kernel for logged in peer.log()) == 3, "one SYN+ACK to each"


def test_a_flooded_listener_that_closes(peer: lab.Peer, stack: ExitStack) -> None:
    kernel, port = listen(stack, 8)
    with closing(Monitor(LiveSource())) as monitor:
        for _ in range(9):
            peer.half_open(port)
        lab.wait_until(lambda: all(row.retransmits for row in dump(4, "SYN_RCVD")), "repeated SYN+ACKs")
        for _ in range(2):
            view = monitor.step()
        assert "syn-flood" in [one.rule for one in view.findings]
        kernel.close()
        verdict = half_open_verdict(monitor.step())
        assert verdict.kind is VerdictKind.FLOOD
        assert verdict.why == "The listener was flooded a moment ago and has been closed since."


def test_a_source_without_timers(peer: lab.Peer, stack: ExitStack) -> None:
    _, port = listen(stack, 100)
    for _ in range(3):
        peer.half_open(port)
    with closing(Monitor(PsutilSource())) as monitor:
        verdict = half_open_verdict(monitor.step())
    assert (verdict.kind, verdict.headline) == (VerdictKind.UNKNOWN, "3 half-open connections")


def test_a_flood_from_many_networks(namespace: lab.Namespace, peer: lab.Peer, stack: ExitStack) -> None:
    namespace.ip(f"route add default dev {peer.device}")
    _, port = listen(stack, 8)
    with closing(Monitor(LiveSource())) as monitor:
        for number in range(9):
            peer.half_open(port, remote=lab.Endpoint(f"{20 + number}.1.1.1", 1_000))
        lab.wait_until(lambda: all(row.retransmits for row in dump(4, "SYN_RCVD")), "repeated SYN+ACKs")
        for _ in range(2):
            view = monitor.step()
    (flood,) = (one for one in view.findings if one.rule == "syn-flood")
    assert "9 of 8 half-open from 9 addresses, 100 % unanswered" in flood.headline
    assert flood.advice[1].startswith("The sources are widely spread")
    assert flood.evidence["largest_24_share"].value == pytest.approx(1 / 9)


def test_syns_that_arrive_each_second(namespace: lab.Namespace, peer: lab.Peer, stack: ExitStack) -> None:
    _, port = listen(stack, 100)
    with closing(Monitor(SteadySource())) as monitor:
        assert half_open_verdict(monitor.step()).why.startswith("No client connects, or the handshakes complete")
        before = namespace.counters()["PassiveOpens"]
        for _ in range(6):
            peer.open(port)
        assert namespace.counters()["PassiveOpens"] == before + 6
        verdict = half_open_verdict(monitor.step())
    assert verdict.headline == "no half-open connections"
    assert verdict.why.endswith(" This host receives 6 SYNs/s.")
