"""SockDiag on the real kernel: requests, answers, and cleaning up."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyroute2.netlink
import pytest
from pyroute2.netlink import diag as pyroute2_diag

from tcpwatch.arrays.array_pool import ArrayPool
from tcpwatch.kernel.netlink import decode_sockets, sock_diag, uapi
from tcpwatch.kernel.netlink.sock_diag import SockDiag, SockDiagError
from tcpwatch.kernel.netlink.tcp_info import info_fields
from tests import lab
from tests.support.kernel import netlink, ss
from tests.support.kernel.fake_kernel import FakeKernel


@pytest.fixture
def diag(namespace: lab.Namespace) -> Iterator[SockDiag]:
    with closing(SockDiag()) as it:
        yield it


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# What is asked ------------------------------------------------------------------------------------

ROW = np.zeros(1, uapi.SOCKET)
ROW["idiag_family"] = uapi.AF_INET6
ROW["idiag_sport"], ROW["idiag_dport"] = 443, 50_000
ROW["idiag_src"], ROW["idiag_dst"] = np.arange(16), np.arange(100, 116)
ROW["idiag_if"], ROW["idiag_cookie"] = 7, 0x1122334455667788


def test_the_request_for_one_socket_equals_pyroute2_s(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = FakeKernel([netlink.error(2)])
    kernel.install(monkeypatch)
    SockDiag().tcp_info(ROW[0])
    request = pyroute2_diag.inet_diag_req()
    request["sdiag_family"], request["sdiag_protocol"] = socket.AF_INET6, pyroute2_diag.IPPROTO_TCP
    request["idiag_ext"], request["idiag_states"] = 1 << uapi.INET_DIAG_INFO - 1, uapi.TCPF_ALL
    request["idiag_sport"], request["idiag_dport"] = 443, 50_000
    request["idiag_src"] = tuple(np.arange(16, dtype=np.uint8).view(">u4").tolist())
    request["idiag_dst"] = tuple(np.arange(100, 116, dtype=np.uint8).view(">u4").tolist())
    request["idiag_if"], request["idiag_cookie"] = 7, 0x1122334455667788
    request["header"]["type"] = pyroute2_diag.SOCK_DIAG_BY_FAMILY
    request["header"]["flags"] = pyroute2_diag.NLM_F_REQUEST
    request["header"]["sequence_number"] = int.from_bytes(kernel.requests[0][8:12], sys.byteorder)
    request.encode()
    assert kernel.requests == [bytes(request.data)]


ASKING: tuple[tuple[Callable[[SockDiag], sock_diag.Dump], int, int], ...] = (
    (lambda diag: diag.dump(), 0xFFF, 0),
    (lambda diag: diag.dump(1 << 3), 1 << 3, 0),
    (lambda diag: diag.dump(infos=True), 0xFFF, 1 << 1 | 1 << 3),
    (lambda diag: diag.listeners(), 1 << 10, 1 << 6),
    (lambda diag: diag.bound_only(), 1 << 13, 0),
)


@pytest.mark.parametrize(("ask", "states", "ext"), ASKING)
def test_a_dump_is_one_old_request_for_all_families(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[SockDiag], sock_diag.Dump], states: int, ext: int
) -> None:
    kernel = FakeKernel([netlink.done()])
    kernel.install(monkeypatch)
    ask(SockDiag())
    sequence = int.from_bytes(kernel.requests[0][8:12], sys.byteorder)  # begins at random
    body = bytes(3) + bytes([ext]) + bytes(48) + states.to_bytes(4, sys.byteorder) + bytes(4)
    flags = netlink.REQUEST | netlink.DUMP
    assert kernel.requests == [netlink.message(netlink.GETSOCK, body, flags=flags, sequence=sequence)]


def test_constants_equal_pyroute2_s() -> None:
    names = (
        "NLMSG_NOOP",
        "NLMSG_ERROR",
        "NLMSG_DONE",
        "NLMSG_OVERRUN",
        "NLM_F_REQUEST",
        "NLM_F_DUMP",
        "NLM_F_DUMP_INTR",
    )
    for name in names:
        assert getattr(uapi, name) == getattr(pyroute2.netlink, name)
    for name in ("NETLINK_SOCK_DIAG", "SOCK_DIAG_BY_FAMILY", "AF_INET", "AF_INET6", "IPPROTO_TCP"):
        assert getattr(uapi, name) == getattr(pyroute2_diag, name)
    numbers = {name: at for at, (name, *_) in enumerate(pyroute2_diag.inet_diag_msg.nla_map)}
    for name in ("INET_DIAG_INFO", "INET_DIAG_SKMEMINFO", "INET_DIAG_SHUTDOWN", "INET_DIAG_CGROUP_ID"):
        assert getattr(uapi, name) == numbers[name]
    assert uapi.TCPF_LISTEN == 1 << pyroute2_diag.SS_LISTEN


# What is answered ---------------------------------------------------------------------------------


def test_ipv4_ipv6_and_mapped_sockets_in_one_dump(peer: lab.Peer, diag: SockDiag) -> None:
    cases: tuple[tuple[str, lab.Family], ...] = (("ESTABLISHED", 4), ("ESTABLISHED", 6), ("ESTABLISHED/v4-mapped", 6))
    with ExitStack() as stack:
        produced = [stack.enter_context(lab.produce(peer, *case)) for case in cases]
        found = {ss.row_ends(row): int(row["idiag_family"]) for row in diag.dump(1 << 1).table}
        af = {4: uapi.AF_INET, 6: uapi.AF_INET6}
        assert found == {(it.local, it.remote): af[it.family] for it in produced}
        assert not diag.dump(1 << 2).table.size


def test_drops_of_listeners_equal_those_of_ss(namespace: lab.Namespace, peer: lab.Peer, diag: SockDiag) -> None:
    with socket.create_server((lab.LOCAL[4], 0), backlog=1) as full, socket.create_server((lab.LOCAL[4], 0)):
        for _ in range(2):
            peer.open(full.getsockname()[1])
        for _ in range(3):
            peer.knock(full.getsockname()[1])
        dump = diag.listeners()
        drops = dict(zip(dump.table["idiag_cookie"].tolist(), dump.drops.tolist(), strict=True))
        assert drops == {line.cookie: line.drops for line in ss.lines(namespace) if line.state == "LISTEN"}
        assert sorted(drops.values()) == [0, 3]


def test_an_abandoned_dump_does_not_disturb_the_next(
    peer: lab.Peer, diag: SockDiag, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel continues an unread dump, and answers EBUSY to another one on the same socket."""

    def fail(*_: object) -> bool:
        raise decode_sockets.MessageError("made up")

    with socket.create_server((lab.LOCAL[4], 0), backlog=4096) as listener:
        peer.flood(listener.getsockname()[1], 1500)
        with monkeypatch.context() as patch, pytest.raises(decode_sockets.MessageError):
            patch.setattr(decode_sockets, "decode_sockets", fail)
            patch.setattr(sock_diag, "_BATCH", 1024)  # so that it is given up after the first datagram
            diag.dump()
        assert len(diag.dump(1 << 3).table) == 1500


