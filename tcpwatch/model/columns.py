"""THE list of columns of a socket: the table, JSON, CSV and help all read it here.

Values come in bulk, for the rows that are asked for: a table of a million sockets makes text of fifty. The keys, their
order among the exported ones, and their values are a public contract (README, "Headless").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch import text
from tcpwatch.kernel import processes, uapi
from tcpwatch.model.rows import Mark, Rows
from tcpwatch.model.states import FACTS, LIFE_ORDER, Closer, Role, State

Values = list[Any]
Keys = tuple[NDArray[Any], ...]
"""Sort keys, the most important first."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `values` gives what JSON shows (None: not known); `show` turns one such value into text."""

    key: str
    title: str
    help: str
    values: Callable[[Rows], Values]
    sort: Callable[[Rows], Keys]
    show: Callable[[Any, bool], str]
    """(value, exact) → text; exact is what `n` asks for: numbers as they are, no names."""
    width: int
    """Cells in a table."""
    grow: int = 0
    """Cells that it may take beyond `width` where there is room."""
    priority: int = 9
    """Columns of a high number leave first when the screen is narrow; 0 stays."""
    right: bool = False
    exported: bool = True
    """In JSON and CSV; the others are for the table alone."""
    in_table: bool = True


def _plain(value: Any, exact: bool) -> str:
    return text.UNKNOWN if value is None else str(value)


def _field(name: str) -> tuple[Callable[[Rows], Values], Callable[[Rows], Keys]]:
    def values(rows: Rows) -> Values:
        return list(rows.table[name].tolist())

    def keys(rows: Rows) -> Keys:
        return (rows.table[name],)

    return values, keys


def _states(rows: Rows) -> Values:
    names = {int(s): s.name for s in State}
    return [names[s] for s in rows.state.tolist()]


_LIFE = np.zeros(256, np.uint8)
for _rank, _state in enumerate(LIFE_ORDER):
    _LIFE[_state] = _rank


def _addresses(name: str) -> Callable[[Rows], Values]:
    def values(rows: Rows) -> Values:
        raw = np.ascontiguousarray(rows.table[name]).tobytes()
        families = rows.table["idiag_family"].tolist()
        return [text.address(raw[16 * i : 16 * i + 16], f) for i, f in enumerate(families)]

    return values


def _address_keys(address: str, port: str) -> Callable[[Rows], Keys]:
    """IPv4 first (IPv4-mapped IPv6 among it), each by its numbers, then by port."""

    def keys(rows: Rows) -> Keys:
        words = np.ascontiguousarray(rows.table[address]).view(">u4").astype(np.uint32)
        v6 = np.asarray(rows.table["idiag_family"] == uapi.AF_INET6)
        mapped = v6 & (words[:, 0] == 0) & (words[:, 1] == 0) & (words[:, 2] == 0xFFFF)
        if mapped.any():
            v6 &= ~mapped
            words[mapped, 0], words[mapped, 2:] = words[mapped, 3], 0
        return v6, *words.T, rows.table[port]

    return keys


def _endpoints(address: str, port: str) -> Callable[[Rows], Values]:
    hosts = _addresses(address)

    def values(rows: Rows) -> Values:
        return list(zip(hosts(rows), rows.table[port].tolist(), strict=True))

    return values


def _show_endpoint(value: tuple[str, int], exact: bool) -> str:
    host, port = value
    host = "*" if host in ("0.0.0.0", "::") and not exact else host
    if port == 0:
        return text.endpoint(host, "*")
    return text.endpoint(host, port if exact else text.service(port))


def _timer_names(rows: Rows) -> Values:
    names = uapi.TIMER_NAMES
    return [names[min(t, len(names) - 1)] or None for t in rows.table["idiag_timer"].tolist()]


def _timer_seconds(rows: Rows) -> Values:
    running = rows.table["idiag_timer"].tolist()
    left = rows.table["idiag_expires"].tolist()
    return [ms / 1000 if t else None for t, ms in zip(running, left, strict=True)]


def _show_timer(value: tuple[str | None, float | None], exact: bool) -> str:
    name, seconds = value
    return f"{name} {text.duration(seconds)}" if name else ""


def _timers(rows: Rows) -> Values:
    return list(zip(_timer_names(rows), _timer_seconds(rows), strict=True))


def _timer_keys(rows: Rows) -> Keys:
    running = rows.table["idiag_timer"] != 0
    return (np.where(running, rows.table["idiag_expires"].astype(np.int64), -1),)


