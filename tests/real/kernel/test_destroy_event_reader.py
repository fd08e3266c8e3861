"""DestroyEventReader: real sockets that are freed, and bytes that no kernel would send."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.kernel.netlink import destroy_event_reader, uapi
from tcpwatch.kernel.netlink.destroy_event_reader import DestroyEventReader
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.kernel.netlink.sock_diag import SockDiagError
from tests import lab
from tests.support.kernel import netlink

_SO_COOKIE = 57
FIN = 1
"""tcpi_bytes_received counts a FIN as a byte (tcp_fin in net/ipv4/tcp_input.c), tcpi_bytes_sent does not."""
HOSTS: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


@pytest.fixture
def namespace() -> Iterator[lab.Namespace]:
    """A new reader for each test: the kernel reports sockets some time after they were closed."""
    lab.require(lab.namespaces, lab.ipv6)
    with lab.Namespace() as it:
        yield it


@pytest.fixture
def events(namespace: lab.Namespace) -> Iterator[DestroyEventReader]:
    with closing(DestroyEventReader()) as it:
        yield it


def cookie(sock: socket.socket) -> int:
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), sys.byteorder)


def heard(events: DestroyEventReader, count: int) -> DestroyedSockets:
    """Return the next `count` events; lost ones count."""
    parts: list[DestroyedSockets] = []

    def enough() -> bool:
        events.read()
        parts.append(events.take())
        return sum(len(part.table) + part.lost for part in parts) >= count

    lab.wait_until(enough, f"{count} destroyed sockets")
    table, infos, when = (
        np.concatenate([getattr(it, name) for it in parts]) for name in ("table", "infos", "received_monotonic_s")
    )
    lost, forged = sum(part.lost for part in parts), parts[-1].forged
    return DestroyedSockets(table, infos, when, parts[-1].info_bytes, lost, forged=forged)


def free(count: int) -> list[int]:
    """Make and free sockets that are only bound; return their cookies."""
    cookies = []
    for _ in range(count):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            cookies.append(cookie(sock))
    return cookies


@contextmanager
def on_one_processor() -> Iterator[None]:
    """Run on one processor: the kernel has a queue of events per processor, and their order is not defined."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def drops(events: DestroyEventReader) -> int:
    memory = events._socket.getsockopt(socket.SOL_SOCKET, uapi.SO_MEMINFO, 36)
    return int.from_bytes(memory[32:], sys.byteorder)


def until_dropped(events: DestroyEventReader, count: int) -> None:
    lab.wait_until(lambda: drops(events) >= count, "that most are dropped")


# The real kernel ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", HOSTS, ids=("IPv4", "IPv6"))
def test_every_socket_of_a_burst_is_reported_with_its_bytes(events: DestroyEventReader, family: int) -> None:
    expected = {}
    begin = time.monotonic()
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((HOSTS[family], 0), family=family, backlog=64))
        for number in range(60):
            client = stack.enter_context(socket.create_connection(listener.getsockname()[:2]))
            server = stack.enter_context(listener.accept()[0])
            client.sendall(b"x" * number)
            server.sendall(b"y" * (1000 + number))
            assert len(server.recv(number, socket.MSG_WAITALL)) == number
            assert len(client.recv(1000 + number, socket.MSG_WAITALL)) == 1000 + number
            for sock in (server, client):
                sock.shutdown(socket.SHUT_WR)
            assert server.recv(1) == client.recv(1) == b""
            ends = client.getsockname()[1], listener.getsockname()[1]
            expected[cookie(client)] = (ends, number, 1000 + number + FIN)
            expected[cookie(server)] = (ends[::-1], 1000 + number, number + FIN)
        expected[cookie(listener)] = ((listener.getsockname()[1], 0), 0, 0)
    taken = heard(events, len(expected))
    assert taken.lost == 0
    found = {}
    for row, info in zip(taken.table, taken.infos, strict=True):
        ends = int(row["idiag_sport"]), int(row["idiag_dport"])
        found[int(row["idiag_cookie"])] = (ends, int(info["tcpi_bytes_sent"]), int(info["tcpi_bytes_received"]))
        assert row["idiag_family"] == family
    assert found == expected
    assert begin <= taken.received_monotonic_s.min() <= taken.received_monotonic_s.max() <= time.monotonic()
    assert taken.info_bytes >= 200
    assert not taken.table["idiag_inode"].any()


def test_several_batches_keep_the_kernel_s_order(events: DestroyEventReader) -> None:
    with on_one_processor():
        cookies = free(destroy_event_reader._BATCH + 300)
    taken = heard(events, len(cookies))
    assert taken.lost == 0
    assert taken.table["idiag_cookie"].tolist() == cookies
    assert (np.diff(taken.received_monotonic_s) >= 0).all()


