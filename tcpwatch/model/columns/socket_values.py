"""Values, sort keys and texts of the columns of a socket.

Functions of values and keys work on many rows at once. A value is as in JSON, None where it is unknown, or a pair where
the text needs two facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.arrays.address_words import address_halves, ipv4_numbers
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.proc import owner_finder
from tcpwatch.model.sockets.rows import Mark, Rows
from tcpwatch.model.states import FACTS, STATE_ORDER, State

Values = list[Any]
Keys = tuple[NDArray[Any], ...]
"""Sort keys, the most important first."""


def plain(value: Any, exact: bool) -> str:
    """Return the value as text, without formatting."""
    return units.UNKNOWN if value is None else str(value)


def field(name: str) -> tuple[Callable[[Rows], Values], Callable[[Rows], Keys]]:
    """Return values and sort keys of a field of uapi.SOCKET."""
    return lambda rows: list(rows.table[name].tolist()), lambda rows: (rows.table[name],)


def states(rows: Rows) -> Values:
    """Return RFC 9293's names of the states."""
    names = {int(s): s.name for s in State}
    return [names[s] for s in rows.state.tolist()]


_RANK = np.zeros(256, np.uint8)
for _place, _state in enumerate(STATE_ORDER):
    _RANK[_state] = _place


def addresses(name: str) -> Callable[[Rows], Values]:
    """Return the values of an address field."""

    def values(rows: Rows) -> Values:
        raw = np.ascontiguousarray(rows.table[name]).tobytes()
        families = rows.table["idiag_family"].tolist()
        ends = [(raw[16 * i : 16 * i + 16], f) for i, f in enumerate(families)]
        texts = {end: units.address(*end) for end in set(ends)}
        return [texts[end] for end in ends]

    return values


def address_keys(address: str, port: str) -> Callable[[Rows], Keys]:
    """Return sort keys by address, then by port; IPv4 and IPv4-mapped IPv6 addresses come first."""

    def keys(rows: Rows) -> Keys:
        numbers, is_v4 = ipv4_numbers(rows.table[address], rows.table["idiag_family"] == uapi.AF_INET)
        high, low = address_halves(rows.table[address]).T
        return ~is_v4, np.where(is_v4, numbers, high), np.where(is_v4, 0, low), rows.table[port]

    return keys


def endpoints(address: str, port: str) -> Callable[[Rows], Values]:
    """Return pairs of address and port."""
    hosts = addresses(address)
    return lambda rows: list(zip(hosts(rows), rows.table[port].tolist(), strict=True))


def local_endpoints(rows: Rows) -> Values:
    """Return address, port and interface of the local ends; the interface is empty where the socket is not bound."""
    pairs, names = endpoints("idiag_src", "idiag_sport")(rows), interfaces(rows)
    return [(*pair, name or "") for pair, name in zip(pairs, names, strict=True)]


def show_endpoint(value: tuple[str, int] | tuple[str, int, str], exact: bool) -> str:
    """Return `192.0.2.1:https`; exact: `192.0.2.1:443`; with an interface `192.0.2.1%eth0:https`."""
    host, port, *device = value
    host = "*" if host in ("0.0.0.0", "::") and not exact else host
    if port == 0:
        return units.endpoint(host, "*", *device)
    return units.endpoint(host, port if exact else units.service(port), *device)


def timer_names(rows: Rows) -> Values:
    """Return the names of the running timers as ss(8) spells them; None without a timer."""
    names = uapi.TIMER_NAMES
    return [names[min(t, len(names) - 1)] or None for t in rows.table["idiag_timer"].tolist()]


def timer_seconds(rows: Rows) -> Values:
    """Return the seconds until the running timers expire; None without a timer."""
    kinds, left_ms = rows.table["idiag_timer"].tolist(), rows.table["idiag_expires"].tolist()
    return [ms / 1000 if kind else None for kind, ms in zip(kinds, left_ms, strict=True)]


def show_timer(value: tuple[str | None, float | None], exact: bool) -> str:
    """Return `keepalive 12 s`; empty without a timer."""
    name, seconds = value
    return f"{name} {units.duration(seconds)}" if name else ""


def timers(rows: Rows) -> Values:
    """Return pairs of name and seconds left."""
    return list(zip(timer_names(rows), timer_seconds(rows), strict=True))


