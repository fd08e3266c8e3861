"""tcp_info of all sockets in one dump, against ss(8), getsockopt and requests for single sockets."""

from __future__ import annotations

import re
import resource
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.arrays.array_pool import ArrayPool
from tcpwatch.kernel.netlink import decode_sockets, uapi
from tcpwatch.kernel.netlink.sock_diag import SockDiag
from tcpwatch.kernel.netlink.tcp_info import TcpInfoCollector, TcpInfoDump, has_field, info_fields
from tcpwatch.model.columns.columns import BY_KEY
from tcpwatch.model.sockets import join
from tcpwatch.model.states import State
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.support.kernel import netlink, ss

NAMES = [name for name in uapi.FLOW_INFO.names or () if name.startswith("tcpi_")]
WHOLE = [name for name in NAMES if name not in ("tcpi_wscale", "tcpi_flags")]
"""Fields that info_fields() does not split."""


@pytest.fixture
def diag(namespace: lab.Namespace) -> Iterator[SockDiag]:
    with closing(SockDiag()) as it:
        yield it


def figures(infos: TcpInfoDump | None) -> dict[int, dict[str, int]]:
    """Cookie → fields as info_fields names them."""
    assert infos is not None
    assert len(infos.received_monotonic_s) == len(infos.table)
    return {
        int(row["idiag_cookie"]): {name.removeprefix("tcpi_"): int(row[name]) for name in WHOLE} for row in infos.table
    }


def part(info: Mapping[str, int]) -> dict[str, int]:
    """Return the fields of a whole tcp_info that a dump collects."""
    return {name: info[name] for name in (name.removeprefix("tcpi_") for name in WHOLE)}


# Bytes in, figures out ----------------------------------------------------------------------------


def gathered(data: bytes) -> TcpInfoDump:
    words = np.frombuffer(data, np.uint32)
    offsets = decode_sockets.message_offsets(words, 0, len(words), 0xFEDCBA98)
    infos = TcpInfoCollector(ArrayPool(uapi.FLOW_INFO), 1)
    infos.now = 5.0
    decode_sockets.decode_sockets(words, offsets, np.zeros(len(offsets), uapi.SOCKET), None, infos)
    return infos.all()


WORDS = st.one_of(st.just(70), st.integers(0, 75))  # a struct of the kernel's has no part of a word
PAYLOADS = WORDS.flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words))
BEFORE = st.lists(st.tuples(st.sampled_from([netlink.SHUTDOWN, netlink.CGROUP_ID, 15]), st.binary(max_size=9)))


@given(st.lists(st.tuples(PAYLOADS, BEFORE), max_size=8))
def test_fields_of_every_length_equal_those_of_one_socket(sockets: list[tuple[bytes, list[netlink.Attribute]]]) -> None:
    """Fields past the end are 0, and has_field() is false."""
    data = b"".join(
        netlink.message(netlink.GETSOCK, netlink.body(cookie=cookie), [*others, (netlink.INFO, payload)])
        for cookie, (payload, others) in enumerate(sockets, 1)
    )
    infos = gathered(data)
    found = {int(row["idiag_cookie"]): row for row in infos.table}
    assert found.keys() == set(range(1, len(sockets) + 1))
    assert infos.received_monotonic_s.tolist() == [5.0] * len(sockets)
    for cookie, (payload, _) in enumerate(sockets, 1):
        whole = np.frombuffer(payload.ljust(uapi.TCP_INFO.itemsize, b"\0"), uapi.TCP_INFO, 1)[0]
        for name in NAMES:
            if has_field(name, len(payload)):
                assert found[cookie][name] == whole[name]
    shortest = min((len(payload) for payload, _ in sockets), default=280)
    for name in NAMES:
        assert has_field(name, infos.info_bytes) == has_field(name, shortest)


