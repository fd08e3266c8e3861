"""SockDiag: read the kernel's TCP sockets over NETLINK_SOCK_DIAG into a socket table.

Sources: sock_diag(7), net/ipv4/{inet_diag,tcp_diag}.c. A request is one struct, and the socket is the standard
library's. pyroute2 encodes the same bytes (tests/real/kernel/test_sock_diag.py compares them), but takes 0.12 s to
import, of the 0.8 s until the first rows have to be on the screen.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.array_pool import ArrayPool, GrowingTable
from tcpwatch.kernel.netlink import decode_sockets, uapi
from tcpwatch.kernel.netlink.tcp_info import REQUEST_BITS, TcpInfoCollector, TcpInfoDump, info_fields

_DATAGRAM = 64 * 1024
"""More than one datagram of a dump has (32 KiB, netlink_dump in net/netlink/af_netlink.c)."""
_BATCH = 1024 * 1024
"""Bytes received before they are decoded: few enough to stay in the cache, enough to make numpy's calls cheap."""
_SILENCE_S = 30
"""A dump without an answer for this time has failed."""

_LEAST_ROWS = 16 * 1024
_ENDS = (uapi.NLMSG_DONE, uapi.NLMSG_ERROR)
_DONE_SIZE = uapi.NLMSG_HDRLEN + 4
"""NLMSG_DONE has an errno (netlink_dump_done in net/netlink/af_netlink.c)."""
_NO_DROPS = np.empty(0, np.uint32)


class SockDiagError(OSError):
    """Raised when sock_diag cannot be used or refuses a request; errno and text are the reason."""


@dataclass(frozen=True, slots=True, eq=False)
class Dump:
    """The result of one dump."""

    table: NDArray[np.void]
    """uapi.SOCKET, one row per socket, in the kernel's order."""
    drops: NDArray[np.uint32]
    """sk_drops of each row of a listener dump; empty for other dumps, which do not request it."""
    interrupted: bool
    """NLM_F_DUMP_INTR was set, also in the second try."""
    answers_lost: bool
    """The kernel dropped answers (ENOBUFS), also in the second try."""
    retried: bool
    infos: TcpInfoDump | None
    """tcp_info of all sockets that have it, including listeners; None if it was not requested."""