# tcp_info -----------------------------------------------------------------------------------------

GROWING = {"last_data_sent", "last_ack_sent", "last_data_recv", "last_ack_recv"}
"""Milliseconds since an event: they advance while nothing happens."""


def getsockopt(kernel: socket.socket) -> dict[str, int]:
    return info_fields(kernel.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 512))


def row_of(diag: SockDiag, ends: ss.Ends) -> np.void:
    (row,) = (row for row in diag.dump().table if ss.row_ends(row) == ends)
    return cast(np.void, row)


CASES = [case for case in lab.CASES if case[0] != "CLOSED"]


@pytest.fixture(scope="module")
def sockets(peer: lab.Peer) -> Iterator[dict[tuple[str, lab.Family], tuple[lab.Produced, np.void]]]:
    """All cases of the lab side by side, with their rows."""
    with ExitStack() as stack, closing(SockDiag()) as diag:
        produced = {case: stack.enter_context(lab.produce(peer, *case)) for case in CASES}
        rows = {ss.row_ends(row): row for row in diag.dump().table}
        yield {case: (it, rows[it.local, it.remote]) for case, it in produced.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-IPv{case[1]}")
def test_tcp_info_equals_getsockopt(
    diag: SockDiag,
    sockets: dict[tuple[str, lab.Family], tuple[lab.Produced, np.void]],
    case: tuple[str, lab.Family],
) -> None:
    it, row = sockets[case]
    if it.kernel:
        check_info(diag, row, it.kernel)
    else:
        info = diag.tcp_info(row)
        small = case[0].startswith(("SYN_RCVD", "TIME_WAIT", "FIN_WAIT_2"))  # these have no tcp_info
        assert (info is None) == small


def check_info(diag: SockDiag, row: np.void, kernel: socket.socket) -> None:
    """Compare exactly, except fields that grow by themselves, which lie between two readings, and running timers."""

    def look() -> bool:
        before, info, after = getsockopt(kernel), diag.tcp_info(row), getsockopt(kernel)
        still = {name: value for name, value in before.items() if name not in GROWING}
        if info is None or still.items() > after.items():
            return False
        for name in GROWING:
            assert before[name] <= info[name] <= after[name]
        return info.items() >= still.items()

    lab.wait_until(look, "the same tcp_info from both")


def test_tcp_info_shows_what_was_done(peer: lab.Peer, diag: SockDiag) -> None:
    """The layout, checked with values that this test produces."""
    offer = lab.Offer(mss=1200, window_scale=5)
    with socket.create_server((lab.LOCAL[4], 0)) as listener:
        connection = peer.open(listener.getsockname()[1], offer=offer)
        kernel, _ = listener.accept()
        with kernel:
            connection.lose_every(4)
            kernel.sendall(b"x" * 12_000)
            connection.wait_for(lambda it: len(it.received) == 12_000, "all data")
            connection.send(b"y" * 700)
            info = diag.tcp_info(row_of(diag, (connection.local, connection.remote)))
            assert info
            assert info["bytes_acked"] == 12_000
            assert info["bytes_sent"] - info["bytes_retrans"] == 12_000
            assert info["bytes_received"] == 700
            assert info["total_retrans"] >= connection.lost > 0
            assert (info["snd_wscale"], info["snd_mss"], info["state"]) == (5, 1200, 1)
            assert info["rcv_wscale"] == offered_scale(peer, connection)
            assert 0 < info["min_rtt"] <= info["rtt"] < 5_000_000
            assert (info["unacked"], info["notsent_bytes"], info["snd_wnd"]) == (0, 0, 65535 >> 5 << 5)


def offered_scale(peer: lab.Peer, connection: lab.Connection) -> int:
    syn_ack = next(it.segment for it in peer.log(connection) if it.from_kernel and it.segment.flags & lab.Flag.SYN)
    assert syn_ack.options.window_scale is not None
    return syn_ack.options.window_scale


def test_a_shorter_tcp_info_has_fewer_fields() -> None:
    """Every length that older kernels may send: fields after the end are absent, and not 0."""
    rng = np.random.default_rng(3)
    payload = rng.bytes(uapi.TCP_INFO.itemsize + 8)  # a newer kernel's is longer
    full = info_fields(payload)
    assert full["snd_wscale"] | full["rcv_wscale"] << 4 == payload[6]
    assert full["delivery_rate_app_limited"] | full["fastopen_client_fail"] << 1 == payload[7] & 7
    before = 0
    for length in range(len(payload) + 1):
        info = info_fields(payload[:length])
        assert info.items() <= full.items()
        assert len(info) >= before
        before = len(info)
    assert "total_rto" not in info_fields(payload[:232])
    assert info == full


def test_the_layout_of_tcp_info_equals_pyroute2_s() -> None:
    at = 0
    fields: dict[str, Any] = dict(uapi.TCP_INFO.fields or {})
    names = {"tcpi_snd_wscale": "tcpi_wscale", "tcpi_delivery_rate_app_limited": "tcpi_flags"}
    for name, kind in pyroute2_diag.inet_diag_msg.tcp_info.fields:
        dtype = np.dtype({"B": "u1", "H": "u2", "I": "u4", "Q": "u8"}[kind])
        assert fields[names.get(name, name)][:2] == (dtype, at)
        at += dtype.itemsize


# Descriptors and namespaces -----------------------------------------------------------------------


def test_close_leaves_nothing_open(namespace: lab.Namespace) -> None:
    before = open_files()
    diag = SockDiag()
    diag.dump()
    diag.close()
    diag.close()
    with pytest.raises(SockDiagError):
        diag.dump()
    assert open_files() == before


def test_it_stays_in_the_namespace_where_it_was_opened(diag: SockDiag) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, lab.Namespace():
        with socket.create_server(("127.0.0.1", 0)) as other, closing(SockDiag()) as inner:
            theirs = inner.dump().table["idiag_inode"].tolist()
            ours = diag.dump().table["idiag_inode"].tolist()
            inodes = [Path(f"/proc/self/fd/{it.fileno()}").stat().st_ino for it in (listener, other)]
        assert theirs == inodes[1:]
        assert inodes[0] in ours
        assert inodes[1] not in ours


def test_a_dump_of_few_sockets_uses_small_tables(namespace: lab.Namespace) -> None:
    tables = ArrayPool(uapi.SOCKET)
    with socket.create_server(("127.0.0.1", 0)), closing(SockDiag(tables)) as diag:
        assert len(diag.listeners().table)
        diag.bound_only()
        assert len(tables._arrays) == 0
        assert len(diag.dump().table)
        assert len(tables._arrays) == 1
