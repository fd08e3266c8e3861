"""The kernel as a function: what sock_diag answers to each request is written down beforehand."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import pytest

from tcpwatch.kernel.netlink import sock_diag
from tests.support.kernel import netlink

Answer = Sequence[bytes | OSError]
"""Datagrams, and failures of recv between them."""


class FakeKernel:
    """Gives each request the next answer; opening a new socket throws away what was not read of an old one."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[bytes] = []
        self.opened = 0
        self.open_now = 0
        self._answers = list(answers)
        self._waiting: list[bytes | OSError] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sock_diag, "_open", self.open)

    def open(self) -> FakeSocket:
        self._waiting = []
        self.opened += 1
        self.open_now += 1
        return FakeSocket(self)

    def ask(self, request: bytes) -> None:
        self.requests.append(request)
        self._waiting += self._numbered(self._answers.pop(0), request)

    @staticmethod
    def _numbered(answer: Answer, request: bytes) -> Iterator[bytes | OSError]:
        """The answer with the request's sequence number."""
        for datagram in answer:
            if isinstance(datagram, OSError):
                yield datagram
            else:
                yield datagram.replace(struct.pack("=I", netlink.CURRENT), request[8:12])

    def tell(self) -> bytes:
        assert self._waiting, "the real kernel would be silent now"
        datagram = self._waiting.pop(0)
        if isinstance(datagram, OSError):
            raise datagram
        return datagram


class FakeSocket:
    """The part of a socket that SockDiag uses."""

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel
        self._open = True

    def sendto(self, data: bytes, address: tuple[int, int]) -> int:
        assert self._open
        assert address == (0, 0), "the kernel is port 0, group 0"
        self._kernel.ask(data)
        return len(data)

    def recv_into(self, buffer: memoryview) -> int:
        assert self._open
        datagram = self._kernel.tell()
        assert len(datagram) <= len(buffer), "the real kernel would cut it off"
        buffer[: len(datagram)] = datagram
        return len(datagram)

    def fileno(self) -> int:
        return 3 if self._open else -1

    def close(self) -> None:
        self._kernel.open_now -= self._open
        self._open = False
