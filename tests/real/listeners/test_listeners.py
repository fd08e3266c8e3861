"""Accept and SYN queues, on invented tables and on the real kernel."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import pytest

from tcpwatch.config.thresholds import DEFAULT
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_analysis import QueueAnalysis
from tcpwatch.model.listeners.queue_limits import Queue
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.support.kernel import ss
from tests.support.polls import first_poll
from tests.support.views import Sock, make_rows, make_sample, sock


def listeners(socks: Sequence[Sock]) -> Sequence[Listener]:
    """Return the listeners of one sample."""
    sample = make_sample(make_rows(socks))
    return QueueAnalysis(DEFAULT.syn_queue_share).step(first_poll(sample)).listeners


@dataclass(frozen=True, slots=True)
class Scene:
    """Listeners as `endpoint accept/limit`, half-open connections by local end, SYN queue of each listener."""

    listening: tuple[str, ...]
    half_open: tuple[str, ...]
    syn_queues: tuple[Queue, ...]


SCENES = {
    "none": Scene(("0.0.0.0:80 0/8",), (), (Queue(0, 8),)),
    "another port": Scene(("0.0.0.0:80 0/8",), ("10.0.0.1:81",), (Queue(0, 8),)),
    "any IPv4": Scene(("0.0.0.0:80 0/8",), ("10.0.0.1:80", "10.0.0.2:80"), (Queue(2, 8),)),
    "one address": Scene(("10.0.0.1:80 0/8",), ("10.0.0.1:80", "10.0.0.1:80"), (Queue(2, 8),)),
    # The listener of 10.0.0.2 was closed: its half-open connections remain and have no listener.
    "not mine": Scene(("10.0.0.1:80 0/8",), ("10.0.0.1:80", "10.0.0.2:80"), (Queue(1, 8),)),
    "any address takes IPv4": Scene(
        ("[::]:80 0/8",), ("mapped 10.0.0.1:80", "10.0.0.1:80", "[2001:db8::1]:80"), (Queue(3, 8),)
    ),
    "each family its own": Scene(
        ("0.0.0.0:80 0/8", "[::]:80 0/9"), ("10.0.0.1:80", "[2001:db8::1]:80", "[::1]:80"), (Queue(1, 8), Queue(2, 9))
    ),
    "specific before wildcard": Scene(
        ("0.0.0.0:80 0/8", "10.0.0.1:80 0/9", "[2001:db8::1]:80 0/7", "[::]:80 0/6"),
        ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "[2001:db8::1]:80", "[2001:db8::2]:80", "mapped 10.0.0.1:80"),
        (Queue(2, 8), Queue(2, 9), Queue(1, 7), Queue(1, 6)),
    ),
    "v4-mapped listener": Scene(("mapped 10.0.0.1:80 0/8",), ("10.0.0.1:80", "mapped 10.0.0.1:80"), (Queue(2, 8),)),
    "a group shares": Scene(
        ("0.0.0.0:80 0/8", "0.0.0.0:80 0/4", "10.0.0.1:80 0/2"),
        ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"),
        (Queue(2, 12), Queue(2, 12), Queue(1, 2)),
    ),
}


def listeners_of(scene: Scene) -> list[Listener]:
    """Return the listeners in the order of the scene."""
    specs = []
    for spec in scene.listening:
        end, _, queue = spec.removeprefix("mapped ").partition(" ")
        depth, _, limit = queue.partition("/")
        mapped = spec.startswith("mapped ")
        specs.append(sock("LISTEN", end, recv_queue=int(depth), send_queue=int(limit), mapped=mapped))
    for at, spec in enumerate(scene.half_open):
        end, mapped = spec.removeprefix("mapped "), spec.startswith("mapped ")
        remote = f"[2001:db8::9]:{1000 + at}" if "[" in end else f"192.0.2.9:{1000 + at}"
        specs.append(sock("SYN_RCVD", end, remote, mapped=mapped))
    found = listeners(specs)
    return sorted(found, key=lambda one: one.cookie)


@pytest.mark.parametrize("name", SCENES)
def test_half_open_connections_are_counted_with_their_listener(name: str) -> None:
    scene = SCENES[name]
    found = listeners_of(scene)
    assert tuple(one.syn_queue for one in found) == scene.syn_queues
    assert [one.group_size for one in found] == [sum(same == spec for same in ends(scene)) for spec in ends(scene)]


def ends(scene: Scene) -> list[str]:
    return [spec.rpartition(" ")[0] for spec in scene.listening]


def test_the_fullest_accept_queue_comes_first_then_the_port() -> None:
    specs = [
        sock("LISTEN", "0.0.0.0:90", recv_queue=1, send_queue=8),
        sock("LISTEN", "0.0.0.0:70", recv_queue=0, send_queue=8),
        sock("LISTEN", "0.0.0.0:80", recv_queue=9, send_queue=8),
        sock("LISTEN", "0.0.0.0:60", recv_queue=0, send_queue=0),
        sock("ESTABLISHED", "10.0.0.1:50", "10.0.0.2:1", recv_queue=10**6),
    ]
    found = listeners(specs)
    assert [one.local_port for one in found] == [80, 90, 60, 70]
    assert [one.accept_queue.share for one in found] == [9 / 8, 1 / 8, 0, 0]


def test_owner_and_endpoint() -> None:
    specs = [
        sock("LISTEN", "0.0.0.0:80", process="nginx", pid=7),
        sock("LISTEN", "[::]:81"),
        sock("LISTEN", "[::1]:82"),
        sock("LISTEN", "127.0.0.1:83", mapped=True),
    ]
    found = listeners(specs)
    assert [one.endpoint for one in found] == ["*:80", "*:81", "[::1]:82", "127.0.0.1:83"]
    assert [one.owner and one.owner.processes[0].name for one in found] == ["nginx", None, None, None]
    assert [one.family for one in found] == [2, 10, 10, 10]


@pytest.mark.parametrize(
    ("now", "before", "elapsed_s", "drops", "per_s"),
    [
        ({}, {}, 2.0, None, None),
        ({1: 10}, {}, 2.0, 10, None),
        ({1: 10}, {1: 4}, None, 10, None),
        ({1: 10}, {1: 4}, 2.0, 10, 3.0),
        ({1: 4}, {1: 4}, 2.0, 4, 0.0),
        ({1: 3}, {1: 0xFFFFFFFF}, 2.0, 3, 2.0),  # a u32 that has wrapped
    ],
)
def test_drops(
    now: dict[int, int], before: dict[int, int], elapsed_s: float | None, drops: int | None, per_s: float | None
) -> None:
    rows = make_rows([sock("LISTEN", "0.0.0.0:80")])
    sample, earlier = make_sample(rows, drops=now), make_sample(rows, drops=before)
    previous = replace(earlier, monotonic=sample.monotonic - elapsed_s) if elapsed_s else None
    (one,) = (
        QueueAnalysis(DEFAULT.syn_queue_share)
        .step(first_poll(sample, previous=previous, elapsed_s=elapsed_s))
        .listeners
    )
    assert (one.drops, one.drops_per_s) == (drops, per_s)


# The real kernel ----------------------------------------------------------------------------------


@pytest.fixture
def monitor(namespace: lab.Namespace) -> Iterator[Monitor]:
    with closing(Monitor(LiveSource())) as it:
        yield it


def listener_of(monitor: Monitor, kernel: socket.socket) -> Listener:
    port = kernel.getsockname()[1]
    return next(one for one in monitor.step().listeners if one.local_port == port)


def half_open_in_ss(namespace: lab.Namespace, port: int) -> int:
    return sum(line.state == "SYN-RECV" and line.local.port == port for line in ss.lines(namespace))


@pytest.mark.parametrize(
    ("host", "dualstack", "families"),
    [("198.18.0.1", False, [4]), ("0.0.0.0", False, [4]), ("fd00:198:18::1", False, [6]), ("::", True, [4, 6])],
)
def test_a_flood_fills_the_syn_queue(
    namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor, host: str, dualstack: bool, families: list[lab.Family]
) -> None:
    af = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=af, backlog=4000, dualstack_ipv6=dualstack) as kernel:
        port = kernel.getsockname()[1]
        for family in families:
            peer.flood(port, 700, family=family)
        found = listener_of(monitor, kernel)
        assert found.syn_queue == Queue(half_open_in_ss(namespace, port), 4000)
        assert found.syn_queue.depth == 700 * len(families)
        assert found.accept_queue == Queue(0, 4000)


def test_a_specific_listener_before_a_wildcard(peer: lab.Peer, monitor: Monitor) -> None:
    with socket.create_server((lab.LOCAL[4], 0), backlog=4000) as kernel:
        port = kernel.getsockname()[1]
        wildcard = socket.create_server(("::", port), family=socket.AF_INET6, backlog=3000)
        with wildcard:
            peer.flood(port, 300)
            peer.flood(port, 200, family=6)
            queues = {one.local_address: one.syn_queue for one in monitor.step().listeners}
        assert queues == {lab.LOCAL[4]: Queue(300, 4000), "::": Queue(200, 3000)}


def test_a_group_that_shares_a_port(namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor) -> None:
    with (
        socket.create_server((lab.LOCAL[4], 0), backlog=2000, reuse_port=True) as first,
        socket.create_server(first.getsockname(), backlog=1000, reuse_port=True),
    ):
        port = first.getsockname()[1]
        peer.flood(port, 400)
        found = [one for one in monitor.step().listeners if one.local_port == port]
        assert [(one.group_size, one.syn_queue) for one in found] == [(2, Queue(400, 3000))] * 2
        assert half_open_in_ss(namespace, port) == 400


def test_a_full_accept_queue_and_its_drops(namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor) -> None:
    with socket.create_server((lab.LOCAL[4], 0), backlog=2) as kernel:
        for _ in range(3):
            peer.open(kernel.getsockname()[1])
        found = listener_of(monitor, kernel)
        (line,) = (line for line in ss.lines(namespace) if line.cookie == found.cookie)
        assert found.accept_queue == Queue(line.recv_queue, line.send_queue) == Queue(3, 2)
        assert (found.accept_queue.share, found.drops) == (1.5, 0)
        for _ in range(4):
            peer.knock(kernel.getsockname()[1])
        found = listener_of(monitor, kernel)
        assert found.drops == 4
        assert found.drops_per_s is not None
        assert found.drops_per_s > 0
