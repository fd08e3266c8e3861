"""The host of the golden outputs."""

from __future__ import annotations

from dataclasses import replace

from tcpwatch.kernel.processes import UNKNOWN_PERMISSION
from tcpwatch.model.listeners import UNTOLD, Queue
from tcpwatch.model.sample import Completeness, SourceInfo
from tcpwatch.model.view import View
from tests.views import make_view, sock


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
    one = replace(view.listeners[0], syn_queue=Queue(1, 511), drops=38)
    if kind == "psutil":
        one = replace(one, accept_queue=UNTOLD, syn_queue=Queue(1, None))
    source = (
        SourceInfo("psutil", "user", missing=("no queues",)) if kind == "psutil" else SourceInfo("sock_diag", "root")
    )
    completeness = Completeness() if complete else Completeness(interrupted=True)
    counters = {"ActiveOpens": 5, "CurrEstab": 3, "ListenOverflows": 38}
    sample = replace(view.sample, source=source, completeness=completeness, counters=counters)
    return replace(view, sample=sample, listeners=(one,))