@given(st.lists(st.sampled_from([None, "bbr", "reno", "cubic", "x" * 15]), max_size=8), st.booleans())
def test_congestion_control_algorithm(names: list[str | None], before: bool) -> None:
    """Names of all lengths, before or after tcp_info; empty where the kernel sends none."""
    messages = []
    for cookie, name in enumerate(names, 1):
        attributes = [(netlink.INFO, bytes(232))]
        if name:
            attributes.insert(0 if before else 1, (netlink.CONG, name.encode() + b"\0"))
        messages.append(netlink.message(netlink.GETSOCK, netlink.body(cookie=cookie), attributes))
    table = gathered(b"".join(messages)).table
    found = dict(zip(table["idiag_cookie"].tolist(), table["congestion"].tolist(), strict=True))
    assert found == {cookie: (name or "").encode() for cookie, name in enumerate(names, 1)}


def test_a_message_without_tcp_info_is_no_flow() -> None:
    data = netlink.message(netlink.GETSOCK, netlink.body(cookie=1), [(netlink.SHUTDOWN, b"\1")])
    assert len(gathered(data).table) == 0


# The real kernel ----------------------------------------------------------------------------------

CASES = [case for case in lab.CASES if case[0] != "CLOSED"]


STOP_WATCHES = {"busy_time", "rwnd_limited", "sndbuf_limited"}
"""They advance while data waits, even when nothing happens."""


def between(before: Mapping[str, int], info: Mapping[str, int], after: Mapping[str, int]) -> bool:
    """Compare all fields except the stop-watches, which advance."""
    assert info.keys() == before.keys() == after.keys()
    return all(
        before[name] <= value <= after[name] and (name in STOP_WATCHES or before[name] == after[name])
        for name, value in info.items()
    )


def test_all_states_and_families_equal_single_requests(peer: lab.Peer, diag: SockDiag) -> None:
    """Compared at a moment without changes: equal before and after."""
    with ExitStack() as stack:
        produced = [stack.enter_context(lab.produce(peer, *case)) for case in CASES]
        missing = {(it.local, it.remote) for it in produced}

        def look() -> bool:
            rows = diag.dump().table.copy()
            before = [diag.tcp_info(row) for row in rows]
            found = figures(diag.dump(infos=True).infos)
            after = [diag.tcp_info(row) for row in rows]
            for row, one, other in zip(rows, before, after, strict=True):
                if one is None or other is None:
                    if one == other and int(row["idiag_cookie"]) not in found:
                        missing.discard(ss.row_ends(row))
                elif between(part(one), found[int(row["idiag_cookie"])], part(other)):
                    missing.discard(ss.row_ends(row))
            return not missing

        lab.wait_until(look, "a quiet moment of every socket")


SS: Mapping[str, tuple[str, Callable[[str], int]]] = {
    "bytes_acked": (r" bytes_acked:(\d+)", int),
    "bytes_received": (r" bytes_received:(\d+)", int),
    "rtt": (r" rtt:([\d.]+)/", lambda ms: round(1000 * float(ms))),
    "total_retrans": (r" retrans:\d+/(\d+)", int),
    "busy_time": (r" busy:(\d+)ms", lambda ms: 1000 * int(ms)),
    "rwnd_limited": (r" rwnd_limited:(\d+)ms", lambda ms: 1000 * int(ms)),
}
"""Fields that ss leaves out are 0."""


def fields_by_ss(namespace: lab.Namespace) -> dict[int, dict[str, int]]:
    found = {}
    for line in namespace.ss("-tinmoeOH").splitlines():
        (cookie,) = re.findall(r" sk:([0-9a-f]+)", line)
        hits = {name: (re.search(pattern, line), read) for name, (pattern, read) in SS.items()}
        found[int(cookie, 16)] = {name: read(hit[1]) if hit else 0 for name, (hit, read) in hits.items()}
    return found