class SockDiag:
    """A NETLINK_SOCK_DIAG socket. It stays in the network namespace in which it was opened."""

    def __init__(self, tables: ArrayPool | None = None, infos: ArrayPool | None = None) -> None:
        """Open the socket. Raises SockDiagError if the kernel has no sock_diag or forbids it (seccomp, gVisor).

        `tables` is a pool of uapi.SOCKET for the dumps, `infos` one of uapi.FLOW_INFO.
        """
        self._socket = _open()
        self._is_closed = False
        # Random, so that it does not occur in the content of every message: headers are recognised by it.
        self._sequence = int.from_bytes(os.urandom(4))
        self._buffer = np.zeros((_BATCH + _DATAGRAM) >> 2, np.uint32)
        self._bytes = self._buffer.data.cast("B")
        self._tables = tables or ArrayPool(uapi.SOCKET)
        self._small_tables = ArrayPool(uapi.SOCKET)
        """For dumps of few sockets, so that they do not occupy a large table that a sample needs."""
        self._infos = infos or ArrayPool(uapi.FLOW_INFO)
        self._expected, self._expected_infos = _LEAST_ROWS, _LEAST_ROWS

    def dump(self, states: int = uapi.TCPF_ALL, first: NDArray[np.void] | None = None, infos: bool = False) -> Dump:
        """Dump all sockets in `states` (1 << state number), IPv4 and IPv6 in one walk of the kernel's hash table.

        Rows of `first` (uapi.SOCKET) come before them in the table. With `infos` the dump includes tcp_info: 0.35-0.45
        µs more for each full socket, half of the time without it (Linux 6.18); single requests would take 3-5 µs.
        An interrupted or overrun dump is repeated once; the result of the second try is returned in any case.
        Raises SockDiagError where the kernel refuses, MessageError where it answers something else.
        """
        dump = self._dump(states, first=first, infos=infos)
        if states == uapi.TCPF_ALL:
            self._expected = _with_room(len(dump.table))
        if dump.infos:
            self._expected_infos = _with_room(len(dump.infos.table))
        return dump

    def listeners(self) -> Dump:
        """Dump listeners with their drops (SKMEMINFO). The hash table of connections is not walked: 0.1 ms."""
        return self._dump(uapi.TCPF_LISTEN, drops=True)

    def bound_only(self) -> Dump:
        """Dump sockets that are bound to a port and neither listen nor are connected; empty before Linux 6.8.

        The kernel walks all bound ports, which takes a third of the time of a whole dump (6.18).
        """
        return self._dump(uapi.TCPF_BOUND_INACTIVE)

    def tcp_info(self, row: np.void) -> dict[str, int] | None:
        """Return tcp_info of the socket in a uapi.SOCKET row: field name without `tcpi_` → value.

        It has the fields that this kernel sends. None if the socket does not exist any more or has no tcp_info
        (SYN_RECV, TIME_WAIT).
        """
        request = np.zeros(1, uapi.INET_DIAG_REQ_V2)
        request["sdiag_family"] = row["idiag_family"]
        request["sdiag_protocol"] = uapi.IPPROTO_TCP
        request["idiag_ext"] = 1 << (uapi.INET_DIAG_INFO - 1)
        request["idiag_states"] = uapi.TCPF_ALL
        for name, *_ in uapi.SOCKID:
            request[name] = row[name]
        self._send(uapi.SOCK_DIAG_BY_FAMILY, 0, request)
        words = self._answer()
        if decode_sockets.type_and_flags(words, 0)[0] != uapi.SOCK_DIAG_BY_FAMILY:
            return None  # NLMSG_ERROR: ENOENT or ESTALE, the socket does not exist any more
        layout = decode_sockets.attribute_spans(words, 0)
        place, length = layout.get(uapi.INET_DIAG_INFO, (0, 0))
        return info_fields(words[place + 1 :].tobytes()[:length]) if length else None

    def close(self) -> None:
        """Close the socket; closing twice is harmless."""
        self._is_closed = True
        self._socket.close()

    def _dump(
        self, states: int, drops: bool = False, first: NDArray[np.void] | None = None, infos: bool = False
    ) -> Dump:
        try:
            dump = self._dump_once(states, drops, first, infos)
            if not (dump.interrupted or dump.answers_lost):
                return dump
            return replace(self._dump_once(states, drops, first, infos), retried=True)
        except BaseException:
            if not self._is_closed:  # the kernel refuses another dump until the rest was read: EBUSY
                self._reopen()
            raise

    def _dump_once(self, states: int, drops: bool, first: NDArray[np.void] | None, infos: bool) -> Dump:
        request = np.zeros(1, uapi.INET_DIAG_REQ)
        request["idiag_states"] = states
        request["idiag_ext"] = drops << (uapi.INET_DIAG_SKMEMINFO - 1) | infos * REQUEST_BITS
        self._send(uapi.TCPDIAG_GETSOCK, uapi.NLM_F_DUMP, request)
        whole = states == uapi.TCPF_ALL
        rows = GrowingTable(self._tables, self._expected) if whole else GrowingTable(self._small_tables, _LEAST_ROWS)
        if first is not None:
            rows.reserve(len(first))[:] = first
        dropped, collector = [], TcpInfoCollector(self._infos, self._expected_infos) if infos else None
        interrupted, lost, end = False, False, None
        while end is None and not lost:
            try:
                words, offsets, end = self._receive_batch()
            except _Overrun:
                lost = True
                self._reopen()
            else:
                dropped.append(np.empty(len(offsets) if drops else 0, np.uint32))
                table = rows.reserve(len(offsets))
                if collector:
                    collector.now = time.monotonic()
                interrupted |= decode_sockets.decode_sockets(
                    words, offsets, table, dropped[-1] if drops else None, collector
                )
        if end is not None:
            interrupted |= bool(decode_sockets.type_and_flags(words, end)[1] & uapi.NLM_F_DUMP_INTR)
        return Dump(
            rows.written_rows(),
            np.concatenate(dropped or [_NO_DROPS]),
            interrupted,
            lost,
            retried=False,
            infos=collector.all() if collector else None,
        )

    def _receive_batch(self) -> tuple[decode_sockets.Words, decode_sockets.Offsets, int | None]:
        """Receive until the buffer is full or the dump ends; return words, offsets of sockets and of the end."""
        end, seems_last = 0, False
        while end < _BATCH and not seems_last:
            begin, end = end, end + ((self._receive(end) + 3) & ~3)
            seems_last = self._seems_last(begin >> 2, end >> 2)
        words = self._buffer[: end >> 2]
        offsets = decode_sockets.message_offsets(words, 0, len(words), self._sequence)
        last = seems_last and len(offsets) > 0 and self._is_last(int(offsets[-1]))
        # Answers to an earlier dump that was abandoned are skipped.
        mine = offsets[words[offsets + 2] == self._sequence]
        return words, mine[:-1] if last else mine, int(mine[-1]) if last else None

    def _seems_last(self, begin: int, end: int) -> bool:
        """Return whether a datagram may end the dump or may not belong to it.

        This cheap test avoids parsing each datagram separately; if it succeeds, the messages are parsed.
        """
        words, tail = self._buffer, end - (_DONE_SIZE >> 2)
        if decode_sockets.type_and_flags(words, begin)[0] in _ENDS or int(words[begin + 2]) != self._sequence:
            return True
        return tail > begin and int(words[tail]) == _DONE_SIZE and int(words[tail + 2]) == self._sequence

    def _answer(self) -> decode_sockets.Words:
        """Return the answer to the last request for one socket."""
        while True:
            try:
                words = self._buffer[: self._receive(0) >> 2]
            except _Overrun as error:
                raise SockDiagError(errno.ENOBUFS, "sock_diag dropped its answer") from error
            if decode_sockets.message_offsets(words, 0, len(words), self._sequence).size != 1:
                raise decode_sockets.MessageError("not one answer to a request for one socket")
            if int(words[2]) == self._sequence:
                return words

    def _is_last(self, at: int) -> bool:
        """Return whether the message at `at` ends this dump. Raises SockDiagError if it ends with an error."""
        if decode_sockets.type_and_flags(self._buffer, at)[0] not in _ENDS:
            return False
        if int(self._buffer[at + 2]) != self._sequence:
            return False  # the end of an earlier dump that was abandoned
        code = int(self._buffer[at + 4 : at + 5].view(np.int32)[0])
        if code < 0:
            raise SockDiagError(-code, f"sock_diag refused the dump: {os.strerror(-code)}")
        return True

    def _send(self, kind: int, flags: int, request: NDArray[np.void]) -> None:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        header = np.zeros(1, uapi.NLMSGHDR)
        header["nlmsg_len"] = uapi.NLMSG_HDRLEN + request.itemsize
        header["nlmsg_type"] = kind
        header["nlmsg_flags"] = uapi.NLM_F_REQUEST | flags
        header["nlmsg_seq"] = self._sequence
        if self._socket.fileno() < 0 and not self._is_closed:  # the last _reopen() failed
            self._socket = _open()
        try:
            self._socket.sendto(header.tobytes() + request.tobytes(), (0, 0))
        except OSError as error:
            raise unusable(error) from error

    def _receive(self, at: int) -> int:
        """Receive one datagram into the buffer at byte `at`; return its length."""
        try:
            return self._socket.recv_into(self._bytes[at : at + _DATAGRAM])
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise _Overrun from error
            if error.errno == errno.EAGAIN:
                text = f"no answer from sock_diag for {_SILENCE_S} s during a dump"
                raise SockDiagError(errno.ETIMEDOUT, text) from error
            raise unusable(error) from error

    def _reopen(self) -> None:
        """Replace the socket, to discard the rest of an unfinished dump."""
        self._socket.close()
        self._socket = _open()


class _Overrun(Exception):
    """ENOBUFS: the kernel dropped messages for this socket."""


def _with_room(size: int) -> int:
    return max(_LEAST_ROWS, size + size // 64)


def _open() -> socket.socket:
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, uapi.NETLINK_SOCK_DIAG)
    except OSError as error:
        raise unusable(error) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _SILENCE_S, 0))
        sock.connect((0, 0))  # the kernel then refuses answers from other processes (netlink_getsockbyportid)
    except OSError as error:
        sock.close()
        raise unusable(error) from error
    return sock


def unusable(error: OSError, problem: str = "sock_diag cannot be used here") -> SockDiagError:
    """Return an error whose text is the problem and the reason."""
    code = error.errno or errno.EIO
    return SockDiagError(code, f"{problem}: {os.strerror(code)}")
