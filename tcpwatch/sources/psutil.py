"""PsutilSource: samples from psutil, for hosts without sock_diag. The header shows which facts are missing."""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import time
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from tcpwatch.arrays.growing_tuple import GrowingTuple
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.proc import owner_finder
from tcpwatch.kernel.proc.namespaces import NamespaceCensus
from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.kernel.proc.process import PROCESS_ENDED_ERRORS, Process, read_process, read_process_stat
from tcpwatch.sample import Capabilities, Completeness, Sample, SourceInfo, sort_by_cookie
from tcpwatch.sources.base import (
    NAMESPACE_SEARCH_S,
    SourceError,
    privilege,
    try_read_counters,
    try_read_sysctls,
    unanswered_names,
)
from tcpwatch.units.printable import printable

_STATES = {
    psutil.CONN_ESTABLISHED: 1, psutil.CONN_SYN_SENT: 2, psutil.CONN_SYN_RECV: 3, psutil.CONN_FIN_WAIT1: 4,
    psutil.CONN_FIN_WAIT2: 5, psutil.CONN_TIME_WAIT: 6, psutil.CONN_CLOSE: 7, psutil.CONN_NONE: 7,
    psutil.CONN_CLOSE_WAIT: 8, psutil.CONN_LAST_ACK: 9, psutil.CONN_LISTEN: 10, psutil.CONN_CLOSING: 11,
}  # fmt: skip

PSUTIL_CAPABILITIES = Capabilities(*[False] * len(fields(Capabilities)))


class PsutilSource:
    """Samples of psutil.net_connections(): endpoints, state and pid of each socket."""

    def __init__(self, why_no_sock_diag: str = "") -> None:
        """`why_no_sock_diag` is the reason why the better source cannot be used; empty if psutil was asked for."""
        self.info = SourceInfo("psutil", privilege(), why_no_trace="not with psutil")
        why = f" ({why_no_sock_diag})" if why_no_sock_diag else ""
        self._missing = f"no queues, timers, tcp_info or cookies{why}"
        self._namespaces = NamespaceCensus()
        self._owners: dict[int, int] = {}
        self._known = GrowingTuple[Owner]()

    def sample(self, watched: Iterable[int] = ()) -> Sample:
        """Take a sample; `watched` is ignored. Raises SourceError."""
        try:
            connections = psutil.net_connections("tcp")
        except Exception as error:  # psutil's parser also raises RuntimeError, ValueError, KeyError, ...
            reason = printable(str(error)) or type(error).__name__
            raise SourceError(f"psutil cannot list connections: {reason}") from error
        now, monotonic = time.time(), time.monotonic()
        raw = np.zeros(len(connections), uapi.SOCKET)
        pids = {}
        for row, connection in zip(raw, connections, strict=True):
            _fill(row, connection)
            pids[int(row["idiag_cookie"])] = connection.pid
        ordered = sort_by_cookie(raw)
        (figures, no_counters), (sysctls, reserved, no_sysctls) = try_read_counters(), try_read_sysctls()
        return Sample(
            time=now,
            monotonic=monotonic,
            host=printable(socket.gethostname()),
            source=self.info,
            completeness=Completeness(reasons=(self._missing, *no_counters, *no_sysctls)),
            **ordered.columns(),
            owner=self._owner_codes([pids[c] for c in ordered.cookie.tolist()]),
            owners=self._known.snapshot(),
            drops={},
            accept_queue_peaks={},
            counters=figures,
            sysctls=sysctls,
            reserved_ports=reserved,
            capabilities=PSUTIL_CAPABILITIES,
            other_namespaces=self._namespaces.look(NAMESPACE_SEARCH_S),
            unanswered=unanswered_names(),
        )

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def _owner_codes(self, pids: list[int | None]) -> NDArray[np.int32]:
        if len(self._known) > 4 * len(pids) + 1024:
            self._known, self._owners = GrowingTuple(), {}
        return np.array([self._owner_code(pid) for pid in pids], np.int32)

    def _owner_code(self, pid: int | None) -> int:
        if pid is None:
            return owner_finder.UNKNOWN_ELSEWHERE if self.info.privilege == "root" else owner_finder.UNKNOWN_PERMISSION
        if pid not in self._owners:
            process = _process(pid)
            if process is None:
                return owner_finder.UNKNOWN_ELSEWHERE
            self._owners[pid] = len(self._known)
            self._known.append(Owner((process,)))
        return self._owners[pid]


def _process(pid: int) -> Process | None:
    try:
        return read_process("/proc", read_process_stat("/proc", pid))
    except (*PROCESS_ENDED_ERRORS, PermissionError):
        return None


def _fill(row: np.void, connection: Any) -> None:
    row["idiag_family"] = connection.family
    row["idiag_state"] = _STATES.get(connection.status, 7)
    _put(row, "idiag_src", "idiag_sport", connection.laddr)
    _put(row, "idiag_dst", "idiag_dport", connection.raddr)
    # psutil has no cookie: a hash of the endpoints identifies the connection in the next sample.
    ends = b"".join(row[name].tobytes() for name in _IDENTITY)
    row["idiag_cookie"] = int.from_bytes(hashlib.blake2b(ends, digest_size=6).digest(), "big")


_IDENTITY = ("idiag_family", "idiag_src", "idiag_sport", "idiag_dst", "idiag_dport")


def _put(row: np.void, address: str, port: str, end: Any) -> None:
    if end:  # an empty tuple if there is no such endpoint
        packed = ipaddress.ip_address(end.ip.partition("%")[0]).packed
        row[address][: len(packed)] = list(packed)
        row[port] = end.port
