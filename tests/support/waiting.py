"""A View of listeners: a full accept queue, a SO_REUSEPORT group with one lazy member, a flooded SYN queue."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_analysis import QueueAnalysis
from tcpwatch.model.listeners.queue_detail import queue_detail
from tcpwatch.model.listeners.queue_history import QueueTrend
from tcpwatch.model.listeners.queue_limits import LimitSource
from tcpwatch.model.trends import TREND_S
from tcpwatch.model.view import View
from tests.support.busy import HOSTILE, RATES
from tests.support.polls import first_poll
from tests.support.views import NOW, Sock, make_rows, make_sample, make_view, sock

LISTENERS = (
    sock("LISTEN", "0.0.0.0:443", process="nginx", pid=1234, recv_queue=513, send_queue=512, cookie=1),
    sock("LISTEN", "0.0.0.0:22", process="sshd", pid=700, send_queue=128, cookie=2),
    sock("LISTEN", "[::]:8080", process="日本語サーバ", pid=801, recv_queue=3, send_queue=4096, cookie=3),
    sock("LISTEN", "127.0.0.1:5432", process=HOSTILE, pid=802, send_queue=244, cookie=4),
    sock("LISTEN", "0.0.0.0:9000", process="app", pid=900, send_queue=4, cookie=5),
    sock("LISTEN", "0.0.0.0:9000", process="app", pid=901, recv_queue=5, send_queue=4, cookie=6),
    sock("LISTEN", "0.0.0.0:9000", process="app", pid=902, recv_queue=1, send_queue=4, cookie=7),
    sock("LISTEN", "[2001:db8:85a3:1:0:8a2e:a56f:ed]:8443", cookie=8, send_queue=4096, inode=4242),
)  # fmt: skip


def members() -> list[Sock]:
    """Inside :443 seven wait, two of them have given up, and there are half-open ones here and on a port of nobody."""
    wait = [
        sock("CLOSE_WAIT" if at % 3 == 2 else "ESTABLISHED", "10.0.0.1:443", f"203.0.113.{at}:{4000 + at}",
             recv_queue=517 * at, age_s=30 - at, begin_seen=at > 1, cookie=100 + at)
        for at in range(7)
    ]  # fmt: skip
    half_open = [
        sock("SYN_RCVD", "10.0.0.1:443", f"198.51.100.{at}:{5000 + at}", retransmits=at % 3, timer="on",
             timer_s=0.5 + at / 10, age_s=at / 2, begin_seen=at > 0, cookie=200 + at)
        for at in range(5)
    ]  # fmt: skip
    stray = [sock("SYN_RCVD", "10.0.0.1:7777", f"198.51.100.{at}:6000", timer="on", cookie=300 + at) for at in range(2)]
    return [*wait, *half_open, *stray]


_PER_S: dict[int, dict[str, Any]] = {
    1: {"accepted_per_s": 47.0, "drops_per_s": 38.2, "drops": 912, "syn_peak": 411, "waiting_s": 75.0,
        "waiting_is_minimum": True},
    3: {"accepted_per_s": 1250.0, "accept_peak": 2100},
}  # fmt: skip


def waiting_view(*more: Sock, step: int = 2, **overrides: Any) -> View:
    """The View; what comes from several polls is put in by hand."""
    socks = [*LISTENERS, *members(), *more]
    sample = make_sample(make_rows(socks, time=NOW + step - 1), sysctls={"somaxconn": 4096})
    view = make_view(*socks, step=step, **{"rates": RATES, "queue_trend": trend(), "sample": sample, **overrides})
    return view if "listeners" in overrides else replace(view, listeners=tuple(map(_with_rates, view.listeners)))


def _with_rates(listener: Listener) -> Listener:
    known: dict[str, Any] = {"accepted_per_s": 0.0, "drops_per_s": 0.0, **_PER_S.get(listener.cookie, {})}
    return replace(listener, **known)


def looked_into(view: View, port: int) -> View:
    """Return the View with the detail of the queues of this port."""
    key = next(listener.key for listener in view.listeners if listener.local_port == port)
    traffic = QueueAnalysis(0.8).step(first_poll(view.sample, view.rows)).facts
    row = traffic.waiting.row
    waits = replace(traffic.waiting, since=view.rows.first_seen[row], arrival_seen=view.rows.begin_seen[row])
    traffic = replace(traffic, waiting=waits)
    return replace(view, queue_detail=queue_detail(key, view.rows, traffic))


def trend() -> QueueTrend:
    """:443 fills up, then overflows; the lazy member of :9000 has been full for a minute."""
    at = np.arange(TREND_S)
    values = np.zeros((len(LISTENERS), TREND_S, 2), np.float32)
    values[0, :, 0] = np.minimum(513, np.maximum(0, at - 40) * 10)
    values[0, :, 1] = 200 + 200 * np.sin(at / 5)
    values[5, 60:, 0] = 5
    values[:, :20] = math.nan
    return QueueTrend({listener.cookie or 0: place for place, listener in enumerate(LISTENERS)}, values)


def somaxconn(view: View, cookie: int) -> View:
    """Return the View with the limit of this listener set by the host."""
    listeners = (
        replace(listener, accept_limit_source=LimitSource.SOMAXCONN) if listener.cookie == cookie else listener
        for listener in view.listeners
    )
    return replace(view, listeners=tuple(listeners))
