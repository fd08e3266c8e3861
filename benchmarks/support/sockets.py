"""The measured sockets: established over loopback in many processes, and half-open ones made by a flood.

All are in the lab.Namespace that the caller has entered. `grow` brings them to a number, `count` counts them. They are
dumped again and again while they grow: the kernel gives sockets their cookies at the first dump, in the order of its
walk. With a single dump they would always be sorted by cookie, unlike on a real host, and a monitor would have nothing
to sort.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from benchmarks.support.holder import most_sockets
from benchmarks.support.works import Discard
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.sock_diag import SockDiag
from tests import lab

PROJECT = Path(__file__).parents[2]
_PER_PROCESS = 8_000
_PORT = 443
_TOP_UPS = 5
_BATCHES = 40
_MARGIN_S = 1.0
"""Retransmits end at most this much later than expected."""
_AGES_S = (1, 3, 7, 15, 31, 63, *range(127, 3_600, 120))
"""Ages at which the SYN+ACK of a half-open connection is retransmitted: each timeout is twice the one before, 120 s at
most (TCP_TIMEOUT_INIT, TCP_RTO_MAX)."""
_SOCK_DESTROY = 21
_TOGETHER = 500


def count(state: str) -> int:
    """Return the number of sockets in a state, as ss(8) sees them in the current namespace."""
    command = ["ss", "-H", "-t", "-a", "-n", "state", state]
    found = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while block := process.stdout.read(1 << 20):
            found += block.count(b"\n")
    return found


class Established:
    """Processes with up to 8,000 sockets each by default, both ends of connections, each at an address of its own."""

    def __init__(self) -> None:
        self._holders: list[subprocess.Popen[str]] = []
        self._sockets = 0
        self._dump = Discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        for holder in self._holders:
            holder.kill()
        for holder in self._holders:
            holder.communicate()

    @property
    def processes(self) -> int:
        """Number of processes that hold the sockets."""
        return len(self._holders)

    def grow(self, sockets: int, each: int = _PER_PROCESS) -> int:
        """Open sockets up to this number, in processes with `each` at most; return how many are established."""
        while self._sockets < sockets:
            size = min(each, most_sockets(), sockets - self._sockets) & ~1 or 2
            holder = self._start(size)
            self._sockets += size
            assert holder.stdout is not None
            if holder.stdout.readline() != "ready\n":
                raise RuntimeError("a process could not open its sockets; see its output above")
            self._dump()
        return count("established")

    def settle(self, duration_s: float) -> None:
        """Return at once: nothing happens to idle connections."""

    def _start(self, sockets: int) -> subprocess.Popen[str]:
        number = len(self._holders)
        address = f"127.0.{number // 250}.{number % 250 + 1}"
        command = [sys.executable, "-m", "benchmarks.support.holder", address, str(sockets)]
        pipe = subprocess.PIPE
        self._holders.append(subprocess.Popen(command, cwd=PROJECT, stdin=pipe, stdout=pipe, text=True))
        return self._holders[-1]


class HalfOpen:
    """Half-open connections of one listener, made by SYNs from hosts that do not exist."""

    PORT = _PORT

    def __init__(self, namespace: lab.Namespace, most: int) -> None:
        backlog = 2 * most + 1_000  # the kernel thins out a SYN queue that is more than half full
        namespace.sysctl("net.core.somaxconn", backlog)
        namespace.sysctl("net.ipv4.tcp_max_syn_backlog", 2 * backlog)
        namespace.sysctl("net.ipv4.tcp_syncookies", 0)
        namespace.sysctl("net.ipv4.tcp_synack_retries", 60)
        namespace.add_address(f"{lab.LOCAL[4]}/32")
        self._listener = socket.create_server((lab.LOCAL[4], _PORT), backlog=backlog)
        self._flood = lab.Flood(namespace)
        self._dump = Discard()
        self._born: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        self._listener.close()
        self._flood.close()
        destroy_half_open()

    def grow(self, sockets: int) -> int:
        """Make half-open connections up to this number; return how many there are."""
        begin = time.monotonic()
        there = count("syn-recv")
        for _ in range(_TOP_UPS):
            if there >= sockets:
                break
            self._send(sockets - there)
            there = count("syn-recv")
        self._born.append((begin, time.monotonic()))
        return there

    def _send(self, syns: int) -> None:
        batch = max(1, syns // _BATCHES)
        for sent in range(0, syns, batch):
            self._flood.send(lab.Endpoint(lab.LOCAL[4], _PORT), min(batch, syns - sent))
            self._dump()

    def settle(self, duration_s: float) -> None:
        """Wait until the kernel will retransmit no SYN+ACK for `duration_s`.

        All connections began within some seconds, so their retransmits come in bursts, which would disturb one
        measurement and not the next. Gaps between bursts are at most 110 s; longer durations are cut down to 60 s.
        """
        duration_s = min(duration_s, 60.0)
        while ends := [end for begin, end in self._bursts() if begin < time.monotonic() + duration_s]:
            time.sleep(max(0.0, max(ends) - time.monotonic()))

    def _bursts(self) -> list[tuple[float, float]]:
        now = time.monotonic()
        bursts = [(first + age, last + age + _MARGIN_S) for first, last in self._born for age in _AGES_S]
        return [(begin, end) for begin, end in bursts if end > now]


def leave_time_waits(namespace: lab.Namespace, sockets: int) -> int:
    """Make sockets of clients in TIME_WAIT, which stay for a minute; return how many there are."""
    namespace.sysctl("net.ipv4.tcp_max_tw_buckets", 2 * sockets + 1_000)
    namespace.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
    namespace.sysctl("net.ipv4.tcp_tw_reuse", 0)  # 2, the default, would reuse them over loopback
    each = -(-sockets // _CLOSERS)
    commands = [
        [sys.executable, "-m", "benchmarks.support.closer", f"127.{8 + number}.0.1", str(each)]
        for number in range(_CLOSERS)
    ]
    closers = [subprocess.Popen(command, cwd=PROJECT) for command in commands]
    dump = Discard()
    while any(closer.poll() is None for closer in closers):
        dump()  # so that they get their cookies as on a monitored host
        time.sleep(0.5)
    if any(closer.returncode for closer in closers):
        raise RuntimeError("a process could not make its TIME_WAIT sockets; see its output above")
    return count("time-wait")


_CLOSERS = 2


def destroy_half_open() -> None:
    """Destroy the half-open connections, which would outlive their listener by minutes.

    Where namespaces share one hash table, they would slow down the next measurement. Without CONFIG_INET_DIAG_DESTROY
    in the kernel nothing happens.
    """
    diag = SockDiag()
    try:
        rows = diag.dump(1 << 3).table
        requests = np.zeros(len(rows), [("header", uapi.NLMSGHDR), ("request", uapi.INET_DIAG_REQ_V2)])
        header, request = requests["header"], requests["request"]
        header["nlmsg_len"], header["nlmsg_type"] = requests.itemsize, _SOCK_DESTROY
        header["nlmsg_flags"] = uapi.NLM_F_REQUEST
        request["sdiag_family"], request["sdiag_protocol"] = rows["idiag_family"], uapi.IPPROTO_TCP
        for name in ("idiag_sport", "idiag_dport", "idiag_src", "idiag_dst", "idiag_if", "idiag_cookie"):
            request[name] = rows[name]
    finally:
        diag.close()
    for at in range(0, len(requests), _TOGETHER):
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, uapi.NETLINK_SOCK_DIAG) as netlink:
            netlink.send(requests[at : at + _TOGETHER].tobytes())
