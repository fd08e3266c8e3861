"""Views for tests, built from readable specs: no kernel, no clock, no poller.

    view = make_view(sock("ESTAB", "10.0.0.1:80", "10.0.0.2:4000", process="nginx", pid=12, recv_queue=5))

Cookies count from 1 in the order of the specs, unless they are given.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.config.thresholds import DEFAULT
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NO_PROCESS, Owner
from tcpwatch.kernel.proc.process import Process
from tcpwatch.model.analyses.ephemeral_ports import ephemeral_ports
from tcpwatch.model.analyses.stalls import StallAnalysis
from tcpwatch.model.analyses.teardown import TeardownAnalysis
from tcpwatch.model.listeners.queue_analysis import QueueAnalysis
from tcpwatch.model.sockets.rows import Mark, Rows
from tcpwatch.model.states import STATE_ORDER, Closer, Role, State
from tcpwatch.model.view import FlowDetail, Gauge, Pace, View
from tcpwatch.sample import Completeness, Sample, SourceInfo
from tcpwatch.sources.psutil import PSUTIL_CAPABILITIES
from tcpwatch.units.printable import printable
from tests.support.polls import first_poll

NOW = 1_700_000_000.0
"""Unix seconds of every view's sample, by default."""


@dataclass(frozen=True, slots=True)
class Sock:
    """One socket's spec; see `sock`."""

    state: State
    local: tuple[str, int]
    remote: tuple[str, int]
    process: str | None
    pid: int
    command: str
    also: tuple[tuple[int, str], ...]
    owner_code: int
    uid: int
    user: str | None
    recv_queue: int
    send_queue: int
    timer: str
    timer_s: float
    retransmits: int
    role: Role
    closer: Closer
    mark: Mark
    age_s: float
    state_age_s: float | None
    begin_seen: bool
    cookie: int | None
    inode: int | None
    interface: str
    cgroup_id: int | None
    shutdown: int | None
    mapped: bool
    v6only: bool

    @property
    def owner(self) -> Owner | None:
        """The processes that hold it, lowest pid first."""
        if self.process is None:
            return None
        user = self.user or str(self.uid)
        first = Process(self.pid, printable(self.process), printable(self.command), self.uid, user, NOW - 3600)
        others = [Process(pid, name, name, self.uid, user, NOW - 3600) for pid, name in self.also]
        return Owner((first, *others))


def sock(
    state: str | State,
    local: str,
    remote: str = "0.0.0.0:0",
    *,
    process: str | None = None,
    pid: int = 0,
    command: str = "",
    also: Sequence[tuple[int, str]] = (),
    owner_code: int = UNKNOWN_NO_PROCESS,
    uid: int = 0,
    user: str | None = "root",
    recv_queue: int = 0,
    send_queue: int = 0,
    timer: str = "",
    timer_s: float = 0.0,
    retransmits: int = 0,
    role: str = "unknown",
    closer: str = "unknown",
    mark: str = "none",
    age_s: float = 0.0,
    state_age_s: float | None = None,
    begin_seen: bool = True,
    cookie: int | None = None,
    inode: int | None = None,
    interface: str = "",
    cgroup_id: int | None = None,
    shutdown: int | None = None,
    mapped: bool = False,
    v6only: bool = False,
) -> Sock:
    """A socket: endpoints as `10.0.0.1:80` or `[::1]:80`; `also` are further (pid, name) that hold it.

    Names are made printable, as they are where they enter the program. `owner_code` is the reason where no `process`
    is given; without one the inode is 0 by default. `mapped` stores IPv4 as IPv4-mapped IPv6.
    """
    return Sock(
        state if isinstance(state, State) else State.parse(state), _endpoint(local), _endpoint(remote),
        process, pid, command, tuple(also), owner_code, uid, user, recv_queue, send_queue, timer, timer_s,
        retransmits, Role[role.upper()], Closer[closer.upper()], Mark[mark.upper()], age_s, state_age_s,
        begin_seen, cookie, inode, interface, cgroup_id, shutdown, mapped, v6only,
    )  # fmt: skip


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def make_rows(socks: Sequence[Sock], *, time: float = NOW, first_cookie: int = 1) -> Rows:
    """Rows of these sockets, sorted by cookie, each cookie once."""
    numbered = sorted(
        ((s.cookie if s.cookie is not None else first_cookie + at, s) for at, s in enumerate(socks)),
        key=lambda pair: pair[0],
    )
    cookies, sorted_socks = [cookie for cookie, _ in numbered], [s for _, s in numbered]
    assert len(set(cookies)) == len(cookies), "a cookie came twice"
    owner_of = [s.owner for s in sorted_socks]
    places = {owner: place for place, owner in enumerate(dict.fromkeys(filter(None, owner_of)))}
    codes = [places[owner] if owner else s.owner_code for owner, s in zip(owner_of, sorted_socks, strict=True)]
    names = list(dict.fromkeys(s.interface for s in sorted_socks if s.interface))
    since = [s.age_s if s.state_age_s is None else s.state_age_s for s in sorted_socks]
    table = make_table(sorted_socks, names, cookies)
    return Rows(
        time=time,
        table=table,
        cookie=_frozen(table["idiag_cookie"], np.uint64),
        state=_frozen(table["idiag_state"], np.uint8),
        first_seen=_frozen([time - s.age_s for s in sorted_socks], np.float64),
        since=_frozen([time - s for s in since], np.float64),
        begin_seen=_frozen([s.begin_seen for s in sorted_socks], np.bool_),
        role=_frozen([s.role for s in sorted_socks], np.uint8),
        closer=_frozen([s.closer for s in sorted_socks], np.uint8),
        mark=_frozen([s.mark for s in sorted_socks], np.uint8),
        owner=_frozen(codes, np.int32),
        owners=list(places),
        users={s.uid: s.user for s in sorted_socks if s.user is not None},
        interfaces=dict(enumerate(names, 1)),
    )