def timer_keys(rows: Rows) -> Keys:
    """Return sort keys by the time left; sockets without a timer come first."""
    running = rows.table["idiag_timer"] != 0
    return (np.where(running, rows.table["idiag_expires"].astype(np.int64), -1),)


def owner_values(pick: Callable[[owner_finder.Owner], Any]) -> Callable[[Rows], Values]:
    """Return `pick` of the owner of each row; None without a known owner, or if it is one of several processes."""
    return lambda rows: [pick(owner) if owner and holds else None for owner, holds in _owners(rows)]


def process_names(rows: Rows) -> Values:
    """Return the name of the first process, or the one that all processes have of which one accepted the connection."""
    return [
        None if owner is None else owner.processes[0].name if holds else owner.common_name
        for owner, holds in _owners(rows)
    ]


def _owners(rows: Rows) -> Iterator[tuple[owner_finder.Owner | None, bool]]:
    """Yield the owner of each row, None if it is unknown, and whether all of its processes hold the socket."""
    listens = (rows.state == State.LISTEN).tolist()
    for code, listening in zip(rows.owner.tolist(), listens, strict=True):
        owner = rows.owners[code] if code >= 0 else None
        yield owner, owner is not None and (listening or owner.accepting is None)


def acceptors(rows: Rows) -> Values:
    """Return the pids of the processes that are certain to accept connections, ascending; None of other sockets."""
    of_owner = owner_values(lambda owner: sorted(process.pid for process in owner.acceptors) or None)(rows)
    listens = (rows.state == State.LISTEN).tolist()
    return [pids if listening else None for pids, listening in zip(of_owner, listens, strict=True)]


def owner_keys(pick: Callable[[owner_finder.Owner], Any]) -> Callable[[Rows], Keys]:
    """Return sort keys by `pick` of the owners: owners are few, so rank them and look up the rank of each row."""

    def keys(rows: Rows) -> Keys:
        picked = [pick(owner) for owner in rows.owners]
        distinct = {value: rank for rank, value in enumerate(sorted(set(picked)), 1)}
        ranks = np.zeros(len(picked) + 1, np.int32)  # the last one is for negative codes
        ranks[:-1] = [distinct[value] for value in picked]
        return (ranks[np.maximum(rows.owner, -1)],)

    return keys


def first_process(name: str) -> tuple[Callable[[Rows], Values], Callable[[Rows], Keys]]:
    """Return values and sort keys of a field of the first process of all that hold the socket; see Owner."""
    pick = attrgetter(name)
    return owner_values(lambda owner: pick(owner.processes[0])), owner_keys(lambda owner: pick(owner.processes[0]))


WHY_UNKNOWN = {
    owner_finder.UNKNOWN_NO_PROCESS: "(kernel, no process)",
    owner_finder.UNKNOWN_NOT_LOOKED: "not looked up yet",
    owner_finder.UNKNOWN_PERMISSION: "unknown: not all processes can be read (root can)",
    owner_finder.UNKNOWN_ELSEWHERE: "unknown: no visible process holds it (another pid namespace, or the kernel)",
    owner_finder.UNKNOWN_PROC: "unknown: /proc hides some processes",
}
"""Code of an unknown owner → the reason."""


def why_unknown(code: int, is_closed: bool) -> str:
    """Return the reason for this code; the owner of a closed connection is never looked up later."""
    return "unknown" if is_closed and code == owner_finder.UNKNOWN_NOT_LOOKED else WHY_UNKNOWN[code]


def owner_cells(rows: Rows) -> Values:
    """Return the owners as text, or a sign for why there is no owner."""
    marks = list(zip(rows.owner.tolist(), (rows.mark == Mark.CLOSED).tolist(), strict=True))
    texts = {
        (code, is_closed): owner_text(rows.owners[code]) if code >= 0 else _short_unknown(code, is_closed)
        for code, is_closed in set(marks)
    }
    return [texts[mark] for mark in marks]


def _short_unknown(code: int, is_closed: bool) -> str:
    if code == owner_finder.UNKNOWN_NO_PROCESS:
        return ""
    return "…" if code == owner_finder.UNKNOWN_NOT_LOOKED and not is_closed else "?"


def owner_text(owner: owner_finder.Owner) -> str:
    """Return `nginx[1234] +3`: the first process, and how many more hold the socket; see Owner."""
    first, *others = owner.processes
    return first.label + (f" +{len(others)}" if others else "")