def test_events_that_do_not_fit_are_counted_exactly(namespace: lab.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destroy_event_reader, "BUFFER", 16 * 1024)
    with closing(DestroyEventReader()) as events:
        dropped = 0
        for _ in range(3):
            cookies = free(400)
            until_dropped(events, dropped + 350)
            taken = heard(events, len(cookies))
            dropped += taken.lost
            assert drops(events) == dropped
            assert len(taken.table) + taken.lost == len(cookies)
            assert set(taken.table["idiag_cookie"].tolist()) < set(cookies)
        cookies = free(5)
        taken = heard(events, len(cookies))
        assert (taken.table["idiag_cookie"].tolist(), taken.lost) == (cookies, 0)


def test_the_buffer_is_as_large_as_allowed(events: DestroyEventReader) -> None:
    with socket.socket() as ordinary:  # an ordinary user may not go beyond rmem_max; net/core/sock.c doubles it
        ordinary.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, destroy_event_reader.BUFFER)
        least = ordinary.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert events.capacity in (least, 2 * destroy_event_reader.BUFFER)


def test_a_user_without_privilege_gets_the_largest_allowed_buffer(
    namespace: lab.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uapi, "SO_RCVBUFFORCE", 0x7FFF)  # ENOPROTOOPT, where a user without privilege gets EPERM
    with closing(DestroyEventReader()) as events:
        assert 0 < events.capacity <= 2 * destroy_event_reader.BUFFER
        assert heard(events, len(free(3))).lost == 0


def test_it_reports_only_its_own_namespace(events: DestroyEventReader) -> None:
    with lab.Namespace(), closing(DestroyEventReader()) as inner:
        theirs = free(2)
        assert heard(inner, 2).table["idiag_cookie"].tolist() == theirs
    ours = free(2)
    assert heard(events, 2).table["idiag_cookie"].tolist() == ours


def test_close_leaves_nothing_behind(namespace: lab.Namespace) -> None:
    folder = Path("/proc/self/fd")
    before = len(list(folder.iterdir()))
    events = DestroyEventReader()
    free(1)
    events.close()
    events.close()
    assert len(list(folder.iterdir())) == before


def test_without_a_reader_the_oldest_events_are_dropped(
    namespace: lab.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destroy_event_reader, "_KEPT", 10)
    with closing(DestroyEventReader()) as events:
        cookies = []
        for rounds in range(1, 5):
            cookies += free(4)
            until_known(events, 4 * rounds)
        taken = events.take()
        assert 0 < len(taken.table) <= 10
        assert taken.table["idiag_cookie"].tolist() == cookies[len(cookies) - len(taken.table) :]
        assert len(taken.table) + taken.lost == len(cookies)


def until_known(events: DestroyEventReader, count: int) -> None:
    def known() -> bool:
        if events.read():
            events._decode()
        return events._backlog._rows + events._backlog._dropped == count

    lab.wait_until(known, "all of them, those that made room counted in")


# The kernel as a function -------------------------------------------------------------------------


class FakeSocket:
    """Returns datagrams, raises errors, then EAGAIN."""

    def __init__(self, *answers: bytes | OSError, dropped: int = 0) -> None:
        self.answers = list(answers)
        self.dropped = dropped
        self.closed = False

    def recvfrom_into(self, place: memoryview) -> tuple[int, tuple[int, int]]:
        answer = self.answers.pop(0) if self.answers else BlockingIOError(errno.EAGAIN, "")
        if isinstance(answer, OSError):
            raise answer
        cut = answer[: len(place)]
        place[: len(cut)] = cut
        return len(cut), (0, 1)

    def getsockopt(self, level: int, option: int, size: int = 0) -> int | bytes:
        assert level == socket.SOL_SOCKET
        if option == socket.SO_RCVBUF:
            return 4096
        if self.dropped < 0:
            raise OSError(errno.ENOPROTOOPT, "")
        return bytes(32) + struct.pack("=I", self.dropped)

    def close(self) -> None:
        self.closed = True


def listening(sock: FakeSocket) -> DestroyEventReader:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(destroy_event_reader, "_open", lambda: sock)
        return DestroyEventReader()


def drained(sock: FakeSocket) -> DestroyedSockets:
    count = len(sock.answers)
    events = listening(sock)
    assert events.read() == count
    return events.take()


def event(number: int, info: bytes | None, *more: netlink.Attribute) -> bytes:
    attributes = [*more, *([(netlink.INFO, info)] if info is not None else [])]
    return netlink.message(netlink.BY_FAMILY, netlink.body(cookie=number, state=7), attributes, sequence=0)


def test_messages_of_many_layouts_stay_in_order() -> None:
    infos = [bytes([number]) * size for number, size in ((1, 280), (2, 280), (3, 232), (4, 280), (5, 300), (6, 232))]
    other: list[netlink.Attribute] = [(netlink.SHUTDOWN, b"\3")]
    datagrams = [event(at, info, *(other if at == 3 else [])) for at, info in enumerate(infos)]
    events = listening(FakeSocket(*datagrams, event(6, None)))
    assert events.read() == 7
    taken = events.take()
    assert taken.table["idiag_cookie"].tolist() == list(range(7))
    assert taken.table["shutdown"].tolist() == [0, 0, 0, 3, 0, 0, 0]
    assert taken.info_bytes == 232
    whole = uapi.TCP_INFO.itemsize
    for info, row in zip([*infos, b""], taken.infos, strict=True):
        assert row.tobytes()[:232] == info[:232].ljust(232, b"\0")
        assert row.tobytes()[232:] in (bytes(whole - 232), info[232:whole])
    assert not taken.table.flags.writeable
    assert not taken.infos.flags.writeable


