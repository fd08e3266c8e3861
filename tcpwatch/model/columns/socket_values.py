"""What the columns tell of a row: values for programs, sort keys, and text for people.

Each of these works on many rows at once. A value is what JSON shows, None where it is not known; a pair where the text
needs two facts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.arrays.address_words import address_halves, ipv4_numbers
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.proc import owner_finder
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import FACTS, STATE_ORDER, State

Values = list[Any]
Keys = tuple[NDArray[Any], ...]
"""Sort keys, the most important first."""


def plain(value: Any, exact: bool) -> str:
    """A value as it is."""
    return units.UNKNOWN if value is None else str(value)


def field(name: str) -> tuple[Callable[[Rows], Values], Callable[[Rows], Keys]]:
    """Values and sort keys of a field of the table."""

    def values(rows: Rows) -> Values:
        return list(rows.table[name].tolist())

    def keys(rows: Rows) -> Keys:
        return (rows.table[name],)

    return values, keys


def states(rows: Rows) -> Values:
    """RFC 9293's names."""
    names = {int(s): s.name for s in State}
    return [names[s] for s in rows.state.tolist()]


_LIFE = np.zeros(256, np.uint8)
for _rank, _state in enumerate(STATE_ORDER):
    _LIFE[_state] = _rank


def addresses(name: str) -> Callable[[Rows], Values]:
    """Text of an address field."""

    def values(rows: Rows) -> Values:
        raw = np.ascontiguousarray(rows.table[name]).tobytes()
        families = rows.table["idiag_family"].tolist()
        return [units.address(raw[16 * i : 16 * i + 16], f) for i, f in enumerate(families)]

    return values


def address_keys(address: str, port: str) -> Callable[[Rows], Keys]:
    """IPv4 first (IPv4-mapped IPv6 among it), each by its numbers, then by port."""

    def keys(rows: Rows) -> Keys:
        numbers, is_v4 = ipv4_numbers(rows.table[address], rows.table["idiag_family"] == uapi.AF_INET)
        high, low = address_halves(rows.table[address]).T
        return ~is_v4, np.where(is_v4, numbers, high), np.where(is_v4, 0, low), rows.table[port]

    return keys


def endpoints(address: str, port: str) -> Callable[[Rows], Values]:
    """Pairs of address and port."""
    hosts = addresses(address)

    def values(rows: Rows) -> Values:
        return list(zip(hosts(rows), rows.table[port].tolist(), strict=True))

    return values


def show_endpoint(value: tuple[str, int], exact: bool) -> str:
    """`192.0.2.1:https`; exact: `192.0.2.1:443`."""
    host, port = value
    host = "*" if host in ("0.0.0.0", "::") and not exact else host
    if port == 0:
        return units.endpoint(host, "*")
    return units.endpoint(host, port if exact else units.service(port))


def timer_names(rows: Rows) -> Values:
    """As ss(8) spells them; None where no timer runs."""
    names = uapi.TIMER_NAMES
    return [names[min(t, len(names) - 1)] or None for t in rows.table["idiag_timer"].tolist()]


def timer_seconds(rows: Rows) -> Values:
    """What is left of the timer that runs."""
    running = rows.table["idiag_timer"].tolist()
    left = rows.table["idiag_expires"].tolist()
    return [ms / 1000 if t else None for t, ms in zip(running, left, strict=True)]


def show_timer(value: tuple[str | None, float | None], exact: bool) -> str:
    """`keepalive 12 s`, empty where no timer runs."""
    name, seconds = value
    return f"{name} {units.duration(seconds)}" if name else ""


def timers(rows: Rows) -> Values:
    """Pairs of name and seconds left."""
    return list(zip(timer_names(rows), timer_seconds(rows), strict=True))


def timer_keys(rows: Rows) -> Keys:
    """By what is left; no timer comes first."""
    running = rows.table["idiag_timer"] != 0
    return (np.where(running, rows.table["idiag_expires"].astype(np.int64), -1),)


def owner_values(pick: Callable[[owner_finder.Owner], Any]) -> Callable[[Rows], Values]:
    """What `pick` says of each row's owner."""

    def values(rows: Rows) -> Values:
        return [pick(rows.owners[code]) if code >= 0 else None for code in rows.owner.tolist()]

    return values


def owner_keys(pick: Callable[[owner_finder.Owner], Any]) -> Callable[[Rows], Keys]:
    """Owners are few and sockets many: rank the owners, then look the ranks up."""

    def keys(rows: Rows) -> Keys:
        picked = [pick(owner) for owner in rows.owners]
        distinct = {value: rank for rank, value in enumerate(sorted(set(picked)), 1)}
        ranks = np.zeros(len(picked) + 1, np.int32)  # the last one is where negative codes look
        ranks[:-1] = [distinct[value] for value in picked]
        return (ranks[np.maximum(rows.owner, -1)],)

    return keys


def owner_name(owner: owner_finder.Owner) -> str:
    """Name of the process; the lowest pid's, where several hold the socket."""
    return owner.processes[0].name


def owner_pid(owner: owner_finder.Owner) -> int:
    """Its pid."""
    return owner.processes[0].pid


def owner_command(owner: owner_finder.Owner) -> str:
    """Its command line."""
    return owner.processes[0].command