def make_table(
    socks: Sequence[Sock], interfaces: Sequence[str] = (), cookies: Sequence[int] | None = None
) -> NDArray[np.void]:
    """The kernel's table of these sockets, in their order; with these cookies instead of their own."""
    table = np.zeros(len(socks), uapi.SOCKET)
    if not socks:
        table.flags.writeable = False
        return table
    if cookies is None:
        cookies = [s.cookie or 0 for s in socks]
    local = [_address(s.local[0], s.mapped) for s in socks]
    remote = [_address(s.remote[0], s.mapped) for s in socks]
    columns = {
        "idiag_cookie": cookies,
        "idiag_state": [s.state for s in socks],
        "idiag_family": [family for family, _ in local],
        "idiag_src": [address for _, address in local],
        "idiag_dst": [address for _, address in remote],
        "idiag_sport": [s.local[1] for s in socks],
        "idiag_dport": [s.remote[1] for s in socks],
        "idiag_rqueue": [s.recv_queue for s in socks],
        "idiag_wqueue": [s.send_queue for s in socks],
        "idiag_timer": [uapi.TIMER_NAMES.index(s.timer) for s in socks],
        "idiag_expires": [round(s.timer_s * 1000) for s in socks],
        "idiag_retrans": [s.retransmits for s in socks],
        "idiag_uid": [s.uid for s in socks],
        "idiag_inode": [_inode(s, cookie) for s, cookie in zip(socks, cookies, strict=True)],
        "idiag_if": [interfaces.index(s.interface) + 1 if s.interface else 0 for s in socks],
        "cgroup_id": [s.cgroup_id or 0 for s in socks],
        "shutdown": [s.shutdown or 0 for s in socks],
        "has": [
            uapi.HAS_CGROUP_ID * (s.cgroup_id is not None)
            | uapi.HAS_SHUTDOWN * (s.shutdown is not None)
            | uapi.IS_V6ONLY * s.v6only
            for s in socks
        ],
    }
    for s, (family, _), (remote_family, _) in zip(socks, local, remote, strict=True):
        assert remote_family == family or s.remote[0] == "0.0.0.0", f"two families: {s}"
    for name, values in columns.items():
        table[name] = values
    table.flags.writeable = False
    return table


def _inode(s: Sock, cookie: int) -> int:
    """A socket that a process holds has an inode, and one of its own."""
    if s.inode is not None:
        return s.inode
    return 100_000 + (cookie & 0xFFFF) if s.process is not None else 0


@cache
def _address(text: str, mapped: bool) -> tuple[int, NDArray[np.uint8]]:
    address = ipaddress.ip_address(text)
    if address.version == 4 and mapped:
        address = ipaddress.ip_address(f"::ffff:{address}")
    raw = address.packed.ljust(16, b"\0")
    return (uapi.AF_INET if address.version == 4 else uapi.AF_INET6), np.frombuffer(raw, np.uint8)


