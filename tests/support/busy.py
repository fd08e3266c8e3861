"""A View of a busy web server: a SYN flood, a full accept queue, and a process with a hostile name."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

from tcpwatch.model.rules.engine import STEPS_IN, RuleEngine
from tcpwatch.model.states import STATE_ORDER, State
from tcpwatch.model.view import Gauge, View
from tests.support.views import Sock, make_view, shared, sock

HOSTILE = "[@click=app.quit]x[/]"

RATES = {
    "ActiveOpens": 61.0, "PassiveOpens": 47.0, "OutRsts": 0.1, "EstabResets": 0.0, "RetransSegs": 0.2,
    "OutSegs": 1000.0, "ListenOverflows": 38.0, "ListenDrops": 38.0, "SyncookiesSent": 0.0, "TCPTimeouts": 1.0,
}  # fmt: skip


@shared
def busy_view(**overrides: Any) -> View:
    """The View; any field may be overridden."""
    facts: dict[str, Any] = {
        "step": 2,
        "state_trend": _trend(),
        "rates": RATES,
        "count_rates": {**dict.fromkeys(STATE_ORDER, 0.0), State.SYN_RCVD: 120.0, State.ESTABLISHED: -14.0},
        "port_usage": Gauge(17_503, 28_232),
        "orphans": Gauge(None, None),
        "memory_pages": Gauge(3_120, 189_540),
    }
    return make_view(*_socks(), **{**facts, **overrides})


@shared
def sick_view(**overrides: Any) -> View:
    """The same host with what the rules make of it, a flood besides."""
    flood = {"TCPReqQFullDoCookies": 900.0, "SyncookiesSent": 900.0, "SyncookiesRecv": 3.0}
    view = busy_view(rates={**RATES, **flood}, syn_arrivals_per_s=1_200.0)
    full = [sock("LISTEN", "0.0.0.0:8443", cookie=90_000, process="haproxy", pid=900, send_queue=16)]
    full += [
        sock("SYN_RCVD", "10.0.0.1:8443", f"192.0.2.{at}:9", cookie=90_001 + at, retransmits=1) for at in range(17)
    ]
    flooded = make_view(*full, syn_arrivals_per_s=1_200.0)
    view = replace(
        view, listeners=(*view.listeners, *flooded.listeners), half_open_by_listener=flooded.half_open_by_listener
    )
    diagnosis = RuleEngine()
    return replace(view, findings=[diagnosis.step(view) for _ in range(STEPS_IN)][-1], **overrides)


@cache
def _socks() -> tuple[Sock, ...]:
    counts = {State.SYN_RCVD: 300, State.ESTABLISHED: 820, State.TIME_WAIT: 409, State.FIN_WAIT_1: 1}
    return (*_listeners(), *(s for state, count in counts.items() for s in _many(state, count)))


def _listeners() -> list[Sock]:
    return [
        sock("LISTEN", "0.0.0.0:443", process="nginx", pid=1234, recv_queue=513, send_queue=512),
        sock("LISTEN", "0.0.0.0:22", process="sshd", pid=700, send_queue=128),
        sock("LISTEN", "[::]:8080", process="日本語サーバ", pid=801, recv_queue=3, send_queue=4096),
        sock("LISTEN", "127.0.0.1:5432", process=HOSTILE, pid=802, send_queue=244),
    ]


def _many(state: State, count: int) -> list[Sock]:
    return [sock(state, "10.0.0.1:443", f"10.0.{at % 7}.9:{4000 + at}") for at in range(count)]


def _trend() -> dict[State, tuple[float, ...]]:
    trend: dict[State, tuple[float, ...]] = dict.fromkeys(STATE_ORDER, (0.0,) * 120)
    trend[State.SYN_RCVD] = tuple(max(0.0, at - 80.0) * 7 for at in range(120))
    trend[State.ESTABLISHED] = tuple(600 + 220 * math.sin(at / 9) for at in range(120))
    trend[State.TIME_WAIT] = (math.nan,) * 60 + tuple(300.0 + at for at in range(60))
    return trend