def test_an_overrun_is_counted_once() -> None:
    sock = FakeSocket(event(1, b""), OSError(errno.ENOBUFS, ""), event(2, b""))
    events = listening(sock)
    sock.dropped = 5
    assert events.read() == 2
    assert events.take().lost == 5
    sock.dropped = 7
    assert [events.take().lost, events.take().lost] == [2, 0]


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        event(1, bytes(1000)),  # larger than its place
        event(1, bytes(280)) + event(2, bytes(280)),  # two in one
        event(1, bytes(280))[:-4],
        netlink.error(1, sequence=0),
        netlink.message(netlink.BY_FAMILY, netlink.body()[:-8], sequence=0),
        netlink.message(netlink.BY_FAMILY, netlink.body() + b"\xff\xff\2\0", sequence=0),
    ],
)
def test_an_invalid_datagram_is_skipped_and_counted(datagram: bytes) -> None:
    good = [event(number, bytes([number]) * 280) for number in (1, 2)]
    taken = drained(FakeSocket(datagram, good[0], datagram, datagram, good[1], datagram))
    assert taken.table["idiag_cookie"].tolist() == [1, 2]
    assert taken.infos["tcpi_state"].tolist() == [1, 2]
    assert (len(taken.infos), len(taken.received_monotonic_s), taken.lost, taken.forged) == (2, 2, 4, 0)


@given(st.lists(st.binary(max_size=1100), min_size=1, max_size=5))
def test_any_bytes_are_rows_or_lost(datagrams: list[bytes]) -> None:
    shaped = [struct.pack("=IH", min(len(it) + 6, 1024), netlink.BY_FAMILY) + it for it in datagrams]
    for answers in (datagrams, shaped):
        taken = drained(FakeSocket(*answers))
        assert len(taken.table) + taken.lost == len(answers)


def test_datagrams_of_other_senders_are_ignored_and_counted(namespace: lab.Namespace) -> None:
    """Root of the namespace may send to the groups: well-formed events of our sockets, and any bytes."""
    with (
        closing(DestroyEventReader()) as events,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, uapi.NETLINK_SOCK_DIAG) as forger,
    ):
        datagrams = [event(cookie(listener), bytes(280)), b"x" * 20, bytes(4000), netlink.error(1, sequence=0)]
        for group in (uapi.SKNLGRP_INET_TCP_DESTROY, uapi.SKNLGRP_INET6_TCP_DESTROY):
            for datagram in datagrams:
                forger.sendto(datagram, (0, 1 << (group - 1)))
        cookies = free(2)
        taken = heard(events, len(cookies))
        assert (taken.table["idiag_cookie"].tolist(), taken.lost, taken.forged) == (cookies, 0, 2 * len(datagrams))
        with pytest.raises(ConnectionRefusedError):
            forger.sendto(datagrams[0], (events._socket.getsockname()[0], 0))
        assert events.take().forged == 2 * len(datagrams), "the count is that since the start"


def test_forged_datagrams_do_not_keep_it_reading_for_ever() -> None:
    class Forger(FakeSocket):
        def recvfrom_into(self, place: memoryview) -> tuple[int, tuple[int, int]]:
            return 1, (4711, 1)

    events = listening(Forger())
    assert events.read() == destroy_event_reader._MOST
    assert (len((taken := events.take()).table), taken.forged) == (0, destroy_event_reader._MOST)


def test_a_reopened_socket_goes_on_and_says_that_events_are_missing(events: DestroyEventReader) -> None:
    before = free(1)
    until_known(events, 1)
    os.close(events._socket.detach())
    with pytest.raises(SockDiagError):
        events.read()
    with pytest.raises(SockDiagError):
        events.take()
    events.reopen()
    after = free(2)
    until_known(events, 3)
    taken = events.take()
    assert (taken.table["idiag_cookie"].tolist(), taken.lost, taken.interrupted) == (before + after, 0, True)
    assert not events.take().interrupted


def test_a_failing_socket_is_an_error() -> None:
    with pytest.raises(SockDiagError, match="destroy events"):
        listening(FakeSocket(OSError(errno.EBADF, "Bad file descriptor"))).read()


def test_a_kernel_that_cannot_count_lost_events_is_not_used() -> None:
    sock = FakeSocket(dropped=-1)
    with pytest.raises(SockDiagError, match="not available"):
        listening(sock)
    assert sock.closed


def test_a_kernel_without_sock_diag_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.EPROTONOSUPPORT, "")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(SockDiagError, match="not available"):
        DestroyEventReader()