def _of_owner(pick: Callable[[processes.Owner], Any]) -> Callable[[Rows], Values]:
    def values(rows: Rows) -> Values:
        return [pick(rows.owners[code]) if code >= 0 else None for code in rows.owner.tolist()]

    return values


def _owner_keys(pick: Callable[[processes.Owner], Any]) -> Callable[[Rows], Keys]:
    """Owners are few and sockets many: rank the owners, then look the ranks up."""

    def keys(rows: Rows) -> Keys:
        picked = [pick(owner) for owner in rows.owners]
        distinct = {value: rank for rank, value in enumerate(sorted(set(picked)), 1)}
        ranks = np.zeros(len(picked) + 1, np.int32)  # the last one is where negative codes look
        ranks[:-1] = [distinct[value] for value in picked]
        return (ranks[np.maximum(rows.owner, -1)],)

    return keys


def _name(owner: processes.Owner) -> str:
    return owner.processes[0].name


def _pid(owner: processes.Owner) -> int:
    return owner.processes[0].pid


def _command(owner: processes.Owner) -> str:
    return owner.processes[0].command


WHY_UNKNOWN = {
    processes.UNKNOWN_NO_PROCESS: "no process: the kernel holds it",
    processes.UNKNOWN_NOT_LOOKED: "not looked up yet",
    processes.UNKNOWN_PERMISSION: "unknown: in a process that may not be looked into (root sees more)",
    processes.UNKNOWN_ELSEWHERE: "unknown: no process here holds it (another pid namespace, or the kernel)",
    processes.UNKNOWN_PROC: "unknown: /proc does not show all processes",
}
"""Why a socket has no owner to show."""

_SHORT_UNKNOWN = {
    processes.UNKNOWN_NO_PROCESS: "",
    processes.UNKNOWN_NOT_LOOKED: "…",
    processes.UNKNOWN_PERMISSION: "?",
    processes.UNKNOWN_ELSEWHERE: "?",
    processes.UNKNOWN_PROC: "?",
}


def _owner_cells(rows: Rows) -> Values:
    return [_owner_cell(rows, code) for code in rows.owner.tolist()]


def _owner_cell(rows: Rows, code: int) -> str:
    if code < 0:
        return _SHORT_UNKNOWN[code]
    first, *others = rows.owners[code].processes
    return f"{first.name}[{first.pid}]" + (f" +{len(others)}" if others else "")


def _unknown_reasons(rows: Rows) -> Values:
    return [None if code >= 0 else WHY_UNKNOWN[code] for code in rows.owner.tolist()]


def _uids(rows: Rows) -> Values:
    """Uid 0 of a socket that no process holds is no answer: half-open and TIME_WAIT sockets have no owner to tell.

    Orphans and those not yet accepted keep their uid on new kernels (6.18), and are said to be root's on older ones.
    """
    told = ((rows.table["idiag_inode"] != 0) | (rows.table["idiag_uid"] != 0)).tolist()
    return [uid if known else None for uid, known in zip(rows.table["idiag_uid"].tolist(), told, strict=True)]


def _users(rows: Rows) -> Values:
    return [None if uid is None else rows.users.get(uid) for uid in _uids(rows)]


def _show_user(value: tuple[int | None, str | None], exact: bool) -> str:
    uid, name = value
    if uid is None:
        return ""
    return str(uid) if exact or name is None else name


def _user_cells(rows: Rows) -> Values:
    return list(zip(_uids(rows), _users(rows), strict=True))


def _interfaces(rows: Rows) -> Values:
    indices = rows.table["idiag_if"].tolist()
    return [(rows.interfaces.get(i) or str(i)) if i else None for i in indices]


def _cgroups(rows: Rows) -> Values:
    told = (rows.table["has"] & uapi.HAS_CGROUP_ID).tolist()
    return [i if has else None for i, has in zip(rows.table["cgroup_id"].tolist(), told, strict=True)]


def _shutdowns(rows: Rows) -> Values:
    words = (None, "receive", "send", "both")
    told = (rows.table["has"] & uapi.HAS_SHUTDOWN).tolist()
    values = rows.table["shutdown"].tolist()
    return [words[v & 3] if has else None for v, has in zip(values, told, strict=True)]


def _from_enum(name: str, words: Sequence[str | None]) -> Callable[[Rows], Values]:
    def values(rows: Rows) -> Values:
        return [words[i] for i in getattr(rows, name).tolist()]

    return values