def unknown_reasons(rows: Rows) -> Values:
    """Return the reasons for unknown owners; None for known ones."""
    marks = zip(rows.owner.tolist(), (rows.mark == Mark.CLOSED).tolist(), strict=True)
    return [None if code >= 0 else why_unknown(code, is_closed) for code, is_closed in marks]


def uids(rows: Rows) -> Values:
    """Return the user ids; None for uid 0 without an inode, which the kernel reports for sockets without an owner.

    These are half-open and TIME_WAIT sockets, and with older kernels also orphans and sockets not yet accepted, which
    keep their uid on new ones (6.18).
    """
    known = ((rows.table["idiag_inode"] != 0) | (rows.table["idiag_uid"] != 0)).tolist()
    return [uid if has_uid else None for uid, has_uid in zip(rows.table["idiag_uid"].tolist(), known, strict=True)]


def users(rows: Rows) -> Values:
    """Return the names of the users."""
    return [None if uid is None else rows.users.get(uid) for uid in uids(rows)]


def show_user(value: tuple[int | None, str | None], exact: bool) -> str:
    """Return the user's name, or the uid if it has none; empty without an owner."""
    uid, name = value
    if uid is None:
        return ""
    return str(uid) if exact or name is None else name


def user_cells(rows: Rows) -> Values:
    """Return pairs of uid and name."""
    return list(zip(uids(rows), users(rows), strict=True))


def interfaces(rows: Rows) -> Values:
    """Return the names of the interfaces that sockets are bound to."""
    indices = rows.table["idiag_if"].tolist()
    return [(rows.interfaces.get(i) or str(i)) if i else None for i in indices]


def cgroups(rows: Rows) -> Values:
    """Return the ids of the control groups."""
    known = (rows.table["has"] & uapi.HAS_CGROUP_ID).tolist()
    return [i if has else None for i, has in zip(rows.table["cgroup_id"].tolist(), known, strict=True)]


def shutdowns(rows: Rows) -> Values:
    """Return the directions that were shut down."""
    words = (None, "receive", "send", "both")
    known = (rows.table["has"] & uapi.HAS_SHUTDOWN).tolist()
    return [words[v & 3] if has else None for v, has in zip(rows.table["shutdown"].tolist(), known, strict=True)]


def from_enum(name: str, words: Sequence[str | None]) -> Callable[[Rows], Values]:
    """Return the words for a column of Rows that holds small numbers."""
    return lambda rows: [words[i] for i in getattr(rows, name).tolist()]


def hot(name: str) -> Callable[[Rows], Keys]:
    """Return a column of Rows as sort keys."""
    return lambda rows: (getattr(rows, name),)


_PHASES = [FACTS[State(n)].phase.value if n in State._value2member_map_ else None for n in range(16)]


def phases(rows: Rows) -> Values:
    """Return the phases of the connections."""
    return [_PHASES[s] for s in rows.state.tolist()]


def ages(name: str) -> Callable[[Rows], Values]:
    """Return the seconds since the time in a column of Rows; None where tcpwatch has just seen an older flow."""

    def values(rows: Rows) -> Values:
        first_look = (~rows.begin_seen & (rows.first_seen >= rows.time)).tolist()
        seconds = (rows.time - getattr(rows, name)).tolist()
        return [None if unknown else round(s, 3) for s, unknown in zip(seconds, first_look, strict=True)]

    return values


def age_keys(name: str) -> Callable[[Rows], Keys]:
    """Return sort keys for `ages`."""
    return lambda rows: (rows.time - getattr(rows, name),)


def age_cells(name: str) -> Callable[[Rows], Values]:
    """Return pairs of the age, and whether it is a minimum because the flow is older than tcpwatch."""

    def values(rows: Rows) -> Values:
        older = ~rows.begin_seen & (getattr(rows, name) == rows.first_seen)
        return list(zip((rows.time - getattr(rows, name)).tolist(), older.tolist(), strict=True))

    return values


def show_age(value: tuple[float, bool], exact: bool) -> str:
    """Return `12 s`, or `>12 s` for a minimum."""
    seconds, older = value
    return f">{units.duration(seconds)}" if older else units.duration(seconds)


def show_seconds(value: float | None, exact: bool) -> str:
    """Return units.duration of the value."""
    return units.duration(value)


def state_keys(rows: Rows) -> Keys:
    """Return sort keys by STATE_ORDER."""
    return (_RANK[rows.state],)
