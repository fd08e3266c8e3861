"""Archives for tests, from readable specs of closed connections and of transitions. Times are seconds before NOW.

archive = make_archive(
    closed_flow(sock("CLOSE_WAIT", "10.0.0.1:80", "10.0.0.9:4", cookie=7, process="nginx"), 30, 2, Ending.BY_PEER),
    changes={7: traced(30, "SYN_RCVD", 29.9, "ESTAB", 2.5, "CLOSE_WAIT", 2, None)},
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
class ClosedFlow:
    """The spec of one closed connection; see `closed_flow`."""

    sock: Sock
    begin: float
    end: float
    ending: Ending
    given: Mapping[str, Any]


def closed_flow(
    sock: Sock, begin: float, end: float, ending: Ending = Ending.ORDERLY, info: Mapping[str, int] | None = None,
    **given: Any,
) -> ClosedFlow:  # fmt: skip
    """A connection that began and ended so many seconds before NOW, by the trace, unless `given` says otherwise.

    `info` is tcp_info without `tcpi_`; `given` are fields of archive.RECORD.
    """
    return ClosedFlow(sock, NOW - begin, NOW - end, ending, {**given, "info": info} if info is not None else given)


Change = tuple[float, State | None, State | None, Origin, float, TransitionKind]


def traced(*states: Any) -> list[Change]:
    """Changes in the trace: seconds before NOW, the state that began then (None: it closed), and so on."""
    return _changes(states, Origin.TRACE, 0.0)


def polled(*states: Any, slack_s: float = 1.0) -> list[Change]:
    """The same as `traced`, seen by polls that are `slack_s` apart."""
    return _changes(states, Origin.POLL, slack_s)


def incident(before_s: float, kind: TransitionKind) -> list[Change]:
    """A retransmission, a drop, or a reset."""
    return [(NOW - before_s, State.ESTABLISHED, None, Origin.TRACE, 0.0, kind)]


def _changes(states: Sequence[Any], origin: Origin, slack_s: float) -> list[Change]:
    changes: list[Change] = []
    old: State | None = None
    for before_s, name in zip(states[::2], states[1::2], strict=True):
        new = State.parse(name) if name is not None else None
        changes.append((NOW - before_s, old, new, origin, slack_s, TransitionKind.STATE))
        old = new
    return changes


def make_archive(*flows: ClosedFlow, changes: Mapping[int, Sequence[Change]] | None = None, chunks: int = 1) -> Archive:
    """Build an Archive of connections, oldest first, in so many chunks; their cookies must be given."""
    owners = list(dict.fromkeys(flow.sock.owner for flow in flows if flow.sock.owner is not None))
    records = np.zeros(len(flows), RECORD)
    for record, flow in zip(records, flows, strict=True):
        owner = flow.sock.owner
        facts: dict[str, Any] = {
            "cookie": flow.sock.cookie, "begin": flow.begin, "end": flow.end, "ending": flow.ending,
            "owner": owners.index(owner) if owner is not None else flow.sock.owner_code, "role": flow.sock.role,
            "closer": flow.sock.closer, "state": flow.sock.state, "origin": Origin.TRACE, "seen": True,
            "row": make_table([replace(flow.sock, interface="")])[0],
        }  # fmt: skip
        given = dict(flow.given)
        for name, value in given.pop("info", {}).items():
            record["info"][f"tcpi_{name}"] = value
            record["info_bytes"] = uapi.TCP_INFO.itemsize
        for name, value in {**facts, **given}.items():
            record[name] = value
    parts = tuple(part for part in np.array_split(records, chunks) if len(part))
    return Archive(records=parts, transitions=(transitions(changes or {}),), owners=owners, records_total=len(flows))


def transitions(changes: Mapping[int, Sequence[Change]]) -> NDArray[np.void]:
    """Build TRANSITION rows in the order of time."""
    rows = [
        (time, cookie, slack, 0, kind, old or 0, new or 0, origin)
        for cookie, each in changes.items()
        for time, old, new, origin, slack, kind in each
    ]
    return np.array(sorted(rows), TRANSITION)