def _hot(name: str) -> Callable[[Rows], Keys]:
    def keys(rows: Rows) -> Keys:
        return (getattr(rows, name),)

    return keys


_PHASES = [FACTS[State(n)].phase.value if n in State._value2member_map_ else None for n in range(16)]


def _phases(rows: Rows) -> Values:
    return [_PHASES[s] for s in rows.state.tolist()]


def _ages(name: str) -> Callable[[Rows], Values]:
    def values(rows: Rows) -> Values:
        return [round(s, 3) for s in (rows.time - getattr(rows, name)).tolist()]

    return values


def _age_keys(name: str) -> Callable[[Rows], Keys]:
    def keys(rows: Rows) -> Keys:
        return (rows.time - getattr(rows, name),)

    return keys


def _age_cells(name: str) -> Callable[[Rows], Values]:
    """(age, whether it may be older: the flow was there when we came)."""
    ages = _ages(name)

    def values(rows: Rows) -> Values:
        older = ~rows.born & (getattr(rows, name) == rows.first_seen)
        return list(zip(ages(rows), older.tolist(), strict=True))

    return values


def _show_age(value: tuple[float, bool], exact: bool) -> str:
    seconds, older = value
    return f">{text.duration(seconds)}" if older else text.duration(seconds)


def _show_seconds(value: float | None, exact: bool) -> str:
    return text.duration(value)


def _show_size(value: int | None, exact: bool) -> str:
    return text.size(value, exact)


_RQUEUE, _WQUEUE = _field("idiag_rqueue"), _field("idiag_wqueue")
_SPORT, _DPORT = _field("idiag_sport"), _field("idiag_dport")
_RETRANS, _INODE = _field("idiag_retrans"), _field("idiag_inode")
_UID = _uids, _field("idiag_uid")[1]
_SRC, _DST = _addresses("idiag_src"), _addresses("idiag_dst")
_LOCAL = _address_keys("idiag_src", "idiag_sport")
_REMOTE = _address_keys("idiag_dst", "idiag_dport")
_CGROUP = _field("cgroup_id")
_IF = _field("idiag_if")
_TIMER_NAME = _timer_names, _field("idiag_timer")[1]


def _state_keys(rows: Rows) -> Keys:
    return (_LIFE[rows.state],)


