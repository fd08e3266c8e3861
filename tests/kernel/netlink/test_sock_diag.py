"""SockDiag with a kernel that interrupts, drops, refuses, does not answer or sends invalid messages."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import NoReturn

import numpy as np
import pytest

from tcpwatch.kernel.netlink import decode_sockets, sock_diag, uapi
from tcpwatch.kernel.netlink.sock_diag import SockDiag, SockDiagError
from tests.support.kernel import netlink
from tests.support.kernel.fake_kernel import Answer, FakeKernel

Start = Callable[..., tuple[SockDiag, FakeKernel]]
LOST = OSError(errno.ENOBUFS, "No buffer space available")
SILENT = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    def starter(*answers: Answer) -> tuple[SockDiag, FakeKernel]:
        kernel = FakeKernel(*answers)
        kernel.install(monkeypatch)
        return SockDiag(), kernel

    return starter


def row(cookie: int, flags: int = 2, sequence: int = netlink.CURRENT) -> bytes:
    shutdown = (netlink.SHUTDOWN, b"\0")
    body = netlink.body(cookie=cookie)
    return netlink.message(netlink.GETSOCK, body, [shutdown], flags=flags, sequence=sequence)


def cookies(dump: sock_diag.Dump) -> list[int]:
    return [int(cookie) for cookie in dump.table["idiag_cookie"]]


CLEAN = [row(1) + row(2), row(3) + netlink.done()]
INTERRUPTED = [row(1), row(9, 2 | netlink.DUMP_INTR), netlink.done()]


def flags(dump: sock_diag.Dump) -> set[str]:
    return {name for name in ("interrupted", "answers_lost", "retried") if getattr(dump, name)}


@pytest.mark.parametrize(
    ("answers", "rows", "expected_flags", "sockets"),
    [
        ([CLEAN], [1, 2, 3], set(), 1),
        ([[netlink.done()]], [], set(), 1),
        ([INTERRUPTED, CLEAN], [1, 2, 3], {"retried"}, 1),
        ([INTERRUPTED, INTERRUPTED], [1, 9], {"interrupted", "retried"}, 1),
        ([[row(7), LOST], CLEAN], [1, 2, 3], {"retried"}, 2),
        ([[row(7), LOST], [LOST]], [], {"answers_lost", "retried"}, 3),
        ([INTERRUPTED, [row(8), LOST]], [], {"answers_lost", "retried"}, 2),
        ([[LOST], INTERRUPTED], [1, 9], {"interrupted", "retried"}, 2),
    ],
)
def test_an_incomplete_dump_is_repeated_once_and_reported(
    start: Start, answers: list[Answer], rows: list[int], expected_flags: set[str], sockets: int
) -> None:
    diag, kernel = start(*answers)
    dump = diag.dump()
    assert (cookies(dump), flags(dump)) == (rows, expected_flags)
    assert len(kernel.requests) == len(answers)
    assert (kernel.opened, kernel.open_now) == (sockets, 1)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOENT, errno.EBUSY])
def test_a_refusal_is_an_error_and_the_next_dump_a_new_one(start: Start, code: int) -> None:
    diag, kernel = start([netlink.error(code)], [row(5), netlink.error(code)], CLEAN)
    for _ in range(2):
        with pytest.raises(SockDiagError, match="refused the dump") as caught:
            diag.dump()
        assert caught.value.errno == code
    assert cookies(diag.dump()) == [1, 2, 3]
    assert kernel.open_now == 1


def test_silence_is_an_error(start: Start) -> None:
    diag, _ = start([row(1), SILENT], CLEAN)
    with pytest.raises(SockDiagError, match="no answer from sock_diag for 30 s during a dump") as caught:
        diag.dump()
    assert caught.value.errno == errno.ETIMEDOUT
    assert cookies(diag.dump()) == [1, 2, 3]


def test_the_real_socket_does_not_wait_for_ever() -> None:
    with sock_diag._open() as real:
        left = real.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
    assert int(np.frombuffer(left, np.int64)[0]) == 30


@pytest.mark.parametrize(
    "message",
    [b"\3\0\0\0" + bytes(12), b"\xff" * 64, row(1)[:-8], netlink.message(99, netlink.body()), netlink.message(18, b"")],
)
def test_an_invalid_message_is_an_error_and_the_next_dump_a_new_one(start: Start, message: bytes) -> None:
    diag, kernel = start([row(1) + message, row(2), netlink.done()], CLEAN)
    with pytest.raises(decode_sockets.MessageError):
        diag.dump()
    assert cookies(diag.dump()) == [1, 2, 3]
    assert kernel.open_now == 1


def test_stale_answers_are_skipped(start: Start) -> None:
    stale = [row(66, sequence=4), row(67, sequence=4) + netlink.done(sequence=4), netlink.error(1, sequence=4)]
    diag, _ = start([*stale, *CLEAN])
    dump = diag.dump()
    assert (cookies(dump), flags(dump)) == ([1, 2, 3], set())


def test_a_dump_of_many_datagrams(start: Start) -> None:
    """More than a batch, and more rows than the first table has room for."""
    numbers = np.arange(1, 30_001)
    rows = [row(int(number)) for number in numbers]
    datagrams = [b"".join(rows[at : at + 300]) for at in range(0, len(rows), 300)]
    assert sum(map(len, datagrams)) > 2 * sock_diag._BATCH
    diag, _ = start([*datagrams, netlink.done()])
    assert np.array_equal(np.sort(diag.dump().table["idiag_cookie"]), numbers)


def test_the_table_of_a_dump_is_not_changed_by_later_dumps(start: Start) -> None:
    answers = [[row(number), netlink.done()] for number in range(100, 110)]
    diag, _ = start(*answers)
    dumps = [diag.dump() for _ in answers]
    assert [cookies(dump) for dump in dumps] == [[number] for number in range(100, 110)]


def test_given_rows_come_first(start: Start) -> None:
    diag, _ = start(INTERRUPTED, CLEAN)
    first = np.zeros(2, uapi.SOCKET)
    first["idiag_cookie"] = 50, 51
    assert cookies(diag.dump(first=first)) == [50, 51, 1, 2, 3]


# Questions about one socket -----------------------------------------------------------------------

INFO = netlink.message(netlink.BY_FAMILY, netlink.body(), [(netlink.INFO, bytes([1]) + bytes(103))])
STALE = netlink.message(netlink.BY_FAMILY, netlink.body(), [(netlink.INFO, bytes([7]) * 104)], sequence=4)
SOCKET = np.zeros(1, uapi.SOCKET)[0]


def test_tcp_info_is_that_of_the_requested_socket(start: Start) -> None:
    diag, _ = start([STALE, netlink.error(errno.ENOENT, sequence=4), INFO])
    info = diag.tcp_info(SOCKET)
    assert info
    assert info["state"] == 1


@pytest.mark.parametrize(
    "answer",
    [netlink.error(errno.ENOENT), netlink.error(errno.ESTALE), netlink.message(netlink.BY_FAMILY, netlink.body())],
)
def test_a_socket_that_does_not_exist_any_more_has_no_tcp_info(start: Start, answer: bytes) -> None:
    diag, _ = start([answer])
    assert diag.tcp_info(SOCKET) is None


@pytest.mark.parametrize(("failure", "code"), [(LOST, errno.ENOBUFS), (SILENT, errno.ETIMEDOUT)])
def test_an_answer_about_one_socket_may_be_lost(start: Start, failure: OSError, code: int) -> None:
    diag, _ = start([failure])
    with pytest.raises(SockDiagError) as caught:
        diag.tcp_info(SOCKET)
    assert caught.value.errno == code


@pytest.mark.parametrize("message", [b"", b"\xff" * 40, INFO + INFO, INFO[:40]])
def test_an_invalid_answer_about_one_socket_is_an_error(start: Start, message: bytes) -> None:
    diag, _ = start([message])
    with pytest.raises(decode_sockets.MessageError):
        diag.tcp_info(SOCKET)


# Kernels without sock_diag ------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EPERM])
def test_a_kernel_without_sock_diag_says_so(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object) -> NoReturn:
        raise OSError(code, "no")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(SockDiagError, match="cannot be used here") as caught:
        SockDiag()
    assert caught.value.errno == code


def test_a_socket_that_could_not_be_opened_again_is_opened_later(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as for want of descriptors: one failure must not be the last answer."""
    diag, kernel = start([row(7), SILENT], CLEAN)

    def refuse() -> NoReturn:
        raise SockDiagError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch, pytest.raises(SockDiagError, match="Too many open files"):
        patch.setattr(sock_diag, "_open", refuse)
        diag.dump()
    assert kernel.open_now == 0
    assert cookies(diag.dump()) == [1, 2, 3]
    diag.close()
    with pytest.raises(AssertionError):
        diag.dump()
    assert kernel.open_now == 0, "closed for good"
