"""The host of the golden outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NO_PROCESS, UNKNOWN_PERMISSION, Owner
from tcpwatch.kernel.proc.process import Process
from tcpwatch.model.lifecycle.archive import RECORD, Archive
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.trace.stats import TraceStats
from tcpwatch.model.lifecycle.transitions import TRANSITION, Origin, TransitionKind
from tcpwatch.model.listeners.queue_limits import UNKNOWN_QUEUE, Queue
from tcpwatch.model.states import State
from tcpwatch.model.view import View
from tcpwatch.sample import Completeness, SourceInfo
from tcpwatch.sources.psutil import PSUTIL_CAPABILITIES
from tests.support.views import NOW, Sock, make_rows, make_view, sock


def small_host(*, kind: str = "sock_diag", complete: bool = True) -> View:
    """A web server with every kind of row that the formats treat in a way of its own."""
    view = make_view(
        sock("TIME-WAIT", "10.0.0.1:80", "10.0.0.9:50001", timer="timewait", timer_s=41.5, role="server", uid=0),
        sock("ESTAB", "10.0.0.1:80", "10.0.0.8:50000", process="nginx", pid=12, also=[(13, "nginx")], inode=77,
             command="nginx: worker process", recv_queue=1536, timer="keepalive", timer_s=7200, uid=33,
             user="www-data", role="server", cgroup_id=99, age_s=1.5, interface="eth0", shutdown=1),
        sock("ESTAB", "[2001:db8::1]:40000", "[2001:db8::2]:5432", owner_code=UNKNOWN_PERMISSION, uid=1000, user=None,
             inode=78, role="client", send_queue=7, timer="on", timer_s=0.2, retransmits=3),
        sock("ESTAB", "10.0.0.1:80", "10.0.0.7:50000", process='a,"b"\\x1b', pid=14, inode=79, role="server"),
        sock("SYN-RECV", "10.0.0.1:80", "10.0.0.6:4000", timer="on", timer_s=0.9, role="server"),
        sock("LISTEN", "0.0.0.0:80", process="nginx", pid=12, inode=70, send_queue=511, recv_queue=512,
             role="listener"),
        sock("CLOSED", "127.0.0.1:9999", "0.0.0.0:0"),
    )  # fmt: skip
    listener = replace(view.listeners[0], syn_queue=Queue(1, 511), drops=38)
    if kind == "psutil":
        listener = replace(listener, accept_queue=UNKNOWN_QUEUE, syn_queue=Queue(1, None))
    source = SourceInfo("psutil", "user") if kind == "psutil" else SourceInfo("sock_diag", "root")
    completeness = Completeness(interrupted=not complete, reasons=("no queues",) if kind == "psutil" else ())
    counters = {"ActiveOpens": 5, "CurrEstab": 3, "ListenOverflows": 38}
    sample = replace(view.sample, source=source, completeness=completeness, counters=counters)
    if kind == "psutil":
        sample = replace(sample, capabilities=PSUTIL_CAPABILITIES)
    return replace(view, sample=sample, listeners=(listener,))


WORKER = Owner((Process(12, "nginx", "nginx: worker process", 33, "www-data", NOW - 3600),))


def transitions(*rows: dict[str, Any]) -> Any:
    """Rows of TRANSITION: changes of state reported by the trace by default."""
    made = np.zeros(len(rows), TRANSITION)
    for row, facts in zip(made, rows, strict=True):
        for name, value in {"kind": TransitionKind.STATE, "origin": Origin.TRACE, **facts}.items():
            row[name] = value
    return made


def closed(flow: Sock, ending: Ending, owner: int = UNKNOWN_NO_PROCESS) -> Any:
    """Return the record of this connection."""
    record = np.zeros(1, RECORD)
    rows = make_rows([flow])
    record["cookie"], record["row"], record["state"] = rows.cookie, rows.table, rows.state
    record["ending"], record["owner"] = ending, owner
    return record


def two_views() -> tuple[View, View]:
    """Return two Views: a connection closed by this end, one that no poll saw, and the end of an unknown one.

    The first is in TIME_WAIT, so that only its record has the owner.
    """
    live = sock("TIME-WAIT", "10.0.0.1:80", "10.0.0.8:50000", cookie=5)
    unseen = sock("LAST-ACK", "[2001:db8::1]:80", "[2001:db8::2]:4000", cookie=7)
    first = transitions(
        {"time": NOW + 0.25, "cookie": 5, "old": State.ESTABLISHED, "new": State.FIN_WAIT_1},
        {"time": NOW + 0.125, "cookie": 5, "old": State.SYN_RCVD, "new": State.ESTABLISHED},
    )
    second = transitions(
        {"time": NOW + 0.5, "cookie": 5, "old": State.FIN_WAIT_2, "new": State.CLOSED},
        {"time": NOW + 1.0, "cookie": 7, "old": State.LAST_ACK, "origin": Origin.POLL, "slack": 0.2},
        {"time": NOW + 2.0, "cookie": 9, "old": State.TIME_WAIT, "origin": Origin.POLL, "slack": np.nan},
    )
    records = (closed(live, Ending.BY_US, 3), closed(unseen, Ending.BY_PEER))
    known: dict[str, Any] = {"owners": [WORKER], "owners_from": 3, "records": records}
    trace = TraceStats(on=True, reset_reasons={11: "TCP_ABORT_ON_CLOSE"}, drop_reasons={2: "TCP_LISTEN_OVERFLOW"})
    before = make_view(live, archive=Archive(transitions=(first,), transitions_total=2, **known), trace=trace)
    archive = Archive(transitions=(first, second), transitions_total=5, **known)
    return before, make_view(live, step=2, archive=archive, trace=replace(trace, events_lost=3, events_lost_in_step=3))
