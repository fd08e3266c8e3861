"""DestroyEventReader: every TCP socket that the kernel frees, from NETLINK_SOCK_DIAG's multicast; needs no privilege.

Sources: sock_diag_broadcast_destroy_work in net/core/sock_diag.c, inet_diag_handler_get_info in net/ipv4/inet_diag.c,
netlink_overrun and netlink_broadcast_deliver in net/netlink/af_netlink.c. Each event is a datagram with one message,
of 380 bytes on Linux 6.18. Each costs one recvfrom_into() in Python; the messages are decoded many at once.

Whoever is root in the user namespace that owns the network namespace may send to the same multicast groups: datagrams
whose sender is not the kernel are counted and ignored.
"""

from __future__ import annotations

import errno
import socket
import time

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.backlog import Backlog
from tcpwatch.arrays.opaque_rows import make_read_only, opaque
from tcpwatch.config.memory import BUDGET
from tcpwatch.kernel.netlink import decode_sockets, uapi
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.kernel.netlink.sock_diag import SockDiagError, unusable

BUFFER = 16 * 1024 * 1024
"""Requested size in bytes; the kernel allows twice as many for its overhead (sock_setsockopt)."""
TRUESIZE = 1300
"""Approximate size of one event in that buffer."""
_KEPT = BUDGET.destroy
_PLACE = 1024
"""Bytes reserved for one datagram."""
_KERNEL = 0
"""nl_pid of a datagram that the kernel sent; no other socket can have it (netlink_autobind)."""
_BATCH = 1024
_MOST = 100 * _BATCH
"""Largest number of events per read(), so that it ends even if events arrive as fast as they are read."""


_NO_COOKIES = np.empty(0, np.uint64)