C = Column
COLUMNS: tuple[Column, ...] = (
    C("state", "State", "TCP state, RFC 9293's name", _states, _state_keys, _plain, 11, priority=0),
    C("local", "Local", "This host's address and port; * is any",
      _endpoints("idiag_src", "idiag_sport"), _LOCAL, _show_endpoint, 21, 26, 1, exported=False),
    C("remote", "Remote", "The other end's address and port",
      _endpoints("idiag_dst", "idiag_dport"), _REMOTE, _show_endpoint, 21, 26, 0, exported=False),
    C("local_address", "Local address", "This host's address; IPv4-mapped IPv6 is told as IPv4",
      _SRC, _LOCAL, _plain, 15, in_table=False),
    C("local_port", "Local port", "This host's port", *_SPORT, _plain, 5, in_table=False),
    C("remote_address", "Remote address", "The other end's address",
      _DST, _REMOTE, _plain, 15, in_table=False),
    C("remote_port", "Remote port", "The other end's port; 0 where there is none",
      *_DPORT, _plain, 5, in_table=False),
    C("recv_queue", "Recv-Q", "Bytes not yet read by the application (an unread FIN counts 1); "
      "LISTEN: connections that wait to be accepted", *_RQUEUE, _show_size, 6, 4, 2, True),
    C("send_queue", "Send-Q", "Bytes not yet acknowledged by the peer; "
      "LISTEN: limit of the accept queue", *_WQUEUE, _show_size, 6, 4, 4, True),
    C("owner", "Process", "Process that holds the socket, with pid; +n: n more hold it too; "
      "?: not visible (Enter says why)", _owner_cells, _owner_keys(lambda o: (_name(o), _pid(o))),
      _plain, 10, 14, 3, exported=False),
    C("timers", "Timer", "The timer that runs, and what is left of it",
      _timers, _timer_keys, _show_timer, 18, 0, 6, exported=False),
    C("timer", "Timer", "Timer that runs: on (retransmission), keepalive, timewait, persist "
      "(zero window)", *_TIMER_NAME,
      _plain, 9, in_table=False),
    C("timer_s", "Timer left", "Seconds until that timer expires",
      _timer_seconds, _timer_keys, _show_seconds, 8, in_table=False),
    C("retransmits", "Retr", "Retransmissions in a row without an answer; SYN_RCVD: SYN+ACKs "
      "repeated", *_RETRANS, _plain, 4, 0, 7, True),
    C("role", "Role", "client or server: server if the local port is a listener's",
      _from_enum("role", [r.word if r else None for r in Role]), _hot("role"), _plain, 8, 0, 8),
    C("state_age", "In state", "Time in this state since tcpwatch saw it; >: at least",
      _age_cells("since"), _age_keys("since"), _show_age, 10, 0, 5, True, exported=False),
    C("age", "Age", "Time since tcpwatch saw the flow first; >: at least, it was there before",
      _age_cells("first_seen"), _age_keys("first_seen"), _show_age, 10, 0, 10, True, False),
    C("uid", "Uid", "User id of the socket's owner", *_UID, _plain, 6, in_table=False),
    C("user", "User", "Name of that user", _users, _UID[1], _plain, 8, in_table=False),
    C("user_or_uid", "User", "User of the socket (n: number)",
      _user_cells, _UID[1], _show_user, 8, 4, 9, exported=False),
    C("closer", "Closed by", "Who sent the first FIN: local, peer or both",
      _from_enum("closer", [c.word if c else None for c in Closer]), _hot("closer"), _plain, 9, 0, 11),
    C("phase", "Phase", "Part of the connection's life: handshake, open or teardown",
      _phases, _state_keys, _plain, 9, 0, 16),
    C("pid", "Pid", "Process id; the lowest where several hold the socket",
      _of_owner(_pid), _owner_keys(_pid), _plain, 7, in_table=False),
    C("process", "Process", "That process's name", _of_owner(_name), _owner_keys(_name),
      _plain, 15, in_table=False),
    C("pids", "Pids", "All processes that hold the socket",
      _of_owner(lambda o: [p.pid for p in o.processes]), _owner_keys(_pid), _plain, 7, in_table=False),
    C("command", "Command", "Command line of the process",
      _of_owner(_command), _owner_keys(_command), _plain, 20, 40, 17),
    C("owner_unknown", "Owner unknown", "Why no process is shown, where none is",
      _unknown_reasons, _hot("owner"), _plain, 20, in_table=False),
    C("inode", "Inode", "Socket's inode; 0: no process holds it", *_INODE, _plain, 10, 0, 13, True),
    C("cookie", "Cookie", "The kernel's identity of the socket, for its whole life",
      lambda rows: rows.cookie.tolist(), _hot("cookie"), _plain, 10, 0, 14, True),
    C("interface", "If", "Interface that the socket is bound to",
      _interfaces, _IF[1], _plain, 8, 0, 15),
    C("cgroup_id", "Cgroup", "Id (inode) of the control group", _cgroups, _CGROUP[1], _plain, 8, 0, 12,
      True),
    C("shutdown", "Shutdown", "Direction that was shut down: receive, send or both",
      _shutdowns, _field("shutdown")[1], _plain, 8, 0, 18),
    C("age_s", "Age", "Seconds since tcpwatch saw the flow first",
      _ages("first_seen"), _age_keys("first_seen"), _show_seconds, 9, in_table=False),
    C("state_age_s", "In state", "Seconds in this state since tcpwatch saw it",
      _ages("since"), _age_keys("since"), _show_seconds, 9, in_table=False),
)  # fmt: skip

BY_KEY: dict[str, Column] = {column.key: column for column in COLUMNS}
EXPORTED: tuple[Column, ...] = tuple(c for c in COLUMNS if c.exported)
IN_TABLE: tuple[Column, ...] = tuple(c for c in COLUMNS if c.in_table)

MARK_SIGNS = {Mark.NONE: " ", Mark.NEW: "+", Mark.CHANGED: "~", Mark.CLOSED: "×"}
"""How a row's mark is shown, without colour."""

_UNTOLD_BY_PSUTIL = frozenset({
    "recv_queue", "send_queue", "timers", "timer", "timer_s", "retransmits", "uid", "user", "user_or_uid",
    "inode", "cookie", "interface", "cgroup_id", "shutdown",
})  # fmt: skip


def untold(source: str) -> frozenset[str]:
    """Keys of the columns that a source (SourceInfo.kind) cannot tell: what stands in the table there is no fact."""
    return _UNTOLD_BY_PSUTIL if source == "psutil" else frozenset()