WHY_UNKNOWN = {
    owner_finder.UNKNOWN_NO_PROCESS: "no process: the kernel holds it",
    owner_finder.UNKNOWN_NOT_LOOKED: "not looked up yet",
    owner_finder.UNKNOWN_PERMISSION: "unknown: in a process that may not be looked into (root sees more)",
    owner_finder.UNKNOWN_ELSEWHERE: "unknown: no process here holds it (another pid namespace, or the kernel)",
    owner_finder.UNKNOWN_PROC: "unknown: /proc does not show all processes",
}
"""Why a socket has no owner to show."""

_SHORT_UNKNOWN = {
    owner_finder.UNKNOWN_NO_PROCESS: "",
    owner_finder.UNKNOWN_NOT_LOOKED: "…",
    owner_finder.UNKNOWN_PERMISSION: "?",
    owner_finder.UNKNOWN_ELSEWHERE: "?",
    owner_finder.UNKNOWN_PROC: "?",
}


def owner_cells(rows: Rows) -> Values:
    """`nginx[1234] +3`, or a sign for why there is none."""
    return [_owner_cell(rows, code) for code in rows.owner.tolist()]


def _owner_cell(rows: Rows, code: int) -> str:
    if code < 0:
        return _SHORT_UNKNOWN[code]
    first, *others = rows.owners[code].processes
    return f"{first.name}[{first.pid}]" + (f" +{len(others)}" if others else "")


def unknown_reasons(rows: Rows) -> Values:
    """Why no process is told, where none is."""
    return [None if code >= 0 else WHY_UNKNOWN[code] for code in rows.owner.tolist()]


def uids(rows: Rows) -> Values:
    """Uid 0 of a socket that no process holds is no answer: half-open and TIME_WAIT sockets have no owner to tell.

    Orphans and those not yet accepted keep their uid on new kernels (6.18), and are said to be root's on older ones.
    """
    told = ((rows.table["idiag_inode"] != 0) | (rows.table["idiag_uid"] != 0)).tolist()
    return [uid if known else None for uid, known in zip(rows.table["idiag_uid"].tolist(), told, strict=True)]


def users(rows: Rows) -> Values:
    """Names of the users."""
    return [None if uid is None else rows.users.get(uid) for uid in uids(rows)]


def show_user(value: tuple[int | None, str | None], exact: bool) -> str:
    """Name, or number where it has none; empty where nobody holds the socket."""
    uid, name = value
    if uid is None:
        return ""
    return str(uid) if exact or name is None else name


def user_cells(rows: Rows) -> Values:
    """Pairs of uid and name."""
    return list(zip(uids(rows), users(rows), strict=True))


def interfaces(rows: Rows) -> Values:
    """Names of the interfaces that sockets are bound to."""
    indices = rows.table["idiag_if"].tolist()
    return [(rows.interfaces.get(i) or str(i)) if i else None for i in indices]


def cgroups(rows: Rows) -> Values:
    """Ids of the control groups."""
    told = (rows.table["has"] & uapi.HAS_CGROUP_ID).tolist()
    return [i if has else None for i, has in zip(rows.table["cgroup_id"].tolist(), told, strict=True)]


def shutdowns(rows: Rows) -> Values:
    """Directions that were shut down."""
    words = (None, "receive", "send", "both")
    told = (rows.table["has"] & uapi.HAS_SHUTDOWN).tolist()
    values = rows.table["shutdown"].tolist()
    return [words[v & 3] if has else None for v, has in zip(values, told, strict=True)]


def from_enum(name: str, words: Sequence[str | None]) -> Callable[[Rows], Values]:
    """Words for a column of small numbers."""

    def values(rows: Rows) -> Values:
        return [words[i] for i in getattr(rows, name).tolist()]

    return values


def hot(name: str) -> Callable[[Rows], Keys]:
    """Sort keys that are a column of Rows as it stands."""

    def keys(rows: Rows) -> Keys:
        return (getattr(rows, name),)

    return keys


_PHASES = [FACTS[State(n)].phase.value if n in State._value2member_map_ else None for n in range(16)]


def phases(rows: Rows) -> Values:
    """Parts of a connection's life."""
    return [_PHASES[s] for s in rows.state.tolist()]


def ages(name: str) -> Callable[[Rows], Values]:
    """Seconds since a moment that Rows remembers."""

    def values(rows: Rows) -> Values:
        return [round(s, 3) for s in (rows.time - getattr(rows, name)).tolist()]

    return values


def age_keys(name: str) -> Callable[[Rows], Keys]:
    """The same, to sort by."""

    def keys(rows: Rows) -> Keys:
        return (rows.time - getattr(rows, name),)

    return keys


def age_cells(name: str) -> Callable[[Rows], Values]:
    """(age, whether it may be older: the flow was there when we came)."""
    seconds = ages(name)

    def values(rows: Rows) -> Values:
        older = ~rows.begin_seen & (getattr(rows, name) == rows.first_seen)
        return list(zip(seconds(rows), older.tolist(), strict=True))

    return values


def show_age(value: tuple[float, bool], exact: bool) -> str:
    """`12 s`, `>12 s`."""
    seconds, older = value
    return f">{units.duration(seconds)}" if older else units.duration(seconds)


def show_seconds(value: float | None, exact: bool) -> str:
    """As units.duration."""
    return units.duration(value)


def show_size(value: int | None, exact: bool) -> str:
    """As units.size."""
    return units.size(value, exact)


def state_keys(rows: Rows) -> Keys:
    """By the order of a connection's life."""
    return (_LIFE[rows.state],)