class DestroyEventReader:
    """A netlink socket for destroy events. It stays in the network namespace of the thread that creates it."""

    def __init__(self) -> None:
        """Subscribe to all events from now on. Raises SockDiagError."""
        self._socket = _open()
        self.capacity = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        """Size of the kernel's queue in bytes; each event takes about TRUESIZE."""
        self._words = np.zeros(_BATCH * _PLACE >> 2, np.uint32)
        data = self._words.data.cast("B")
        self._places = [data[at : at + _PLACE] for at in range(0, len(data), _PLACE)]
        self._sizes: list[int] = []
        """Sizes of the datagrams in the first places that have not been decoded."""
        self._arrivals: list[tuple[int, float]] = []
        """(number of datagrams, time of arrival)"""
        self._info_bytes = uapi.TCP_INFO.itemsize
        self._dropped = self._undecoded = self._forged = 0
        self._interrupted = False
        self._check_count()
        self._backlog = Backlog(_KEPT, (np.empty(0, uapi.SOCKET), np.empty(0, uapi.TCP_INFO), np.empty(0)))

    def fileno(self) -> int:
        """Return the descriptor; it is readable when there are events."""
        return self._socket.fileno()

    def read(self) -> int:
        """Read waiting events, at most 100,000, into the backlog; return how many they were.

        Forged ones are included. Raises SockDiagError if the socket fails.
        """
        done = 0
        while done < _MOST:
            free, before = _BATCH - len(self._sizes), len(self._sizes)
            got = self._receive(free)
            done += got
            if len(self._sizes) > before:
                self._arrivals.append((len(self._sizes) - before, time.monotonic()))
            if got < free:
                break
            self._decode()
        return done

    def take(self) -> DestroyedSockets:
        """Return the events read since the last call, and how many were lost. Raises SockDiagError."""
        self._decode()
        try:
            lost = self._newly_dropped()
        except OSError as error:
            raise _unusable(error) from error
        (table, infos, when), dropped = self._backlog.take()
        make_read_only(table, infos, when)
        lost, self._undecoded = lost + dropped + self._undecoded, 0
        interrupted, self._interrupted = self._interrupted, False
        return DestroyedSockets(table, infos, when, self._info_bytes, lost, interrupted, self._forged)

    def waiting(self) -> NDArray[np.uint64]:
        """Return the cookies of the events that the next take() returns, ascending."""
        self._decode()
        return np.sort(np.concatenate([chunk[0]["idiag_cookie"] for chunk in self._backlog.chunks] or [_NO_COOKIES]))

    def reopen(self) -> None:
        """Replace a socket that failed; the next take() says that events are missing. Raises SockDiagError."""
        self._socket.close()
        self._interrupted = True
        self._socket = _open()
        self.capacity = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self._dropped = 0
        self._check_count()

    def close(self) -> None:
        """Close the socket; closing twice is harmless."""
        self._socket.close()

    def _receive(self, most: int) -> int:
        """Receive at most as many datagrams as there are free places; return how many they were, with forged ones."""
        sizes, places, receive = self._sizes, self._places, self._socket.recvfrom_into
        count = 0
        while count < most:
            try:
                size, sender = receive(places[len(sizes)])
            except BlockingIOError:
                return count
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # some were dropped: take() returns how many
                    continue
                raise SockDiagError(error.errno or errno.EIO, f"destroy events: {error.strerror}") from error
            count += 1
            if sender[0] == _KERNEL:
                sizes.append(size)
            else:
                self._forged += 1
        return count

    def _decode(self) -> None:
        """Decode the datagrams and free their places. A call costs 0.1 ms and little for each datagram."""
        if not self._sizes:
            return
        sizes = np.array(self._sizes, np.uint32)
        counts, times = zip(*self._arrivals, strict=True)
        self._sizes, self._arrivals = [], []
        words = self._words
        offsets = np.arange(0, len(sizes) * _PLACE >> 2, _PLACE >> 2)
        types = words[offsets + 1] & 0xFFFF
        kept = (words[offsets] == sizes) & (sizes >= uapi.NLMSG_HDRLEN) & (types == uapi.SOCK_DIAG_BY_FAMILY)
        table, infos = np.empty(len(sizes), uapi.SOCKET), np.zeros(len(sizes), uapi.TCP_INFO)
        rest = offsets[kept]
        while len(rest):
            try:
                alike, rest, layout = decode_sockets.same_layout(words, rest)
            except decode_sockets.MessageError:
                kept[rest[0] // (_PLACE >> 2)] = False
                rest = rest[1:]
                continue
            which = alike // (_PLACE >> 2)
            rows = np.empty(len(which), uapi.SOCKET)
            decode_sockets.decode_sockets(words, alike, rows)
            opaque(table)[which] = opaque(rows)
            place, info_bytes = layout.get(uapi.INET_DIAG_INFO, (0, 0))
            if info_bytes:
                self._info_bytes = min(self._info_bytes, info_bytes)
                _copy_info(words, alike + place + 1, self._info_bytes, infos, which)
        when = np.repeat(times, counts)
        if not kept.all():
            self._undecoded += int((~kept).sum())
            table, infos, when = opaque(table)[kept].view(uapi.SOCKET), infos[kept], when[kept]
        self._backlog.add(table, infos, when)

    def _check_count(self) -> None:
        """Raise SockDiagError on a kernel that cannot count lost events."""
        try:
            self._newly_dropped()
        except OSError as error:
            self.close()
            raise _unusable(error) from error

    def _newly_dropped(self) -> int:
        """Return the events that did not fit into the kernel's queue since the last call: sk_drops (netlink_overrun).

        After an overrun the kernel queues nothing until everything was read; it counts these events as well.
        """
        memory = self._socket.getsockopt(socket.SOL_SOCKET, uapi.SO_MEMINFO, 4 * (uapi.SK_MEMINFO_DROPS + 1))
        before, self._dropped = self._dropped, int(np.frombuffer(memory, np.uint32)[uapi.SK_MEMINFO_DROPS])
        return (self._dropped - before) & 0xFFFFFFFF


def _copy_info(
    words: decode_sockets.Words, at: decode_sockets.Offsets, size: int, infos: NDArray[np.void], which: NDArray[np.intp]
) -> None:
    """Copy `size` bytes from each word offset `at`, all inside `words`, to the rows `which` of `infos`."""
    kind = np.dtype(f"V{size}")
    every = np.ndarray(len(words) - (size + 3 >> 2) + 1, kind, words, 0, (4,))
    np.ndarray(len(infos), kind, infos, 0, infos.strides)[which] = every[at]


def _open() -> socket.socket:
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, uapi.NETLINK_SOCK_DIAG)
    except OSError as error:
        raise _unusable(error) from error
    try:
        _enlarge(sock)
        sock.bind((0, 0))
        sock.connect((0, 0))  # refuses datagrams that other processes send to this socket, but not those to its groups
        for group in (uapi.SKNLGRP_INET_TCP_DESTROY, uapi.SKNLGRP_INET6_TCP_DESTROY):
            sock.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_ADD_MEMBERSHIP, group)
    except OSError as error:
        sock.close()
        raise _unusable(error) from error
    return sock


def _enlarge(sock: socket.socket) -> None:
    """Enlarge the receive buffer; only CAP_NET_ADMIN may exceed rmem_max."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, uapi.SO_RCVBUFFORCE, BUFFER)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)


def _unusable(error: OSError) -> SockDiagError:
    return unusable(error, "destroy events are not available")
