"""Histories, graphs and records made by hand, for the tests of the flow screen and its parts."""

from __future__ import annotations

import errno
import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.kernel.proc.process import Process
from tcpwatch.model.lifecycle.archive import RECORD, Archive
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.history import History, Moment, StatePeriod
from tcpwatch.model.lifecycle.transitions import Origin, Transition, TransitionKind
from tcpwatch.model.sockets.flow_graphs import FlowGraph
from tcpwatch.model.states import State
from tests.support.views import NOW, Sock, make_table

NAN = math.nan


def moment(before_s: float, origin: Origin = Origin.TRACE, slack_s: float | None = None) -> Moment:
    """A Moment so many seconds before NOW; polls are a second apart, unless given otherwise."""
    return Moment(NOW - before_s, origin, (1.0 if origin is Origin.POLL else 0.0) if slack_s is None else slack_s)


def state_periods(
    *begins: tuple[State, Moment], end: Moment | None = None, least: bool = False
) -> tuple[StatePeriod, ...]:
    """Periods that follow each other; `least`: the first began before the first sample."""
    ends = [*(begin for _, begin in begins[1:]), end]
    return tuple(
        StatePeriod(state, begin, until, least and at == 0)
        for at, ((state, begin), until) in enumerate(zip(begins, ends, strict=True))
    )


POLLED = History(
    state_periods((State.SYN_RCVD, moment(20, Origin.POLL)), (State.ESTABLISHED, moment(19, Origin.POLL))),
)
"""Open; seen by two polls."""

INCIDENTS = (
    Transition(NOW - 8.75, State.ESTABLISHED, None, Origin.TRACE, kind=TransitionKind.RETRANSMITTED),
    Transition(NOW - 8.25, State.ESTABLISHED, None, Origin.TRACE, kind=TransitionKind.RETRANSMITTED),
    Transition(NOW - 3.5, State.ESTABLISHED, None, Origin.TRACE, kind=TransitionKind.DROPPED, reason=17),
)
TRACED = History(
    state_periods(
        (State.SYN_SENT, moment(63.5)),
        (State.ESTABLISHED, moment(63.498)),
        (State.FIN_WAIT_1, moment(1.5)),
        (State.FIN_WAIT_2, moment(1.375)),
        (State.TIME_WAIT, moment(1.25)),
    ),
    INCIDENTS,
)
"""Closed by this end, in TIME_WAIT; in the trace."""

RESET = History(
    state_periods(
        (State.SYN_RCVD, moment(30.000_012)), (State.ESTABLISHED, moment(30.0)), end=moment(2.0),
    ),
    (Transition(NOW - 2.0, State.ESTABLISHED, None, Origin.TRACE, kind=TransitionKind.RESET_SENT, reason=2),),
)  # fmt: skip
"""Accepted, and reset by this end; in the trace."""

UNREACHABLE = History(
    state_periods((State.SYN_SENT, moment(4.0)), end=moment(2.5)),
    (
        Transition(NOW - 3.0, State.SYN_SENT, State.SYN_SENT, Origin.TRACE, kind=TransitionKind.RETRANSMITTED),
        Transition(NOW - 2.5, None, None, Origin.TRACE, kind=TransitionKind.ERROR, reason=errno.EHOSTUNREACH),
    ),
)
"""An ICMP error answered the second SYN; in the trace."""

BY_PEER = History(
    state_periods(
        (State.ESTABLISHED, moment(200, Origin.POLL, NAN)),
        (State.CLOSE_WAIT, moment(12, Origin.POLL)),
        (State.LAST_ACK, moment(5, Origin.POLL)),
        end=moment(4.25, Origin.EVENT),
        least=True,
    )
)
"""Closed by the peer; polled, with a destroy event of its end."""


def wave(slots: int = 90) -> FlowGraph:
    """The graph of a connection watched for so many seconds, with a gap after the first third."""
    at = range(slots)
    gap = range(slots // 3, slots // 3 + slots // 12)

    def values(value: Any) -> tuple[float, ...]:
        return tuple(NAN if i in gap else float(value(i)) for i in at)

    return FlowGraph(
        NOW - slots,
        1.0,
        rx_bytes_per_s=values(lambda i: max(0, 90_000 * math.sin(i / 9) + 20_000 * (i % 3))),
        tx_bytes_per_s=values(lambda i: 1_250_000 if 40 < i < 60 else 0),
        rtt_us=values(lambda i: 20_000 + 250 * (i % 17) + (60_000 if i > 70 else 0)),
        cwnd=values(lambda i: 10 + i % 30),
        recv_queue=values(lambda i: 0),
        send_queue=values(lambda i: 4096 * (i % 7)),
    )


def closed(
    flow: Sock, ending: Ending, state: State, info: dict[str, int] | None = None, **given: Any
) -> NDArray[np.void]:
    """An array with the record of a connection that began 30 s and ended 2 s before NOW."""
    record = np.zeros(1, RECORD)
    facts = {
        "cookie": flow.cookie, "begin": NOW - 30, "end": NOW - 2, "owner": 0 if flow.owner else flow.owner_code,
        "role": flow.role, "closer": flow.closer, "state": state, "ending": ending, "origin": Origin.EVENT,
        "seen": True, "row": make_table([replace(flow, interface="")])[0],
    }  # fmt: skip
    if info is not None:
        facts["info_bytes"] = uapi.TCP_INFO.itemsize
        for name, value in info.items():
            record["info"][f"tcpi_{name}"] = value
    for name, value in {**facts, **given}.items():
        record[name] = value
    return record


def archive_of(*records: NDArray[np.void], owners: tuple[Owner, ...] = ()) -> Archive:
    """Build an Archive of these records, oldest first."""
    return Archive(records=records, owners=owners)


OWNER = Owner((Process(12, "nginx", "/usr/sbin/nginx", 33, "www-data", NOW - 3600),))
__all__ = [
    "BY_PEER",
    "INCIDENTS",
    "NAN",
    "OWNER",
    "POLLED",
    "RESET",
    "TRACED",
    "archive_of",
    "closed",
    "moment",
    "state_periods",
    "wave",
]  # fmt: skip