def test_tcp_info_equals_ss(namespace: lab.Namespace, peer: lab.Peer, diag: SockDiag) -> None:
    """One connection with lost segments, one blocked by its peer's window, one over IPv6."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((lab.LOCAL[4], 0)))
        connection = peer.open(listener.getsockname()[1], offer=lab.Offer(mss=1200, window_scale=5))
        kernel, _ = listener.accept()
        stack.enter_context(kernel)
        connection.lose_every(4)
        kernel.sendall(b"x" * 12_000)
        connection.send(b"y" * 700)
        connection.wait_for(lambda it: len(it.received) == 12_000, "all data")
        stack.enter_context(lab.produce(peer, "ESTABLISHED/unread", 4))
        stack.enter_context(lab.produce(peer, "ESTABLISHED", 6))

        def look() -> list[dict[str, int]]:
            before = figures(diag.dump(infos=True).infos)
            theirs = fields_by_ss(namespace)
            after = figures(diag.dump(infos=True).infos)
            flows = [cookie for cookie in theirs if before[cookie] == after[cookie]]
            same = [{n: before[c][n] for n in SS} for c in flows if theirs[c] == {n: before[c][n] for n in SS}]
            return same if len(same) == len(theirs) >= 3 else []

        found = lab.wait_until(look, "the same from ss")
        assert any(info["total_retrans"] and info["bytes_acked"] >= 12_000 for info in found)
        assert {info["bytes_received"] for info in found} >= {700, 1000}


def test_thousands_of_sockets(namespace: lab.Namespace, diag: SockDiag) -> None:
    """Each is matched to its own socket: they received different amounts."""
    count = min(1500, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100) // 2)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        receivers = {}
        for number in range(count):
            client = stack.enter_context(socket.create_connection(listener.getsockname()))
            server = stack.enter_context(listener.accept()[0])
            client.sendall(b"x" * (1 + number))
            receivers[server.getpeername()[1]] = server
        begin = time.monotonic()
        dump = diag.dump(infos=True)
        ports = dict(zip(dump.table["idiag_cookie"].tolist(), dump.table["idiag_dport"].tolist(), strict=True))
        infos = dump.infos
        assert infos
        assert len(infos.table) == 2 * count + 1, "the listener too"
        assert ((begin <= infos.received_monotonic_s) & (infos.received_monotonic_s <= time.monotonic())).all()
        mine = {ports[cookie]: info for cookie, info in figures(infos).items() if ports[cookie] in receivers}
        for at, (port, server) in enumerate(receivers.items()):
            info = info_fields(server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 512))
            assert mine[port] == part(info)
            assert info["bytes_received"] == 1 + at
            assert has_field("tcpi_sndbuf_limited", infos.info_bytes)


def test_congestion_control_algorithm_of_each_socket(namespace: lab.Namespace) -> None:
    """From the kernel to the column, against getsockopt and ss."""
    algorithms = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text(encoding="ascii").split()
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=8))
        clients = [stack.enter_context(socket.create_connection(listener.getsockname())) for _ in algorithms]
        expected = {}
        for client, algorithm in zip(clients, algorithms, strict=True):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, algorithm.encode())
            option = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, uapi.TCP_CA_NAME_MAX)
            expected[client.getsockname()[1]] = option.rstrip(b"\0").decode()
        assert list(expected.values()) == algorithms
        for line in namespace.ss("-tinHO", "state", "established").splitlines():
            (port,) = re.findall(r"^\d+\s+\d+\s+\S+:(\d+)", line)
            assert f" {expected.get(int(port), '')}" in line
        with closing(LiveSource(ask_infos=True)) as live:
            rows = join.first(live.sample()).rows
        with closing(LiveSource()) as plain:
            plain.sample()  # the first sample has it in any case
            assert set(BY_KEY["congestion"].values(join.first(plain.sample()).rows)) == {None}
    ports, names = rows.table["idiag_sport"].tolist(), BY_KEY["congestion"].values(rows)
    assert {port: name for port, name in zip(ports, names, strict=True) if port in expected} == expected
    assert [name for name, state in zip(names, rows.state.tolist(), strict=True) if state == State.LISTEN] == [None]


def test_a_dump_without_infos_has_none(diag: SockDiag) -> None:
    assert diag.dump().infos is None
    assert diag.listeners().infos is None
