"""The measured works: tcpwatch's, the kernel's part alone, and other tools."""

from __future__ import annotations

import socket
import struct
import subprocess

import numpy as np

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NOT_LOOKED
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource

_BUFFER = 64 * 1024
_DONE = 20
"""Bytes of an NLMSG_DONE message, which is the last of a dump."""


class Discard:
    """Receive the dump of all TCP sockets into one buffer and check only its end: the unit of the ratios."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, uapi.NETLINK_SOCK_DIAG)
        self._buffer = bytearray(_BUFFER)
        self._sequence = 0

    def __call__(self) -> None:
        """Run one dump."""
        self._sequence += 1
        request = np.zeros(1, [("header", uapi.NLMSGHDR), ("request", uapi.INET_DIAG_REQ)])
        header = request["header"]
        header["nlmsg_len"], header["nlmsg_type"] = request.itemsize, uapi.TCPDIAG_GETSOCK
        header["nlmsg_flags"], header["nlmsg_seq"] = uapi.NLM_F_REQUEST | uapi.NLM_F_DUMP, self._sequence
        request["request"]["idiag_states"] = uapi.TCPF_ALL
        self._socket.sendto(request.tobytes(), (0, 0))
        receive, buffer = self._socket.recv_into, self._buffer
        while not self._ended(receive(buffer)):
            pass

    def _ended(self, size: int) -> bool:
        length, kind, _, sequence = struct.unpack_from("=IHHI", self._buffer, size - _DONE)
        return (length, kind, sequence) == (_DONE, uapi.NLMSG_DONE, self._sequence)


class Step:
    """A whole Monitor.step() with all owners already looked for; the last View is kept, as in the UI.

    With very many flows LiveSource asks for tcp_info in some steps only: the median step is one without.
    """

    def __init__(self) -> None:
        self._monitor = Monitor(LiveSource(ask_infos=True))
        self.view = self._monitor.step()
        while (self.view.sample.owner == UNKNOWN_NOT_LOOKED).any():
            self.view = self._monitor.step()

    def __call__(self) -> None:
        """Run one step."""
        self.view = self._monitor.step()

    def close(self) -> None:
        """Close the monitor."""
        self._monitor.close()


def ss(*arguments: str) -> None:
    """Run ss(8) and discard its output."""
    subprocess.run(["ss", *arguments], stdout=subprocess.DEVNULL, check=True)


def ss_all() -> None:
    """List every TCP socket, without owners."""
    ss("-tanH")


def ss_processes() -> None:
    """List every TCP socket with its processes."""
    ss("-tanpH")


def pyroute2_all() -> None:
    """List every TCP socket of IPv4 with pyroute2."""
    from pyroute2.netlink.diag import DiagSocket

    with DiagSocket() as diag:
        diag.bind()
        diag.get_sock_stats(family=socket.AF_INET)


def psutil_all() -> None:
    """List every TCP socket with psutil, which always includes owners."""
    import psutil

    psutil.net_connections("tcp")