def _frozen(values: Any, dtype: Any) -> NDArray[Any]:
    array = np.array(values, dtype)
    array.flags.writeable = False
    return array


def make_sample(rows: Rows, **overrides: Any) -> Sample:
    """Return the sample of these rows; by default root, complete, no counters."""
    facts: dict[str, Any] = {
        "time": rows.time,
        "monotonic": rows.time - NOW + 1000.0,
        "host": "web-1",
        "source": SourceInfo("sock_diag", "root"),
        "completeness": Completeness(),
        "table": rows.table,
        "cookie": rows.cookie,
        "state": rows.state,
        "inode": np.ascontiguousarray(rows.table["idiag_inode"]),
        "local_port": rows.table["idiag_sport"].astype(np.uint16),
        "family": np.ascontiguousarray(rows.table["idiag_family"]),
        "interface": np.ascontiguousarray(rows.table["idiag_if"]),
        "owner": rows.owner,
        "owners": rows.owners,
        "drops": {},
        "accept_queue_peaks": {},
        "counters": {},
        "sysctls": {},
        "users": rows.users,
        "interfaces": rows.interfaces,
    }
    facts |= overrides
    if facts["source"].kind == "psutil":
        facts.setdefault("capabilities", PSUTIL_CAPABILITIES)
    return Sample(**facts)


def shared(build: Callable[..., View]) -> Callable[..., View]:
    """Build the View of a call without arguments only once: nothing changes a View."""
    views: list[View] = []

    @wraps(build)
    def view(*arguments: Any, **overrides: Any) -> View:
        if arguments or overrides:
            return build(*arguments, **overrides)
        if not views:
            views.append(build())
        return views[0]

    return view


def make_view(
    *socks: Sock,
    step: int = 1,
    closed: Sequence[Sock] = (),
    details: Mapping[int, FlowDetail] | None = None,
    **overrides: Any,
) -> View:
    """A View of these sockets; `closed` ended since the step before. Any field of View may be overridden.

    Counts, listeners and half_open follow from the sockets; time moves on by one second a step.
    """
    time = NOW + step - 1
    rows = make_rows(socks, time=time)
    closed_socks = [replace(s, mark=Mark.CLOSED) for s in closed]
    return view_of(rows, make_rows(closed_socks, time=time, first_cookie=len(socks) + 1), step, details, **overrides)


def view_of(
    rows: Rows,
    closed: Rows,
    step: int = 1,
    details: Mapping[int, FlowDetail] | None = None,
    **overrides: Any,
) -> View:
    """A View of these rows, for tables too big for specs."""
    numbers = np.bincount(rows.state, minlength=16).tolist()
    counts = {state: numbers[state] for state in STATE_ORDER}
    sample = overrides.get("sample") or make_sample(rows)
    poll = first_poll(sample, rows)
    queues = QueueAnalysis(DEFAULT.syn_queue_share).step(poll)
    facts: dict[str, Any] = {
        "step": step,
        "sample": sample,
        "rows": rows,
        "closed": closed,
        "opened": int(np.count_nonzero(rows.mark == Mark.NEW)),
        "ended": len(closed),
        "elapsed_s": 1.0 if step > 1 else None,
        "counts": counts,
        "count_rates": dict.fromkeys(STATE_ORDER, 0.0) if step > 1 else {},
        "rates": {},
        "state_trend": {state: (float(counts[state]),) for state in STATE_ORDER},
        "listeners": queues.listeners,
        "queue_trend": queues.trend,
        "half_open": queues.half_open,
        "half_open_by_listener": queues.half_open_by_listener,
        "half_open_without_listener": queues.facts.without_listener,
        "syn_arrivals_per_s": None if step == 1 else 0.0,
        "rate_trend": {},
        "time_wait": Gauge(counts[State.TIME_WAIT], 131_072),
        "orphans": Gauge(0, 65_536),
        "memory_pages": Gauge(12, 190_000),
        "port_usage": Gauge(0, 28_232),
        "ephemeral_ports": ephemeral_ports(rows, sample),
        "teardown": TeardownAnalysis(60.0, 300.0).step(poll),
        "stalls": StallAnalysis(DEFAULT).step(poll),
        "details": details or {},
        "queue_detail": None,
        "pace": Pace(0.012, 0.011, 1.0, 1.0),
    }
    return View(**{**facts, **overrides})
