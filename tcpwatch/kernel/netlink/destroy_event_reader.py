"""DestroyEvents: every TCP socket that the kernel frees, as NETLINK_SOCK_DIAG's multicast tells; needs no privilege.

Sources: sock_diag_broadcast_destroy_work in net/core/sock_diag.c, inet_diag_handler_get_info in net/ipv4/inet_diag.c,
netlink_overrun and netlink_broadcast_deliver in net/netlink/af_netlink.c. Each event is a datagram with one message,
of 380 bytes on Linux 6.18. In Python it costs one recv_into; the messages are decoded many at once.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.backlog import Backlog
from tcpwatch.arrays.opaque_rows import opaque
from tcpwatch.kernel.netlink import decode_sockets, uapi
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.kernel.netlink.sock_diag import SockDiagError

BUFFER = 16 * 1024 * 1024
"""Bytes asked for; the kernel books twice as many, to allow for its own overhead (sock_setsockopt)."""
TRUESIZE = 1300
"""About what one event takes of that buffer."""
_KEPT = 250_000
"""Events that wait to be taken: 85 MB."""
_PLACE = 1024
"""Bytes for one datagram."""
_BATCH = 1024
_MOST = 100 * _BATCH
"""Events that one read may bring, so that it ends while they come as fast as they are read."""


class DestroyEventReader:
    """A socket that listens to them. It stays in the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        """Hears of everything that is freed from now on. Raises SockDiagError where it cannot."""
        self._socket = _open()
        self.capacity = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        """Bytes that may wait in the kernel, of which each event takes about TRUESIZE."""
        self._words = np.zeros(_BATCH * _PLACE >> 2, np.uint32)
        data = self._words.data.cast("B")
        self._places = [data[at : at + _PLACE] for at in range(0, len(data), _PLACE)]
        self._sizes: list[int] = []
        """Of the datagrams that lie in the first places and have not been decoded."""
        self._whens: list[tuple[int, float]] = []
        """How many of them came when."""
        self._told = uapi.TCP_INFO.itemsize
        self._dropped = 0
        try:
            self._newly_dropped()  # so that an old kernel says here that it cannot count
        except OSError as error:
            self.close()
            raise _unusable(error) from error
        self._backlog = Backlog(_KEPT, (np.empty(0, uapi.SOCKET), np.empty(0, uapi.TCP_INFO), np.empty(0)))

    def fileno(self) -> int:
        """Readable when something was freed."""
        return self._socket.fileno()

    def read(self) -> int:
        """Fetch what waits in the kernel, up to 100,000 events; how many it was.

        Raises SockDiagError where the socket fails, MessageError where it brings something else than such events.
        """
        done = 0
        while done < _MOST:
            got = self._receive()
            done += got
            if got:
                self._whens.append((got, time.monotonic()))
            if len(self._sizes) < _BATCH:
                break
            self._decode()
        return done

    def take(self) -> DestroyedSockets:
        """What was read since the last time, read-only, and how many were lost meanwhile. Raises MessageError."""
        self._decode()
        (table, infos, when), forgotten = self._backlog.take()
        for column in (table, infos, when):
            column.flags.writeable = False
        return DestroyedSockets(table, infos, when, self._told, self._newly_dropped() + forgotten)

    def close(self) -> None:
        """Give the descriptor back; closing twice is harmless."""
        self._socket.close()

    def _receive(self) -> int:
        """Datagrams, each into its place, until all places are taken or no more are there; how many they were."""
        sizes, receive = self._sizes, self._socket.recv_into
        before = len(sizes)
        while True:
            try:
                for place in self._places[len(sizes) :]:
                    sizes.append(receive(place))
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # some were dropped: `take` says how many
                    continue
                raise SockDiagError(error.errno or errno.EIO, f"destroy events: {error.strerror}") from error
            return len(sizes) - before

    def _decode(self) -> None:
        """What lies in the places, which are free again then. Many at once: it costs 0.1 ms and little for each."""
        if not self._sizes:
            return
        sizes = np.array(self._sizes, np.uint32)
        counts, times = zip(*self._whens, strict=True)
        self._sizes, self._whens = [], []
        words = self._words
        offsets = np.arange(0, len(sizes) * _PLACE >> 2, _PLACE >> 2)
        if strange := np.flatnonzero((words[offsets] != sizes) | (sizes < uapi.NLMSG_HDRLEN)).tolist():
            size, at = int(sizes[strange[0]]), int(offsets[strange[0]])
            raise decode_sockets.MessageError(f"a destroy event of {size} bytes that says it has {words[at]}")
        table, infos = np.empty(len(sizes), uapi.SOCKET), np.zeros(len(sizes), uapi.TCP_INFO)
        for which, layout in _alike(words, offsets):
            rows = np.empty(len(which), uapi.SOCKET)
            decode_sockets.decode_sockets(words, offsets[which], rows)
            opaque(table)[which] = opaque(rows)
            place, told = layout.get(uapi.INET_DIAG_INFO, (0, 0))
            if told:
                self._told = min(self._told, told)
                _copy_info(words, offsets[which] + place + 1, self._told, infos, which)
        self._backlog.add(table, infos, np.repeat(times, counts))

    def _newly_dropped(self) -> int:
        """What the kernel could not queue since the last time: sk_drops of the socket, which netlink_overrun counts up.

        After an overrun the kernel queues nothing until everything was read, and counts that as well.
        """
        memory = self._socket.getsockopt(socket.SOL_SOCKET, uapi.SO_MEMINFO, 4 * (uapi.SK_MEMINFO_DROPS + 1))
        before, self._dropped = self._dropped, int(np.frombuffer(memory, np.uint32)[uapi.SK_MEMINFO_DROPS])
        return (self._dropped - before) & 0xFFFFFFFF


def _alike(
    words: decode_sockets.Words, offsets: decode_sockets.Offsets
) -> Iterator[tuple[NDArray[np.intp], decode_sockets.AttributeSpans]]:
    """Which of the messages share a length and all attribute headers, and their layout; one group, as a rule."""
    left = np.arange(len(offsets))
    while len(left):
        layout = decode_sockets.attribute_spans(words, int(offsets[left[0]]))
        places = np.array([0, *(place for place, _ in layout.values())])
        headers = words[offsets[left, None] + places]
        same = (headers == headers[0]).all(axis=1)
        yield left[same], layout
        left = left[~same]


def _copy_info(
    words: decode_sockets.Words, at: decode_sockets.Offsets, size: int, infos: NDArray[np.void], which: NDArray[np.intp]
) -> None:
    """`size` bytes from each of the word offsets `at` on, which lie inside `words`, to the rows `which` of `infos`."""
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
        for group in (uapi.SKNLGRP_INET_TCP_DESTROY, uapi.SKNLGRP_INET6_TCP_DESTROY):
            sock.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_ADD_MEMBERSHIP, group)
    except OSError as error:
        sock.close()
        raise _unusable(error) from error
    return sock


def _enlarge(sock: socket.socket) -> None:
    """CAP_NET_ADMIN may go beyond rmem_max; nobody else."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, uapi.SO_RCVBUFFORCE, BUFFER)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)


def _unusable(error: OSError) -> SockDiagError:
    code = error.errno or errno.EIO
    return SockDiagError(code, f"destroy events cannot be had here: {os.strerror(code)}")
