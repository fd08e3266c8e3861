"""ss(8) as the oracle: its lines, taken apart, and pictures of sockets that it and tcpwatch saw at one quiet moment."""

from __future__ import annotations

import re
import socket
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.sock_diag import SockDiag
from tcpwatch.model.columns.columns import COLUMNS
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tests import lab

STATES = {
    "ESTABLISHED": "ESTAB",
    "SYN_SENT": "SYN-SENT",
    "SYN_RCVD": "SYN-RECV",
    "FIN_WAIT_1": "FIN-WAIT-1",
    "FIN_WAIT_2": "FIN-WAIT-2",
    "TIME_WAIT": "TIME-WAIT",
    "CLOSED": "UNCONN",
    "CLOSE_WAIT": "CLOSE-WAIT",
    "LAST_ACK": "LAST-ACK",
    "LISTEN": "LISTEN",
    "CLOSING": "CLOSING",
}
"""RFC 9293's names as ss writes them."""

Ends = tuple[lab.Endpoint, lab.Endpoint]


@dataclass(frozen=True, slots=True)
class Timer:
    """`timer:(on,1.204ms,2)`; ss leaves out what is finer than its unit, so the time is a range."""

    name: str
    least_ms: int
    most_ms: int
    retransmits: int


NO_TIMER = Timer("", 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Line:
    """A socket as `ss -tanoemHO` writes it; None where it writes nothing."""

    state: str
    recv_queue: int
    send_queue: int
    local: lab.Endpoint
    remote: lab.Endpoint
    interface: str | None
    timer: Timer
    uid: int
    inode: int
    cookie: int
    cgroup: str | None
    arrow: str | None
    """`<->`: open in both directions; a missing head is a direction that was shut down."""
    drops: int | None


def lines(namespace: lab.Namespace) -> list[Line]:
    """All TCP sockets of the namespace. No filter: `ss state X` leaves the first column out."""
    return [parse(line) for line in namespace.ss("-tanoemHO").splitlines()]


def parse(line: str) -> Line:
    """One line of `ss -tanoemHO`."""
    state, recv_queue, send_queue, local, remote, *rest = line.split()
    words = dict(word.partition(":")[::2] for word in rest)
    drops = re.search(r",d(\d+)\)$", words.get("skmem", ""))
    local_end, interface = _endpoint(local)
    return Line(
        state=state,
        recv_queue=int(recv_queue),
        send_queue=int(send_queue),
        local=local_end,
        remote=_endpoint(remote)[0],
        interface=interface,
        timer=_timer(words["timer"]) if "timer" in words else NO_TIMER,
        uid=int(words.get("uid", 0)),
        inode=int(words["ino"]),
        cookie=int(words["sk"], 16),
        cgroup=words.get("cgroup"),
        arrow=next((word for word in rest if re.fullmatch("[<-]-[->]", word)), None),
        drops=int(drops[1]) if drops else None,
    )


def _endpoint(text: str) -> tuple[lab.Endpoint, str | None]:
    address, _, port = text.rpartition(":")
    address, _, interface = address.partition("%")
    host = "::" if address == "*" else address.strip("[]")
    return lab.Endpoint.of(host, 0 if port == "*" else int(port)), interface.strip("]") or None


def _timer(text: str) -> Timer:
    """`(name,left,retransmits)`, where left is `119min`, `1min5sec`, `59sec`, `2.034ms` (s.ms), `180ms` or empty."""
    name, left, retransmits = text.strip("()").split(",")
    match = re.fullmatch(r"(?:(\d+)min)?(?:(\d+)(?:sec|\.))?(?:(\d+)ms)?", left)
    assert match, text
    minutes, seconds, ms = (int(number or 0) for number in match.groups())
    unit_ms = 60_000 if minutes > 9 else 1000 if minutes or seconds > 9 else 1
    least_ms = 60_000 * minutes + 1000 * seconds + ms
    return Timer(name, least_ms, least_ms + unit_ms - 1, int(retransmits))


def cgroup_id(path: str) -> int:
    """The id that the kernel has for what ss writes: the inode of the directory in the cgroup2 hierarchy."""
    if path.startswith("unreachable:"):
        return int(path.removeprefix("unreachable:"), 16)
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    root = next(fields[1] for fields in mounts if fields[2] == "cgroup2")
    return Path(root, path.lstrip("/")).stat().st_ino


def row_ends(row: np.void) -> Ends:
    """The ends of a uapi.SOCKET row, IPv4-mapped ones as IPv4; by the standard library, not by tcpwatch.units."""
    family = int(row["idiag_family"])
    size = 4 if family == uapi.AF_INET else 16
    local, remote = (
        lab.Endpoint.of(socket.inet_ntop(family, bytes(row[address][:size])), int(row[port]))
        for address, port in (("idiag_src", "idiag_sport"), ("idiag_dst", "idiag_dport"))
    )
    return local, remote


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One socket as SockDiag saw it, then ss, then a Monitor, while nothing happened to it but the passing of time."""

    before: np.void
    """uapi.SOCKET"""
    line: Line
    after: np.void
    """uapi.SOCKET"""
    cells: dict[str, object]
    """Column key → value of the Monitor's row."""


def pictures(namespace: lab.Namespace, wanted: set[Ends]) -> dict[Ends, Picture]:
    """A quiet picture of each socket with these ends; timers fire meanwhile, so some need more than one try."""
    taken: dict[Ends, Picture] = {}

    def take() -> bool:
        fresh = _one_round(namespace)
        taken.update({ends: fresh[ends] for ends in wanted - taken.keys() if ends in fresh})
        return taken.keys() == wanted

    lab.wait_until(take, f"a quiet moment of all {len(wanted)} sockets", deadline_s=10)
    return taken


def _one_round(namespace: lab.Namespace) -> dict[Ends, Picture]:
    begin = time.monotonic()
    with closing(SockDiag()) as diag:
        before = {row_ends(row): row for row in diag.dump().table.copy()}
    between = time.monotonic()
    seen = {(line.local, line.remote): line for line in lines(namespace)}
    then = time.monotonic()
    with closing(Monitor(LiveSource())) as monitor:
        view = monitor.step()
    rows, passed_s = view.rows, (then - between, view.sample.monotonic - begin)
    values = {column.key: column.values(rows) for column in COLUMNS}
    pictures = {}
    for at, after in enumerate(rows.table):
        ends = row_ends(after)
        if ends in before and ends in seen and _is_quiet(before[ends], after, passed_s):
            cells = {key: column[at] for key, column in values.items()}
            pictures[ends] = Picture(before[ends], seen[ends], after, cells)
    return pictures


TICK_S = 0.02
"""Timers have the resolution of the kernel's clock, 10 ms if CONFIG_HZ is 100, and each reading is rounded."""


def _is_quiet(before: np.void, after: np.void, passed_s: tuple[float, float]) -> bool:
    """Nothing differs, and the timer has run down by the time that passed (least, most): it was not set anew."""
    same = after.copy()
    same["idiag_expires"] = before["idiag_expires"]
    if same.tobytes() != before.tobytes():
        return False
    if not before["idiag_timer"]:
        return True
    least_s, most_s = passed_s
    run_down_s = (int(before["idiag_expires"]) - int(after["idiag_expires"])) / 1000
    return least_s - TICK_S <= run_down_s <= most_s + TICK_S
