"""Pasts for tests, from readable specs: flows that closed, and what was told of flows. Times are seconds before NOW.

past = make_past(
    gone(sock("CLOSE_WAIT", "10.0.0.1:80", "10.0.0.9:4", cookie=7, process="nginx", pid=1), 30, 2, Ending.BY_PEER),
    told={7: traced(30, "SYN_RCVD", 29.9, "ESTAB", 2.5, "CLOSE_WAIT", 2, None)},
)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.netlink import uapi
from tcpwatch.model.lifecycle.archive import RECORD, Archive
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.transitions import TRANSITION, Origin, TransitionKind
from tcpwatch.model.states import State
from tests.support.views import NOW, Sock, make_table


@dataclass(frozen=True, slots=True)
class Gone:
    """One closed flow's spec; see `gone`."""

    sock: Sock
    begin: float
    end: float
    ending: Ending
    given: Mapping[str, Any]


def gone(
    sock: Sock, begin: float, end: float, ending: Ending = Ending.ORDERLY, info: Mapping[str, int] | None = None,
    **given: Any,
) -> Gone:  # fmt: skip
    """A flow that began and ended so many seconds before NOW; the trace knows both, unless `given` says otherwise.

    `info` is tcp_info without `tcpi_`; `given` are fields of past.CLOSED.
    """
    return Gone(sock, NOW - begin, NOW - end, ending, {**given, "info": info} if info is not None else given)


Told = tuple[float, State | None, State | None, Origin, float, TransitionKind]


def traced(*told: Any) -> list[Told]:
    """Seconds before NOW, the state that began then (None: none, it closed), and so on; by the trace."""
    return _told(told, Origin.TRACE, 0.0)


def polled(*told: Any, slack_s: float = 1.0) -> list[Told]:
    """The same by polls, so many seconds apart."""
    return _told(told, Origin.POLL, slack_s)


def incident(before_s: float, what: TransitionKind) -> list[Told]:
    """A repeat, a drop, or a reset."""
    return [(NOW - before_s, State.ESTABLISHED, None, Origin.TRACE, 0.0, what)]


def _told(told: Sequence[Any], origin: Origin, slack_s: float) -> list[Told]:
    found: list[Told] = []
    old: State | None = None
    for before_s, name in zip(told[::2], told[1::2], strict=True):
        new = State.parse(name) if name is not None else None
        found.append((NOW - before_s, old, new, origin, slack_s, TransitionKind.STATE))
        old = new
    return found


def make_past(*flows: Gone, told: Mapping[int, Sequence[Told]] | None = None, chunks: int = 1) -> Archive:
    """These flows, oldest first, in so many chunks; their cookies must be given."""
    owners = list(dict.fromkeys(one.sock.owner for one in flows if one.sock.owner is not None))
    records = np.zeros(len(flows), RECORD)
    for record, one in zip(records, flows, strict=True):
        owner = one.sock.owner
        facts: dict[str, Any] = {
            "cookie": one.sock.cookie, "begin": one.begin, "end": one.end, "ending": one.ending,
            "owner": owners.index(owner) if owner is not None else one.sock.owner_code, "role": one.sock.role,
            "closer": one.sock.closer, "state": one.sock.state, "origin": Origin.TRACE, "seen": True,
            "row": make_table([replace(one.sock, interface="")])[0],
        }  # fmt: skip
        given = dict(one.given)
        for name, value in given.pop("info", {}).items():
            record["info"][f"tcpi_{name}"] = value
            record["info_bytes"] = uapi.TCP_INFO.itemsize
        for name, value in {**facts, **given}.items():
            record[name] = value
    parts = tuple(part for part in np.array_split(records, chunks) if len(part))
    return Archive(records=parts, transitions=(transitions(told or {}),), owners=owners, records_total=len(flows))


def transitions(told: Mapping[int, Sequence[Told]]) -> NDArray[np.void]:
    """transitions.TRANSITION, in the order of time."""
    rows = [
        (time, cookie, slack, 0, what, old or 0, new or 0, origin)
        for cookie, each in told.items()
        for time, old, new, origin, slack, what in each
    ]
    return np.array(sorted(rows), TRANSITION)
