"""A View of connections in all states, live and closed, for the tests of the timelines."""

from __future__ import annotations

import math
from typing import Any

from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.trace.stats import TraceStats
from tcpwatch.model.lifecycle.transitions import Origin, TransitionKind
from tcpwatch.model.view import View
from tests.support.records import closed_flow, incident, make_archive, polled, traced
from tests.support.views import Sock, make_view, sock

SERVER = {"process": "nginx", "pid": 1234, "role": "server"}


def _served(state: str, cookie: int, **given: Any) -> Sock:
    return sock(state, "10.0.0.1:443", f"203.0.113.{cookie}:{40_000 + cookie}", cookie=cookie, **{**SERVER, **given})


LIVE = (
    sock("LISTEN", "0.0.0.0:443", process="nginx", pid=1234, role="listener", cookie=1, age_s=9e5, begin_seen=False),
    _served("ESTABLISHED", 2, age_s=45),
    _served("SYN_RCVD", 3, process=None, age_s=3, mark="new"),
    sock("ESTABLISHED", "10.0.0.1:51234", "10.0.0.7:5432", process="app", pid=77, role="client", cookie=4, age_s=3600,
         begin_seen=False),
    _served("TIME_WAIT", 5, process=None, closer="local", age_s=40, state_age_s=12),
    sock("CLOSE_WAIT", "[2001:db8::10]:443", "[2001:db8:85a3:1:0:8a2e:a56f:ed]:57189", process="nginx", pid=1234,
         role="server", cookie=6, age_s=30, state_age_s=9),
    _served("FIN_WAIT_2", 7, process=None, age_s=20, state_age_s=5, closer="local"),
)  # fmt: skip
CLOSED = (
    closed_flow(_served("TIME_WAIT", 5), 40, 12.5, Ending.BY_US, {"bytes_received": 1_234, "bytes_acked": 98_765}),
    closed_flow(_served("ESTABLISHED", 11), 52, 34, Ending.RESET_RECEIVED, {"bytes_received": 10, "bytes_acked": 20}),
    closed_flow(_served("ESTABLISHED", 12), 25.002, 25, Ending.BY_PEER,
                {"bytes_received": 400, "bytes_acked": 5_000_000}),
    closed_flow(sock("SYN_SENT", "10.0.0.1:51240", "10.0.0.8:5432", process="app", pid=77, role="client", cookie=13),
                50, 15, Ending.TIMED_OUT, origin=Origin.EVENT, end_slack=0.5),
    closed_flow(_served("LAST_ACK", 14), 22, 6, Ending.BY_PEER, origin=Origin.EVENT, begin_slack=1.0, end_slack=1.0),
    closed_flow(sock("ESTABLISHED", "10.0.0.1:8080", "198.51.100.4:6000", cookie=15, role="server"), 18, 18,
                Ending.UNKNOWN, origin=Origin.POLL, begin_slack=math.nan, end_slack=1.0),
)  # fmt: skip
CHANGES = {
    2: [
        *traced(45, "SYN_RCVD", 44.9, "ESTAB"),
        *incident(20, TransitionKind.RETRANSMITTED),
        *incident(19.9, TransitionKind.RETRANSMITTED),
    ],
    3: polled(3, "SYN_RCVD"),
    5: traced(40, "SYN_RCVD", 39.9, "ESTAB", 12.6, "FIN_WAIT_1", 12.55, "FIN_WAIT_2", 12.5, "TIME_WAIT"),
    6: polled(30, "ESTAB", 9, "CLOSE_WAIT"),
    7: traced(20, "SYN_RCVD", 19.99, "ESTAB", 6, "FIN_WAIT_1", 5, "FIN_WAIT_2"),
    11: traced(52, "SYN_RCVD", 51.99, "ESTAB", 34, None),
    12: traced(25.002, "SYN_RCVD", 25.0018, "ESTAB", 25.0006, "CLOSE_WAIT", 25.0002, "LAST_ACK", 25, None),
    13: traced(50, "SYN_SENT"),
    14: polled(22, "ESTAB", 10, "CLOSE_WAIT", 7, "LAST_ACK", 6, None),
}


def living(step: int = 1, *more: Sock, **overrides: Any) -> View:
    """Build a View of the connections above at NOW, and of some `more` live ones."""
    facts = {"archive": make_archive(*CLOSED, changes=CHANGES, chunks=2), "trace": TraceStats(on=True)}
    return make_view(*LIVE, *more, step=step, **{**facts, **overrides})
